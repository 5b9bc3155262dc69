"""All pictures as one array of small squares, made once and mapped into memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from irs.imaging import Preprocess
from irs.models.train.folder import PictureFolder
from irs.models.train.kept import Kept, Pixels, tell_unreadable
from irs.models.train.options import Listener


@dataclass(frozen=True, slots=True)
class Tiles:
    """Readable pictures. ``pixels`` (N, 3, side, side) RGB, mapped from a file; ``targets`` (N,), as in the folder."""

    pixels: Pixels
    targets: npt.NDArray[np.int64]
    unreadable: tuple[str, ...] = ()


def open_tiles(folder: PictureFolder, side_px: int, file: Path, listener: Listener) -> Tiles:
    """Return the pictures of ``folder``, centre square at ``side_px``; from ``file`` if it holds just these, else made there.

    Raises:
        SetupError: the disk is too small, or no picture can be read.
        TrainingStopped: the listener asked for it; what is done is kept.
    """
    count = len(folder.names)
    kept = Kept.open(file, f"{folder.sha256()} {side_px}", np.uint8, (count, 3, side_px, side_px))
    if kept.done < count:
        listener.say(f"Reading {count:,} pictures into {file}.")
    preprocess = Preprocess(resize=side_px, crop=side_px)
    kept.fill(folder, preprocess, lambda pixels: pixels.transpose(0, 3, 1, 2), listener, doing="reading pictures")
    tell_unreadable(kept.unreadable, listener.say)
    targets = kept.targets(folder)
    # Copy on write: torch takes no array that is read-only.
    return Tiles(np.load(file, mmap_mode="c")[: len(targets)], targets, tuple(kept.unreadable))
