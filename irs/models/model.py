"""What is known of a model before its weights are in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from irs.imaging import Preprocess


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model: what it is called, what it expects and what its outputs mean.

    Attributes:
        architecture: a torchvision name, or ``irs:NAME`` of :mod:`irs.models.nets`.
        digest: ``sha256:`` over what makes its answers: two models of one digest answer alike.
        labels: a name for each output, in order.
        wnids: WordNet 3.0 ids in the same order, or None.
        temperature: divides the logits, so that the confidences are calibrated.
        sure_above: the least confidence of a first label that may be shown without doubt.
        pictures: files to check a faster form of the model with; may be none.
        build: returns the net in float32 with its weights, in evaluation mode; raises ModelError. A new one each call.
    """

    name: str
    architecture: str
    digest: str
    preprocess: Preprocess
    labels: tuple[str, ...]
    build: Callable[[], nn.Module] = field(repr=False, compare=False)
    wnids: tuple[str, ...] | None = None
    temperature: float = 1.0
    sure_above: float = 0.5
    license: str = ""
    source: str = ""
    pictures: tuple[Path, ...] = ()
