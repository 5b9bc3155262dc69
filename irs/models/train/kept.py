"""What is read from each picture of a folder, as one array mapped from a file: filled once, over as many sittings as it takes."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from irs.errors import IrsError, SetupError
from irs.imaging import Limits, Preprocess, decode, fit
from irs.models.files import write_whole
from irs.models.train.folder import PictureFolder, first_few
from irs.models.train.options import Listener, TrainingProgress, TrainingStopped

Pixels = npt.NDArray[np.uint8]
#: From pixels (B, crop, crop, 3) to B rows of the array.
Rows = Callable[[Pixels], npt.NDArray[Any]]
T = TypeVar("T")
R = TypeVar("R")

_LIMITS = Limits(100 * 2**20, 200_000_000)
_BATCH = 32
_AHEAD = 64
#: A stop by force loses no more than this.
_KEEP_EVERY_S = 10.0


@dataclass(slots=True)
class Kept:
    """An array in the making.

    Attributes:
        array: a row for each picture that can be read, in the folder's order; without gaps, so the last rows may be unused.
        digest: of all that the rows depend on.
        done: pictures of the folder that were looked at.
        unreadable: names of those of them that have no row.
    """

    file: Path
    array: npt.NDArray[Any]
    digest: str
    done: int = 0
    unreadable: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, file: Path, digest: str, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> Kept:
        """Return what ``file`` holds if it was filled under ``digest``, else a new array.

        Raises:
            SetupError: the disk is too small.
        """
        try:
            facts = json.loads(_facts_file(file).read_bytes())
            array = np.load(file, mmap_mode="r+")
            if facts["digest"] == digest and (array.dtype, array.shape) == (np.dtype(dtype), shape):
                return cls(file, array, digest, int(facts["done"]), list(facts["unreadable"]))
        except (OSError, EOFError, ValueError, LookupError, TypeError):
            pass  # not there yet, or cut short: it is made anew
        _facts_file(file).unlink(missing_ok=True)
        return cls(file, _make_array(file, dtype, shape), digest)

    def fill(self, folder: PictureFolder, preprocess: Preprocess, rows: Rows, listener: Listener, *, doing: str) -> None:
        """Look at the pictures that are not done yet.

        Raises:
            SetupError: the disk does not take it, or none of the pictures can be read.
            TrainingStopped: the listener asked for it; what is done is kept.
        """
        total, kept_s = len(folder.names), time.monotonic()
        names = folder.names[self.done :]
        squares: list[Pixels] = []
        read = _ahead(lambda name: _read_square(folder.root / name, preprocess), names)
        for number, (name, square) in enumerate(zip(names, read, strict=True), start=self.done + 1):
            if square is None:
                self.unreadable.append(name)
            else:
                squares.append(square)
            if number % _BATCH and number < total:
                continue
            if squares:
                end = number - len(self.unreadable)
                self.array[end - len(squares) : end] = rows(np.stack(squares))
                squares = []
            self.done = number
            listener.show(TrainingProgress(doing=doing, done=number, total=total))
            is_stopped = number < total and listener.is_stopped()
            if is_stopped or number == total or time.monotonic() - kept_s > _KEEP_EVERY_S:
                self._keep()
                kept_s = time.monotonic()
            if is_stopped:
                read.close()
                raise TrainingStopped("picture", number, total, self.file.parent)
        if len(self.unreadable) == total:
            raise SetupError(f"None of the {total:,} pictures of {folder.root} can be read: give others.")

    def targets(self, folder: PictureFolder) -> npt.NDArray[np.int64]:
        """Return the class of each row."""
        lost = set(self.unreadable)
        return np.array([one for name, one in zip(folder.names, folder.targets, strict=True) if name not in lost], np.int64)

    def _keep(self) -> None:
        facts = {"digest": self.digest, "done": self.done, "unreadable": self.unreadable}
        try:
            self.array.flush()  # type: ignore[attr-defined]
            write_whole(_facts_file(self.file), json.dumps(facts).encode())
        except OSError as error:
            raise SetupError(_no_room(self.file, error)) from None


def tell_unreadable(unreadable: Iterable[str], say: Callable[[str], None]) -> None:
    """Say in one line which pictures are left out; nothing if none is."""
    if names := list(unreadable):
        say(f"{len(names)} pictures cannot be read and are left out: {first_few(names)}.")


def _facts_file(file: Path) -> Path:
    return file.with_suffix(".json")


def _make_array(file: Path, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return a new array, all its room on the disk taken: a page that finds none kills the process."""
    try:
        array = np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape)
        if hasattr(os, "posix_fallocate"):
            with file.open("r+b") as mapped:
                os.posix_fallocate(mapped.fileno(), 0, file.stat().st_size)
    except OSError as error:
        file.unlink(missing_ok=True)
        raise SetupError(_no_room(file, error)) from None
    return array


def _no_room(file: Path, error: OSError) -> str:
    return f"{file} cannot be written ({error.strerror}): make room, or give another --work-dir."


def _read_square(path: Path, preprocess: Preprocess) -> Pixels | None:
    """Return one picture (crop, crop, 3) as a model sees it; None if it cannot be read."""
    try:
        return fit(decode(path.read_bytes(), _LIMITS, side_px=preprocess.resize), preprocess)
    except (IrsError, OSError):
        return None


def _ahead(work: Callable[[T], R], items: Iterable[T]) -> Generator[R, None, None]:
    """Yield ``work`` of each item, in order, some done ahead by a thread a core."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting = deque[object]()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= _AHEAD:
                yield waiting.popleft().result()  # type: ignore[attr-defined]
        while waiting:
            yield waiting.popleft().result()  # type: ignore[attr-defined]
