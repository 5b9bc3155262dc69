"""What a model knows, for people and programs that hold none of its files."""

from __future__ import annotations

from dataclasses import dataclass

from irs.records._json import _Json
from irs.records.record import VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class CardParent(_Json):
    """One parent of the label tree: ``above`` is its own parent's wnid or None, ``labels`` those right below it."""

    wnid: str
    name: str
    above: str | None
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard(_Json):
    """``models/{digest}.json`` of the output bucket: stored by a worker that has loaded it, anew each day it runs.

    Attributes:
        digest: as in records: ``sha256:`` over model.json and the weights.
        labels: a name for each kind it tells apart, in the order of its outputs; it names nothing else.
        sure_above: the least confidence of a first label that is shown without doubt.
        dated: when the file of its weights was last changed where the worker runs, in Unix seconds; None if unknown.
        why: why this model serves, as the end of a sentence; "" where a person named it.
        parents: the label tree, each before those below it; empty where no parent of any label is known.
    """

    version: int = VERSION
    name: str
    digest: str
    labels: tuple[str, ...]
    sure_above: float
    dated: float | None = None
    license: str = ""
    source: str = ""
    why: str = ""
    parents: tuple[CardParent, ...] = ()


def card_key(digest: str) -> str:
    """Return the key of the card of a model by its digest."""
    return f"models/{digest.removeprefix('sha256:')}.json"
