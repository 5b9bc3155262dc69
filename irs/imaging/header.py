"""What a file says of itself before any pixel is decoded: format, size, and whether it may be decoded at all."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import ImageFile

from irs.errors import Damaged, EmptyImage, RequestError, TooLarge, TooManyPixels
from irs.imaging.formats import find_reader

LARGE_PX = 16_000_000
#: A JPEG shorter than this on one side is not decoded at half its size.
_SHRINKABLE_SIDE_PX = 1280
#: Each scan of a JPEG passes over the whole picture: cameras write about ten, thousands of empty ones are an attack.
#: A video of 20 MiB behind the picture, as phones put it, looks like 300.
_MAX_SCANS = 1000
_DETAIL_CHARACTERS = 120


@dataclass(frozen=True, slots=True)
class Limits:
    """What one image may have at most."""

    bytes: int
    pixels: int


@dataclass(frozen=True, slots=True)
class Header:
    """A file's own claim.

    Attributes:
        format: ``JPEG``, ``PNG``, ``WEBP``, ``GIF``, ``BMP``, ``TIFF``, ``JPEG2000``, ``AVIF`` or ``HEIF``.
        width, height: in pixels as stored, before an orientation is applied.
        is_large: decoding takes long and much memory: above 16 megapixels and no JPEG that is decoded at reduced size.
    """

    format: str
    width: int
    height: int
    is_large: bool


@dataclass(frozen=True, slots=True)
class Opened:
    """A picture whose header is read and whose pixels are still to be decoded, once."""

    header: Header
    image: ImageFile.ImageFile


def read_header(body: bytes, limits: Limits) -> Header:
    """Return what the file claims; decodes no pixel. Raises as :func:`open_image`."""
    return open_image(body, limits).header


def open_image(body: bytes, limits: Limits) -> Opened:
    """Return the picture with its header read; decodes no pixel.

    Raises:
        EmptyImage, TooLarge, TooManyPixels: told before anything is decoded.
        NotAnImage, UnsupportedFormat: told by content, never by name.
        Damaged: the header ends early or contradicts itself.
    """
    if not body:
        raise EmptyImage
    if len(body) > limits.bytes:
        raise TooLarge(len(body), limits.bytes)
    format, reader = find_reader(body)
    if format == "JPEG" and (scans := _count_scans(body)) > _MAX_SCANS:
        raise Damaged(format, f"{scans} scans")
    with damage_told(format):
        image = reader(io.BytesIO(body))
    width, height = image.size
    if width * height > limits.pixels:
        raise TooManyPixels(width, height, limits.pixels)
    is_shrinkable = format == "JPEG" and "progressive" not in image.info and min(image.size) >= _SHRINKABLE_SIDE_PX
    return Opened(Header(format, width, height, is_large=width * height > LARGE_PX and not is_shrinkable), image)


def _count_scans(body: bytes) -> int:
    # A quarter of what bytes.count takes: compressed data is full of beginnings of a marker.
    data = np.frombuffer(body, np.uint8)
    return int(np.count_nonzero((data[:-1] == 0xFF) & (data[1:] == 0xDA)))


@contextmanager
def damage_told(format: str) -> Iterator[None]:
    """Turn whatever Pillow raises about a file into :class:`~irs.errors.Damaged`."""
    try:
        yield
    except (RequestError, MemoryError):
        raise
    except Exception as error:  # the edge of a stage: hostile files make Pillow raise nearly anything
        detail = " ".join(str(error).split())[:_DETAIL_CHARACTERS] or type(error).__name__
        raise Damaged(format, detail) from error
