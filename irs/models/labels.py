"""Probabilities to labels, as the options of one image ask for them."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from irs.errors import BadOptions
from irs.models.model import Model
from irs.records import Label, Options

#: Of a confidence: finer than half precision, which repeated answers are kept in.
_DIGITS = 5


@dataclass(frozen=True, slots=True)
class Answer:
    """What one record says of its picture.

    Attributes:
        labels: by falling confidence.
        hedged: a more general label that is surer; None without a label tree.
        sure: whether the first label's confidence reaches the model's ``sure_above``.
    """

    labels: tuple[Label, ...]
    hedged: Label | None
    sure: bool


class Answers:
    """The labels of one model. Safe for several threads."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._wnids: tuple[str | None, ...] = model.wnids or (None,) * len(model.labels)
        self._outputs: dict[str, list[int]] = defaultdict(list)
        for output, (label, wnid) in enumerate(zip(model.labels, self._wnids, strict=True)):
            # Two outputs may share a label: torchvision has two "crane" and two "maillot".
            for name in {label, wnid} - {None}:
                self._outputs[str(name)].append(output)
        self._outputs.default_factory = None
        # The images of one job share their options.
        self._allowed = lru_cache(maxsize=64)(self._make_allowed)

    def check(self, options: Options) -> None:
        """Return if this model can be asked so.

        Raises:
            BadOptions: ``include`` or ``exclude`` names no label or wnid of the model, or together they leave none.
        """
        for option, names in (("include", options.include), ("exclude", options.exclude)):
            for name in names:
                if name not in self._outputs:
                    near = difflib.get_close_matches(name, self._outputs, n=1)
                    hint = f", did you mean {near[0]!r}?" if near else ""
                    raise BadOptions(f"{option}: the model {self._model.name} has no label {name[:80]!r}{hint}")
        if not self._allowed(options.include, options.exclude).any():
            raise BadOptions("include and exclude leave no label")

    def answer(self, probabilities: npt.NDArray[np.float32], options: Options) -> Answer:
        """Return the answer to ``probabilities`` (classes,), calibrated. Leaving labels out makes the others no surer.

        Raises:
            BadOptions: as :meth:`check`.
        """
        if options.include or options.exclude:
            probabilities = np.where(self._allowed(options.include, options.exclude), probabilities, -1.0)
        first = np.argsort(-probabilities, kind="stable")[: options.top_k]
        labels = tuple(
            Label(
                label=self._model.labels[output],
                wnid=self._wnids[output],
                confidence=round(float(probabilities[output]), _DIGITS),
            )
            for output in first
            if probabilities[output] >= options.min_confidence
        )
        return Answer(labels, None, bool(labels) and labels[0].confidence >= self._model.sure_above)

    def _make_allowed(self, include: Iterable[str], exclude: Iterable[str]) -> npt.NDArray[np.bool_]:
        allowed = np.full(len(self._model.labels), not include)
        for name in include:
            allowed[self._outputs[name]] = True
        for name in exclude:
            allowed[self._outputs[name]] = False
        return allowed
