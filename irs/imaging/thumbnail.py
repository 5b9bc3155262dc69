"""A small copy of a picture for the record."""

from __future__ import annotations

import base64
import io

from PIL import Image

#: Of the base64 text.
MAX_BYTES = 24 * 1024

_QUALITIES = (80, 60, 40, 20)


def thumbnail(image: Image.Image, side_px: int) -> str:
    """Return a WebP in base64, at most ``side_px`` on its long side and 24 KiB of text; RGB in, never enlarged."""
    while True:
        small = _shrunk(image, side_px)
        for quality in _QUALITIES:
            stream = io.BytesIO()
            small.save(stream, "WEBP", quality=quality)
            text = base64.b64encode(stream.getvalue())
            if len(text) <= MAX_BYTES:
                return text.decode()
        side_px //= 2


def _shrunk(image: Image.Image, side_px: int) -> Image.Image:
    scale = min(1.0, side_px / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
