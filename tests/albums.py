"""Photos by the hundred, each file of its own bytes: small, large, and cut from real ones."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
from PIL import Image
from workers import picture


def small_photos(folder: Path, count: int, *, first: int = 0) -> list[Path]:
    paths = [folder / f"{number}.jpg" for number in range(first, first + count)]
    for number, path in enumerate(paths, start=first):
        path.write_bytes(picture(number))
    return paths


def large_photos(folder: Path, count: int) -> list[Path]:
    """Write different JPEGs of 12 megapixels and 5 MB: four noisy pictures, each file with a comment of its own."""
    noise = np.random.default_rng(5)
    bodies = []
    for _ in range(4):
        patches = Image.fromarray(noise.integers(30, 220, (9, 12, 3), dtype=np.uint8)).resize(
            (4000, 3000), Image.Resampling.BICUBIC
        )
        grain = noise.normal(0, 14, (3000, 4000, 1))
        stream = io.BytesIO()
        Image.fromarray(np.clip(np.asarray(patches) + grain, 0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
        bodies.append(stream.getvalue())
    paths = [folder / f"large {number}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        body = bodies[number % len(bodies)]
        # Start of image, then a comment.
        path.write_bytes(body[:2] + b"\xff\xfe\x00\x0a%08d" % number + body[2:])
    return paths


def real_photos(shared: Path, folder: Path, count: int) -> list[Path]:
    """Write different cuts of the photos in ``shared``."""
    chance = random.Random(11)
    sources = sorted((shared / "photos").glob("*.JPEG"))
    paths = [folder / f"{number} {sources[number % len(sources)].stem}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        with Image.open(sources[number % len(sources)]) as photo:
            width, height = photo.size
            left, top = chance.randrange(1 + width // 8), chance.randrange(1 + height // 8)
            cut = photo.convert("RGB").crop((left, top, width - chance.randrange(1 + width // 8), height))
            cut.save(path, "JPEG", quality=chance.randrange(80, 96))
    return paths
