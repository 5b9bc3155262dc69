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
from irs.models.tree import find_tree
from irs.records import Label, Options

#: Of a confidence: finer than half precision, which repeated answers are kept in.
_DIGITS = 5


@dataclass(frozen=True, slots=True)
class Answer:
    """What one record says of its picture.

    Attributes:
        labels: by falling confidence.
        hedged: the most specific label or parent that reaches the option ``hedge``; None without a label tree.
        sure: whether the first label's confidence reaches the model's ``sure_above``.
    """

    labels: tuple[Label, ...]
    hedged: Label | None
    sure: bool


@dataclass(frozen=True, slots=True)
class _Choice:
    """What ``include`` and ``exclude`` leave.

    Attributes:
        allowed: whether each output may be answered.
        is_empty: whether none may.
        parents: places of parents in the tree's answers, those that say most first.
        ranks: of each of them; equal where two say as much.
    """

    allowed: npt.NDArray[np.bool_]
    is_empty: bool
    parents: npt.NDArray[np.intp]
    ranks: npt.NDArray[np.intp]


class Answers:
    """The labels of one model, and the parents above them where its wnids are known. Safe for several threads.

    A name or wnid that is both a label's and a parent's means the label and all below the parent.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._wnids: tuple[str | None, ...] = model.wnids or (None,) * len(model.labels)
        self._tree = find_tree(model.wnids)
        self._outputs: dict[str, list[int]] = defaultdict(list)
        for output, (label, wnid) in enumerate(zip(model.labels, self._wnids, strict=True)):
            # Two outputs may share a label: torchvision has long had two "crane" and two "maillot".
            for name in {label, wnid} - {None}:
                self._outputs[str(name)].append(output)
        for parent in self._tree.parents.values() if self._tree else ():
            for name in (parent.name, parent.wnid):
                self._outputs[name].extend(parent.outputs)
        self._outputs.default_factory = None
        # The images of one job share their options.
        self._choice = lru_cache(maxsize=64)(self._make_choice)

    @property
    def can_hedge(self) -> bool:
        """Whether a parent of any label is known."""
        return self._tree is not None

    def check(self, options: Options) -> None:
        """Return if this model can be asked so.

        Raises:
            BadOptions: ``include`` or ``exclude`` names no label, parent or wnid of the model, or they leave no label.
        """
        for option, names in (("include", options.include), ("exclude", options.exclude)):
            for name in names:
                if name not in self._outputs:
                    near = difflib.get_close_matches(name, self._outputs, n=1)
                    hint = f", did you mean {near[0]!r}?" if near else ""
                    raise BadOptions(f"{option}: the model {self._model.name} has no label {name[:80]!r}{hint}")
        if self._choice(options.include, options.exclude).is_empty:
            raise BadOptions("include and exclude leave no label")

    def answer(self, probabilities: npt.NDArray[np.float32], options: Options) -> Answer:
        """Return the answer to ``probabilities`` (classes,), calibrated. Leaving labels out makes the others no surer.

        Raises:
            BadOptions: as :meth:`check`.
        """
        probabilities = self._allowed(probabilities, options)
        first = _first(probabilities, options.top_k)
        labels = tuple(self._label(output, probabilities) for output in first if probabilities[output] >= options.min_confidence)
        hedged = self._hedge(first[0], probabilities, options)
        return Answer(labels, hedged[0] if hedged else None, bool(labels) and labels[0].confidence >= self._model.sure_above)

    def hedge(self, probabilities: npt.NDArray[np.float32], options: Options) -> tuple[Label, tuple[int, ...]] | None:
        """Return the most specific label or parent whose summed probability reaches the option ``hedge``, and its outputs.

        Deng et al., «Hedging Your Bets», CVPR 2012: what says most has the fewest of the model's labels below it; among
        equals the likelier one answers. None if nothing below the root reaches it, if ``hedge`` is 0, or without a tree.
        Labels left out add nothing to a parent's sum. A parent answers only if ``include`` names all below it, for an
        answer that was not asked for is none.
        """
        probabilities = self._allowed(probabilities, options)
        return self._hedge(int(probabilities.argmax()), probabilities, options)

    def _allowed(self, probabilities: npt.NDArray[np.float32], options: Options) -> npt.NDArray[np.float32]:
        if not (options.include or options.exclude):
            return probabilities
        return np.where(self._choice(options.include, options.exclude).allowed, probabilities, np.float32(-1))

    def _label(self, output: int, probabilities: npt.NDArray[np.float32]) -> Label:
        confidence = round(float(probabilities[output]), _DIGITS)
        return Label(label=self._model.labels[output], wnid=self._wnids[output], confidence=confidence)

    def _hedge(
        self, first: int, probabilities: npt.NDArray[np.float32], options: Options
    ) -> tuple[Label, tuple[int, ...]] | None:
        if self._tree is None or not options.hedge:
            return None
        if probabilities[first] >= options.hedge:
            return self._label(first, probabilities), (first,)
        choice = self._choice(options.include, options.exclude)
        sums = self._tree.sums(np.maximum(probabilities, 0))[choice.parents]
        reaching = np.flatnonzero(sums >= options.hedge)
        if not reaching.size:
            return None
        alike = reaching[choice.ranks[reaching] == choice.ranks[reaching[0]]]
        best = alike[np.argmax(sums[alike])]
        parent = self._tree.answers[choice.parents[best]]
        confidence = min(1.0, round(float(sums[best]), _DIGITS))
        return Label(label=parent.name, wnid=parent.wnid, confidence=confidence), parent.outputs

    def _make_choice(self, include: Iterable[str], exclude: Iterable[str]) -> _Choice:
        included = np.full(len(self._model.labels), not include)
        for name in include:
            included[self._outputs[name]] = True
        allowed = included.copy()
        for name in exclude:
            allowed[self._outputs[name]] = False
        is_empty = not allowed.any()
        if self._tree is None:
            return _Choice(allowed, is_empty, np.empty(0, np.intp), np.empty(0, np.intp))
        sizes, left = self._tree.sizes, self._tree.sums(allowed).astype(np.intp)
        may = np.flatnonzero((self._tree.sums(included) == sizes) & (left > 0))
        # Of two parents with as many outputs left, the one that had fewer from the start says more.
        ranks = left[may] * (len(allowed) + 1) + sizes[may]
        order = np.argsort(ranks, kind="stable")
        return _Choice(allowed, is_empty, may[order], ranks[order])


def _first(values: npt.NDArray[np.float32], count: int) -> list[int]:
    """Return the places of the ``count`` greatest values, falling; of equal ones the first comes first."""
    count = min(count, len(values))
    # Sorting a thousand takes four times as long as finding the least that counts, and sorting those few.
    found = np.flatnonzero(values >= np.partition(values, -count)[-count])
    places: list[int] = found[np.argsort(-values[found], kind="stable")[:count]].tolist()
    return places
