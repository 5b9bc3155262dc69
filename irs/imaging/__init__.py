"""Bytes of a photo to an upright RGB picture within limits, and to the pixels a model takes."""

from irs.imaging.decode import decode
from irs.imaging.fit import Preprocess, fit
from irs.imaging.header import Header, Limits, read_header
from irs.imaging.thumbnail import thumbnail

__all__ = ["Header", "Limits", "Preprocess", "decode", "fit", "read_header", "thumbnail"]
