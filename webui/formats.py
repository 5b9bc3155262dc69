"""Kinds of files told by their first 16 bytes: refused at the door, or served under our own type. Decodes nothing.

The worker has the last word (``irs.imaging.formats``); a test holds that nothing it reads is refused here.
"""

from __future__ import annotations

from irs.errors import EmptyImage, NotAnImage, UnsupportedFormat

HEAD_BYTES = 16

#: For people: what may be handed in.
FORMATS = ("JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF", "JPEG 2000", "AVIF", "HEIC")

_STARTS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"BM": "BMP",
}
_OTHERS = {
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"8BPS": "Photoshop",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
    b"\0\0\1\0": "ICO",
    b"<svg": "SVG",
    b"\x1aE\xdf\xa3": "Video",
}
#: Containers that hold AVIF, HEIC or a film: which, the worker finds out.
_FILMS = (b"qt  ", b"isom", b"mp41", b"mp42", b"M4V ", b"3gp4", b"3gp5")

#: What a browser may show in place; nothing of it can hold a script.
INLINE_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WebP": "image/webp",
    "GIF": "image/gif",
    "AVIF": "image/avif",
}


def find_format(head: bytes) -> str | None:
    """Return the format by the first 16 bytes: one of :data:`FORMATS`, another kind's name, or None."""
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        if brand in (b"avif", b"avis"):
            return "AVIF"
        return "Video" if brand in _FILMS else "HEIC"
    if head[:4] == b"RIFF":
        return {b"WEBP": "WebP", b"AVI ": "Video"}.get(head[8:12])
    known = {**_STARTS, **_OTHERS}
    return next((known[start] for start in known if head.startswith(start)), None)


def check_head(head: bytes) -> None:
    """Refuse what is certainly no picture that a worker reads.

    Raises:
        EmptyImage: there are no bytes.
        NotAnImage, UnsupportedFormat: as the worker would say.
    """
    if not head:
        raise EmptyImage
    found = find_format(head)
    if found is None:
        raise NotAnImage(head[:8].hex(" "))
    if found not in FORMATS:
        raise UnsupportedFormat(found)


def served_type(head: bytes) -> tuple[str, bool]:
    """Return the media type to serve a user's file under, and whether a browser may show it in place."""
    inline = INLINE_TYPES.get(find_format(head) or "")
    return (inline, True) if inline else ("application/octet-stream", False)
