"""``irs models push|pull|roll``: models shared in the models bucket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from irs.cli.outcome import answer, note

if TYPE_CHECKING:
    from irs.models.reference import Reference
    from irs.models.registry import Registry

_SHORT_HEX = 12

Wanted = Annotated[
    str, typer.Argument(metavar="MODEL", help="Name in the models bucket, name/digest, digest, or s3://bucket/name[/digest].")
]


def push(
    directory: Annotated[Path, typer.Argument(help="Model directory: model.json, weights.safetensors, labels.txt.")],
) -> None:
    """Check a model directory and put it into the models bucket; answers with the address for IRS_MODEL.

    Safe to repeat: a model that is there already is compared, and mended where it is broken.
    """
    from irs.cli.operate import require_worker_extra

    require_worker_extra("irs models push")
    from irs.errors import ModelError
    from irs.models.manifest import left_out
    from irs.models.rolls import find_current

    registry = find_registry()
    with _moving("pushing") as moved:
        reference, written = registry.push(directory, moved=moved)
    for path in left_out(directory, registry.manifest(reference)):
        note(f"irs: left out {path}: it is no part of a model")
    note(f"irs: {len(written)} files written" if written else "irs: it was there already, nothing was written")
    try:
        current = find_current(registry, reference.name)
        if current is None or current.digest != reference.digest:
            note(f"irs: workers of s3://{reference.bucket}/{reference.name} take it after `irs models roll {reference.name}`")
    except ModelError as error:
        # It is pushed all the same.
        note(f"irs: {error}")
    answer(str(reference))


def pull(
    model: Wanted,
    directory: Annotated[Path, typer.Argument(help="Folder to make; it must not be there, or be empty.")],
) -> None:
    """Fetch a shared model into a folder, checked; a name means its current model."""
    from irs.models.rolls import resolve
    from irs.models.shared import pull as fetch

    registry, reference = _find(model)
    reference = resolve(registry, reference)
    with _moving("pulling", registry.manifest(reference).size_bytes) as moved:
        fetch(registry, reference, directory, moved=moved)
    note(f"irs: {reference}")
    answer(str(directory))


def roll(
    model: Wanted,
    back: Annotated[bool, typer.Option("--back", help="Take the last roll of this name back.")] = False,
) -> None:
    """Let a name stand for a pushed model: for the newest, or the one whose digest is given.

    Workers whose IRS_MODEL is s3://bucket/name take it when they start; `irs up` starts its own anew, one by one.
    """
    from irs.errors import SetupError
    from irs.models import rolls

    registry, reference = _find(model)
    before: str | None
    if back:
        if reference.digest:
            raise SetupError("--back takes a name alone: it goes to the model before.")
        target, before = rolls.roll_back(registry, reference.name)
    else:
        target, before = rolls.roll(registry, reference)
    name = f"s3://{target.bucket}/{target.name}"
    if before == target.digest:
        note(f"irs: {name} is that already")
    else:
        note(f"irs: {name} was {before[:_SHORT_HEX] if before else 'nothing'}, is {target.digest[:_SHORT_HEX]}")
    answer(str(target))


def find_registry(bucket: str = "") -> Registry:
    """Return the models of this command's service."""
    from irs.cli.service import find_cloud
    from irs.models.registry import Registry

    return Registry(find_cloud(), bucket)


def _find(model: str) -> tuple[Registry, Reference]:
    from irs.models.reference import Reference

    registry = find_registry()
    reference = Reference.of(model, registry.bucket)
    return (registry if reference.bucket == registry.bucket else find_registry(reference.bucket)), reference


@contextmanager
def _moving(doing: str, total: int = 0) -> Iterator[Callable[[int], object]]:
    """Yield what is told of each bytes that have moved, and shows them on a terminal."""
    from irs.models.download import shown

    moved = 0
    with shown(doing) as arrived:

        def add(count: int) -> None:
            nonlocal moved
            moved += count
            if arrived is not None:
                arrived(moved, total)

        yield add
