"""Which digest a name stands for now, in one small object that two operators cannot overwrite for each other."""

from __future__ import annotations

import getpass
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, replace

from pydantic import Field, TypeAdapter, ValidationError

from irs.errors import ModelError
from irs.models.reference import DIGEST_HEX, Reference
from irs.models.registry import Registry

POINTER = "current.json"
_MOST_ROLLS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Roll:
    """One change: to which digest, when (Unix seconds), by whom, and whether it took back the roll before."""

    digest: str = Field(pattern=rf"^[0-9a-f]{{{DIGEST_HEX}}}$")
    at: float
    by: str
    back: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointer:
    """What a name stands for, and how it came to it, oldest first."""

    version: int = 1
    digest: str = Field(pattern=rf"^[0-9a-f]{{{DIGEST_HEX}}}$")
    history: tuple[Roll, ...] = ()

    def find_before(self) -> str | None:
        """Return the digest that going back leads to: of the last roll that was not taken back."""
        standing: list[str] = []
        for roll in self.history:
            if not roll.back:
                standing.append(roll.digest)
            elif standing:
                standing.pop()
        return standing[-2] if len(standing) > 1 else None


_adapter = TypeAdapter(Pointer)


def find_current(registry: Registry, name: str) -> Pointer | None:
    """Return what ``name`` stands for, None if it was never rolled."""
    found = _read(registry, name)
    return found[0] if found else None


def resolve(registry: Registry, reference: Reference) -> Reference:
    """Return ``reference`` with its name and its whole digest: that of now, where none is given.

    Raises:
        ModelError: there is no such model, several begin with the digest, or the name was never rolled.
    """
    if reference.name and len(reference.digest) == DIGEST_HEX:
        return reference
    if not reference.digest:
        if current := find_current(registry, reference.name):
            return replace(reference, digest=current.digest)
        raise ModelError(f"{reference} was not rolled to a model yet: say `irs models roll {reference.name}`, or name a digest.")
    found = [one.reference for one in registry.models(reference.name) if one.reference.digest.startswith(reference.digest)]
    if len(found) != 1:
        many = f"{len(found)} models" if found else "no model"
        raise ModelError(f"Bucket {registry.bucket} has {many} whose digest begins with {reference.digest}: write more of it.")
    return found[0]


def roll(registry: Registry, reference: Reference) -> tuple[Reference, str | None]:
    """Let the name stand for a digest, without one for the model pushed last; return it and the digest before.

    Raises:
        ModelError: there is no such model, or somebody else rolled the name at this moment.
    """
    if reference.digest:
        target = resolve(registry, reference)
    elif models := registry.models(reference.name):
        target = models[-1].reference
    else:
        raise ModelError(f"{reference} has no model: `irs models push` puts one there.")
    # Whole, not only named: a worker that starts must find it.
    registry.manifest(target)
    found = _read(registry, target.name)
    pointer, etag = found or (None, None)
    before = pointer.digest if pointer else None
    if before != target.digest:
        _write(registry, target, pointer, etag, back=False)
    return target, before


def roll_back(registry: Registry, name: str) -> tuple[Reference, str]:
    """Take the last roll of ``name`` back; return what it stands for now and the digest before.

    Raises:
        ModelError: there is none to take back, or somebody else rolled the name at this moment.
    """
    found = _read(registry, name)
    digest = found[0].find_before() if found else None
    if found is None or digest is None:
        raise ModelError(f"s3://{registry.bucket}/{name} knows no model before this one: name the one to roll to.")
    pointer, etag = found
    target = Reference(registry.bucket, name, digest)
    registry.manifest(target)
    _write(registry, target, pointer, etag, back=True)
    return target, pointer.digest


def _read(registry: Registry, name: str) -> tuple[Pointer, str] | None:
    found = registry.read(f"{name}/{POINTER}")
    if found is None:
        return None
    try:
        return _adapter.validate_json(found[0]), found[1]
    except ValidationError:
        raise ModelError(f"s3://{registry.bucket}/{name}/{POINTER} is broken: delete it, and roll again.") from None


def _write(registry: Registry, target: Reference, pointer: Pointer | None, etag: str | None, *, back: bool) -> None:
    done = Roll(digest=target.digest, at=time.time(), by=_who(), back=back)
    history = (*(pointer.history if pointer else ()), done)[-_MOST_ROLLS:]
    body = _adapter.dump_json(Pointer(digest=target.digest, history=history), indent=1)
    if not registry.replace(f"{target.name}/{POINTER}", body, etag):
        # Not tried again: whoever asked had another model before their eyes.
        raise ModelError(
            f"s3://{registry.bucket}/{target.name} was rolled by somebody else at this moment: look at it, then say it again."
        )


def _who() -> str:
    user = "somebody"
    with suppress(OSError, KeyError):  # a container's user may have no name
        user = getpass.getuser()
    return f"{user}@{socket.gethostname()}"
