"""A shared model as a directory of this machine: fetched once, checked each time it is opened."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from irs.cloud import Cloud
from irs.errors import ModelError
from irs.models.manifest import MANIFEST, Manifest, find_fault
from irs.models.reference import Reference
from irs.models.registry import Moved, Registry
from irs.models.rolls import resolve

log = logging.getLogger(__name__)


def cache_folder(home: Path) -> Path:
    """Return where fetched models are kept, as ``bucket/name/digest``; each may be deleted at any time."""
    return home / "cache" / "models"


def get_shared(cloud: Cloud, address: str) -> tuple[Reference, Path]:
    """Return what an ``s3://`` address stands for now, and its directory, fetched if it is not here whole.

    S3 is not asked where the address names its digest and the model is here. Waits while another process of this
    machine fetches the same model.

    Raises:
        ModelError: there is none, it was changed, or it cannot be kept here.
        MissingResource, Unreachable: the bucket is missing or does not answer.
    """
    reference = Reference.of(address, cloud.settings.models_bucket)
    registry = Registry(cloud, reference.bucket)
    reference = resolve(registry, reference)
    directory = cache_folder(cloud.settings.home) / reference.bucket / reference.key
    try:
        cloud.settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(directory):
            if (fault := _find_cached_fault(directory, reference)) is not None:
                _fetch(registry, reference, directory, fault)
    except OSError as error:
        raise ModelError(f"The model cannot be kept in {directory} ({error.strerror}): set IRS_HOME to another folder.") from None
    return reference, directory


def pull(registry: Registry, reference: Reference, directory: Path, *, moved: Moved = lambda _: None) -> Manifest:
    """Fetch a model into ``directory``, which appears whole or not at all.

    Raises:
        ModelError: as :meth:`Registry.fetch`, or there is something in ``directory`` already.
    """
    # Its parts are asked for below, and `.` has none.
    directory = directory.resolve()
    try:
        if directory.exists() and any(directory.iterdir()):
            raise ModelError(f"{directory} is not empty: name a folder that is not there yet.")
        if directory == Path.cwd():
            raise ModelError(f"{directory} is in use, you stand in it: name a folder that is not there yet.")
        part = directory.with_name(f".{directory.name}.{os.getpid()}.part")
        for left in directory.parent.glob(f".{escape(directory.name)}.*.part"):
            if left == part or not _is_alive(left):
                shutil.rmtree(left, ignore_errors=True)
        manifest = registry.fetch(reference, part, moved=moved)
        try:
            part.rename(directory)
        except OSError:
            shutil.rmtree(part, ignore_errors=True)
            raise
    except OSError as error:
        raise ModelError(f"{directory} cannot be written ({error.strerror}): name another folder.") from None
    return manifest


def _is_alive(part: Path) -> bool:
    """Whether the process that a part of ours is named after runs on this machine."""
    try:
        os.kill(int(part.suffixes[-2].removeprefix(".")), 0)
    except PermissionError:
        return True
    except (ProcessLookupError, ValueError, OverflowError, LookupError):
        return False
    return True


def _find_cached_fault(directory: Path, reference: Reference) -> str | None:
    """Return why the cached model cannot be used, or None."""
    try:
        manifest = Manifest.read((directory / MANIFEST).read_bytes(), reference)
    except FileNotFoundError:
        return "it is not here yet"
    except ModelError as error:
        return str(error)
    return find_fault(directory, manifest)


def _fetch(registry: Registry, reference: Reference, directory: Path, why: str) -> None:
    log.info("model_fetch", extra={"model": str(reference), "reason": why})
    part = directory.with_name(f"{directory.name}.part")
    # Of a process that was killed: nobody else works here now.
    shutil.rmtree(part, ignore_errors=True)
    try:
        manifest = registry.fetch(reference, part)
        (part / MANIFEST).write_bytes(manifest.to_bytes())
        shutil.rmtree(directory, ignore_errors=True)
        part.rename(directory)
    finally:
        # A full disk is not kept full.
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Keep other processes from the same model; the kernel frees the lock however this one ends."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(directory.with_name(f"{directory.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        with suppress(OSError):
            os.close(handle)
