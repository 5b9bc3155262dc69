"""Bytes of a photo to an upright RGB picture within limits, and to the pixels a model takes."""

from irs.imaging.decode import decode, decode_opened
from irs.imaging.fit import Preprocess, fit
from irs.imaging.header import Header, Limits, Opened, open_image, read_header
from irs.imaging.thumbnail import thumbnail

__all__ = [
    "Header",
    "Limits",
    "Opened",
    "Preprocess",
    "decode",
    "decode_opened",
    "fit",
    "open_image",
    "read_header",
    "thumbnail",
]
