"""The label tree: WordNet's parents above a model's labels, in words that people use.

The bundled table (``data/wordnet.tsv``, made by ``tools/make_label_tree.py``) holds ImageNet's thousand labels and
the parents above them. A model's tree is what of it stands above the model's own wnids.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Self

import numpy as np
import numpy.typing as npt

_DATA = files("irs.models") / "data"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """One parent above a model's labels.

    Attributes:
        above: the parent's own parent, by wnid, or None.
        outputs: the model's outputs below it, however deep.
        is_answer: whether it says less than everything below it and more than nothing; else it only helps to ask.
    """

    wnid: str
    name: str
    above: str | None
    outputs: tuple[int, ...]
    is_answer: bool


@dataclass(frozen=True, slots=True)
class Table:
    """The bundled table: names of parents by wnid, and the parent of each parent or label that has one."""

    names: Mapping[str, str]
    above: Mapping[str, str]

    @classmethod
    @cache
    def bundled(cls) -> Self:
        """Return the table that comes with irs."""
        names: dict[str, str] = {}
        above: dict[str, str] = {}
        for wnid, parent, *name in _rows("wordnet.tsv"):
            names.update((wnid, word) for word in name)
            if parent:
                above[wnid] = parent
        return cls(names, above)

    def lineage(self, wnid: str) -> list[str]:
        """Return the parents of ``wnid``, nearest first; itself before them if it is one."""
        found = [wnid] if wnid in self.names else []
        while parent := self.above.get(wnid):
            found.append(parent)
            wnid = parent
        return found


@cache
def imagenet_labels() -> Mapping[str, str]:
    """Return ImageNet's thousand labels by wnid, in the order of the outputs of torchvision's models."""
    return dict(_rows("imagenet1k.tsv"))


def find_imagenet_wnids(labels: Sequence[str]) -> tuple[str, ...] | None:
    """Return the wnids of ImageNet's thousand labels, or None if ``labels`` are others."""
    ours = imagenet_labels()
    # torchvision long called two labels "crane" and two "maillot": the table tells them apart by a second word.
    if len(labels) == len(ours) and all(map(str.startswith, ours.values(), labels)):
        return tuple(ours)
    return None


class LabelTree:
    """Parents above one model's outputs, fit to sum probabilities below each. Immutable.

    Attributes:
        parents: all of them by wnid, each before those below it.
        answers: those that may be an answer.
        sizes: how many outputs are below each answer.
    """

    def __init__(self, wnids: Sequence[str | None], table: Table) -> None:
        lineages = [table.lineage(wnid or "") for wnid in wnids]
        below: dict[str, list[int]] = defaultdict(list)
        for output, lineage in enumerate(lineages):
            for parent in lineage:
                below[parent].append(output)
        ordered = sorted(below, key=lambda wnid: len(table.lineage(wnid)))
        # Of parents with the same outputs only the lowest is an answer; one of a single or of all outputs says nothing.
        lowest = {tuple(below[wnid]): wnid for wnid in ordered if 1 < len(below[wnid]) < len(wnids)}
        self.parents: Mapping[str, Parent] = {
            wnid: Parent(
                wnid=wnid,
                name=table.names[wnid],
                above=table.above.get(wnid),
                outputs=tuple(below[wnid]),
                is_answer=lowest.get(tuple(below[wnid])) == wnid,
            )
            for wnid in ordered
        }
        self.answers = tuple(parent for parent in self.parents.values() if parent.is_answer)
        self.sizes = np.array([len(parent.outputs) for parent in self.answers], np.intp)
        # In the order of their lineages the outputs below one parent stand side by side: two running totals give a sum.
        self._order = np.array(sorted(range(len(wnids)), key=lambda output: lineages[output][::-1]), np.intp)
        place = np.argsort(self._order)
        self._starts = np.array([place[list(parent.outputs)].min() for parent in self.answers], np.intp)
        self._ends = self._starts + self.sizes

    def sums(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
        """Return the sum of ``values`` (..., classes) below each of the answers (..., answers)."""
        totals = np.zeros((*values.shape[:-1], values.shape[-1] + 1))
        # In double precision: the difference of two totals is as exact as the values are.
        values[..., self._order].cumsum(axis=-1, dtype=np.float64, out=totals[..., 1:])
        sums: npt.NDArray[np.float64] = totals[..., self._ends] - totals[..., self._starts]
        return sums


def find_tree(wnids: Sequence[str | None] | None, table: Table | None = None) -> LabelTree | None:
    """Return the tree above a model's outputs, or None where no parent is known of any."""
    tree = LabelTree(wnids, table or Table.bundled()) if wnids else None
    return tree if tree and tree.parents else None


def _rows(name: str) -> list[list[str]]:
    lines = (_DATA / name).read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines if not line.startswith("#")]
