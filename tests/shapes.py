"""A small set to train on: squares of one colour for each class, anywhere on a noisy ground."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (40, 60, 220), "green": (40, 200, 60), "red": (220, 50, 40)}


def make_shapes(root: Path, *, each: int = 24, side_px: int = 32, seed: int = 0) -> Path:
    """Write ``each`` PNG pictures into a folder for each colour below ``root``, which is returned."""
    rng = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        folder = root / name
        folder.mkdir(parents=True)
        for number in range(each):
            pixels = rng.integers(60, 160, (side_px, side_px, 3), dtype=np.uint8)
            top, left = rng.integers(0, side_px // 2, 2)
            pixels[top : top + side_px // 2, left : left + side_px // 2] = colour
            Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    return root
