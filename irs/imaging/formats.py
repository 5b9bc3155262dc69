"""Formats told by content: which of Pillow's readers a file is for, or why it is for none.

Each reader is called by itself. ``Image.open`` would also try readers that run other programs (EPS), and its limit
of pixels is one for the whole process and only a warning below 179 megapixels.
"""

from __future__ import annotations

import io
from collections.abc import Callable

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)

from irs.errors import NotAnImage, UnsupportedFormat

HEAD_BYTES = 1024

Reader = Callable[[io.BytesIO], ImageFile.ImageFile]

_READERS: dict[str, Reader] = {
    # Not jpeg_factory: of a file with several pictures (MPO) the first is the photo.
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "JPEG2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
}
#: What Pillow may have been built without.
_FEATURES = {"JPEG": "jpg", "PNG": "zlib", "WEBP": "webp", "JPEG2000": "jpg_2000", "AVIF": "avif"}

_READ_BY_START = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\xff\x4f\xff\x51": "JPEG2000",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG2000",
}
_KNOWN_BY_START = {
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"8BPS": "Photoshop",
    b"gimp xcf": "GIMP",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
    b"II\xbc\x01": "JPEG XR",
    b"\0\0\1\0": "ICO",
    b"\0\0\2\0": "ICO",
    b"icns": "ICNS",
    b"\x76\x2f\x31\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"DDS ": "DDS",
    b"qoif": "QOI",
    b"FLIF": "FLIF",
    b"AT&TFORM": "DjVu",
    b"\xd7\xcd\xc6\x9a": "WMF",
    b"\x8aMNG": "MNG",
    b"FUJIFILMCCD-RAW": "Fujifilm raw",
    b"\x1aE\xdf\xa3": "Video",
}
_BY_START = {**_READ_BY_START, **_KNOWN_BY_START}
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
_BMP_HEADER_BYTES = {12, 16, 40, 52, 56, 64, 108, 124}


def find_reader(body: bytes) -> tuple[str, Reader]:
    """Return the format's name, as records hold it, and what opens it.

    Raises:
        NotAnImage: the bytes begin as no picture does.
        UnsupportedFormat: they begin as a picture that is not read here.
    """
    head = body[:HEAD_BYTES]
    format = _tell(head)
    if format is None:
        raise NotAnImage(head[:8].hex(" "))
    if format == "HEIF":
        return format, _heif_reader()
    if format not in _READERS or not features.check(_FEATURES.get(format, "pil")):
        raise UnsupportedFormat(format)
    return format, _READERS[format]


def _tell(head: bytes) -> str | None:
    # Canon's raw files begin as TIFF and hold no picture that TIFF readers know.
    if head[:4] == b"II*\0" and head[8:10] == b"CR":
        return "Canon raw"
    return next((format for start, format in _BY_START.items() if head.startswith(start)), None) or _tell_by_shape(head)


def _tell_by_shape(head: bytes) -> str | None:
    """Return the format of files whose first bytes alone say too little."""
    if head[4:8] == b"ftyp":
        return _tell_by_brands(head)
    is_netpbm = head[:1] == b"P" and head[1:2].isdigit() and head[2:3].isspace()
    told = {
        "BMP": head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADER_BYTES,
        "WEBP": head[:4] == b"RIFF" and head[8:12] == b"WEBP",
        "Video": head[:4] == b"RIFF" and head[8:12] == b"AVI ",
        "Netpbm": is_netpbm,
        "SVG": _is_svg(head),
    }
    return next((format for format, is_so in told.items() if is_so), None)


def _tell_by_brands(head: bytes) -> str:
    """Return the format of an ISO base media file: its brands say whether it holds AV1, HEVC or a video."""
    brands = [head[8:12]] + [head[at : at + 4] for at in range(16, min(int.from_bytes(head[:4], "big"), len(head)), 4)]
    if _AVIF_BRANDS.intersection(brands):
        return "AVIF"
    return "HEIF" if _HEIF_BRANDS.intersection(brands) else "Video"


def _is_svg(head: bytes) -> bool:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return text.startswith((b"<svg", b"<?xml", b"<!--", b"<!doctype svg")) and b"<svg" in text and b"<html" not in text


def _heif_reader() -> Reader:
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise UnsupportedFormat("Without the extra irs[heic] at the worker, HEIC") from None
    return HeifImageFile
