"""What a shared model consists of: its files, their lengths and their SHA-256."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, TypeAdapter, ValidationError

from irs.errors import ModelError
from irs.models.files import DESCRIPTION, WEIGHTS, digests_of, sha256_of
from irs.models.reference import Reference, is_name

if TYPE_CHECKING:
    from irs.models.model import Model

MANIFEST = "manifest.json"
#: What a model directory may hold beside its weights: never a checkpoint or another tool's leavings.
_SHARED_SUFFIXES = {".json", ".txt", ".md", ".jpg", ".jpeg", ".png", ".webp", ".svg"}


@dataclass(frozen=True, slots=True, order=True)
class File:
    """One file; ``path`` is below the model directory, with at most one folder."""

    path: str = Field(pattern=r"^[^/\x00.][^/\x00]*(/[^/\x00.][^/\x00]*)?$")
    size_bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One model: its digest in hex, its files by path, when it was pushed (Unix seconds), and what a list shows of it."""

    version: int = 1
    pushed_at: float
    name: str
    digest: str
    architecture: str
    classes: int
    license: str = ""
    accuracy: float | None = None
    files: tuple[File, ...]

    @property
    def size_bytes(self) -> int:
        """Length of all files."""
        return sum(file.size_bytes for file in self.files)

    def to_bytes(self) -> bytes:
        """Return it as JSON, the same each time."""
        return _adapter.dump_json(self, indent=1)

    @classmethod
    def read(cls, body: bytes, reference: Reference) -> Manifest:
        """Return what was written by :meth:`to_bytes` for the model of ``reference``.

        Raises:
            ModelError: it is broken, or of another model.
        """
        try:
            found = _adapter.validate_json(body)
        except ValidationError:
            raise ModelError(f"{reference}/{MANIFEST} is broken: push the model again.") from None
        paths = {file.path for file in found.files}
        is_ours = (found.name, found.digest) == (reference.name, reference.digest)
        if not is_ours or not paths.issuperset((DESCRIPTION, WEIGHTS)) or MANIFEST in paths:
            raise ModelError(f"{reference}/{MANIFEST} is of another model: push the model again.")
        return found


_adapter = TypeAdapter(Manifest)


def describe(directory: Path, model: Model) -> Manifest:
    """Return the manifest of the model in ``directory``, as of now.

    Raises:
        ModelError: its name cannot be part of an address.
    """
    if not is_name(model.name):
        raise ModelError(
            f"The name {model.name!r} cannot be part of an address: write letters, digits and .-_ in {directory / DESCRIPTION}."
        )
    return Manifest(
        pushed_at=time.time(),
        name=model.name,
        digest=model.digest.removeprefix("sha256:"),
        architecture=model.architecture,
        classes=len(model.labels),
        license=model.license,
        accuracy=find_accuracy(directory),
        files=tuple(_described(directory, path) for path in sorted(_paths(directory))),
    )


def find_accuracy(directory: Path) -> float | None:
    """Return the share of validation pictures whose first label is right, where ``model.json`` says it as ``accuracy``."""
    with suppress(OSError, ValueError, AttributeError):
        share = json.loads((directory / DESCRIPTION).read_bytes()).get("accuracy")
        return float(share) if isinstance(share, int | float) and 0 <= share <= 1 else None
    return None


def left_out(directory: Path, manifest: Manifest) -> list[str]:
    """Return the paths in ``directory`` that are not shared, by name."""
    shared = {file.path for file in manifest.files}
    every = (path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    return sorted({path for path in every if path != MANIFEST} - shared)


def find_fault(directory: Path, manifest: Manifest) -> str | None:
    """Return why the files in ``directory`` are not those of ``manifest``, or None; reads them all."""
    for file in manifest.files:
        try:
            if _described(directory, directory / file.path) != file:
                return f"{file.path} was changed"
        except OSError as error:
            return f"{file.path} cannot be read ({error.strerror})"
    return None if digests_of(directory)[1] == manifest.digest else "its digest differs"


def _paths(directory: Path) -> Iterator[Path]:
    for path in (*directory.glob("*"), *directory.glob("*/*")):
        is_hidden = any(part.startswith(".") for part in path.relative_to(directory).parts)
        is_shared = path.name == WEIGHTS or path.suffix.lower() in _SHARED_SUFFIXES
        if path.is_file() and is_shared and not is_hidden and path != directory / MANIFEST:
            yield path


def _described(directory: Path, path: Path) -> File:
    return File(path.relative_to(directory).as_posix(), path.stat().st_size, sha256_of(path))
