"""Checkpoints: whole or not there, the last two kept."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from irs.errors import SetupError

_KEPT = 2
_PATTERN = "checkpoint-*.safetensors"


def save_checkpoint(folder: Path, step: int, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, str]) -> Path:
    """Put a checkpoint of ``step`` into ``folder``, on the disk before it has its name; older ones than the last two go.

    Raises:
        SetupError: the disk does not take it; those before it stay.
    """
    file = folder / f"checkpoint-{step:08d}.safetensors"
    part = folder / f".{file.name}.part"
    for left in folder.glob(f".{_PATTERN}.part"):
        # Of a process that was killed.
        left.unlink()
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, part, dict(facts))
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(file)
    except (SafetensorError, OSError) as error:
        part.unlink(missing_ok=True)
        raise SetupError(
            f"No checkpoint can be written to {folder} ({error}): make room, then give the same command again."
        ) from None
    for old in sorted(folder.glob(_PATTERN))[:-_KEPT]:
        old.unlink()
    return file


def load_checkpoint(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]] | None:
    """Return tensors and facts of the newest checkpoint that can be read, None if there is none.

    Raises:
        SetupError: there are some, and none can be read.
    """
    files = sorted(folder.glob(_PATTERN), reverse=True)
    for file in files:
        try:
            with safe_open(file, "pt") as opened:
                return {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata()  # noqa: SIM118 (no dict)
        except (SafetensorError, OSError):
            continue
    if files:
        raise SetupError(f"No checkpoint in {folder} can be read: delete the folder, and the training begins again.")
    return None


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the work folder, made if need be; the lock ends with the process.

    Raises:
        SetupError: another process holds it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        opened = (folder / "lock").open("w")
    except OSError as error:
        raise SetupError(f"The work folder {folder} cannot be made ({error.strerror}): give another --work-dir.") from None
    with opened as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SetupError(f"Another irs train works in {folder}: wait for it, or give another --work-dir.") from None
        yield
