"""The label tree as plain facts and as text: for ``irs models show``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from irs.models.model import Model
from irs.models.tree import LabelTree, Parent, find_tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """One parent.

    Attributes:
        above: the wnid of its own parent, or None.
        count: how many labels are below it, however deep; ``labels`` are those right below it.
    """

    name: str
    wnid: str
    above: str | None
    count: int
    labels: tuple[str, ...]


def branches(model: Model) -> tuple[tuple[Branch, ...], tuple[str, ...]]:
    """Return the model's parents, each before those below it, and the labels below none."""
    tree = find_tree(model.wnids)
    if tree is None:
        return (), model.labels
    right_below: dict[str | None, list[str]] = defaultdict(list)
    nearest = _nearest(tree)
    for output, label in enumerate(model.labels):
        right_below[nearest.get(output)].append(label)
    found = [_branch(parent, right_below[parent.wnid]) for parent in _in_depth(tree, None)]
    return tuple(found), tuple(right_below[None])


def drawn(parents: Sequence[Branch], others: Sequence[str]) -> Iterator[str]:
    """Yield the lines of the whole tree: a parent and its number of labels, what is below it set in; then the others."""
    depths: dict[str | None, int] = {None: -1}
    for branch in parents:
        depths[branch.wnid] = depth = depths[branch.above] + 1
        yield f"{'  ' * depth}{branch.name} ({branch.count})"
        yield from (f"{'  ' * (depth + 1)}- {label}" for label in branch.labels)
    yield from (f"- {label}" for label in others)


def summed_up(parents: Sequence[Branch]) -> str:
    """Return the parents that have none above them and more than one label, the largest first: ``animal 398, ...``."""
    top = [branch for branch in parents if branch.above is None and branch.count > 1]
    return ", ".join(f"{branch.name} {branch.count}" for branch in sorted(top, key=lambda branch: -branch.count))


def _nearest(tree: LabelTree) -> dict[int, str]:
    """Return the lowest parent of each output: parents come from the top."""
    return {output: parent.wnid for parent in tree.parents.values() for output in parent.outputs}


def _in_depth(tree: LabelTree, above: str | None) -> Iterator[Parent]:
    for parent in tree.parents.values():
        if parent.above == above:
            yield parent
            yield from _in_depth(tree, parent.wnid)


def _branch(parent: Parent, labels: Sequence[str]) -> Branch:
    return Branch(name=parent.name, wnid=parent.wnid, above=parent.above, count=len(parent.outputs), labels=tuple(labels))
