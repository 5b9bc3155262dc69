"""What callers hand in, as a flat stream of sources: files, folders, bytes, open files, addresses in S3."""

from __future__ import annotations

import mimetypes
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from irs.errors import BadOptions, EmptyImage, RequestError, TooLarge
from irs.records import Fault

#: One image: a path, a folder of them, bytes, an open binary file, ``s3://bucket/key``, or any but a folder with its name.
Image = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | tuple[str, bytes | IO[bytes]]
Images = Image | Iterable[Image]


class Refused(Exception):
    """An image that cannot be handed in; ``fault`` becomes the error of its record."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.fault = Fault(code=code, message=message)


@dataclass(frozen=True, slots=True)
class Source:
    """One image: ``url`` is sent as it stands, ``body`` was read already, ``path`` is read by :meth:`load`."""

    name: str
    path: Path | None = None
    body: bytes | None = None
    url: str | None = None

    def __post_init__(self) -> None:
        # Names of files need not be UTF-8; records are.
        object.__setattr__(self, "name", self.name.encode(errors="replace").decode())

    def load(self, limit_bytes: int) -> bytes:
        """Return the bytes.

        Raises:
            Refused: there are none, too many, or they cannot be read.
        """
        try:
            if self.path is not None:
                return _checked(_read(self.path, limit_bytes), limit_bytes)
            return _checked(self.body or b"", limit_bytes)
        except RequestError as error:
            raise Refused(error.code, str(error)) from None


def sources(images: Images, limit_bytes: int) -> Iterator[Source]:
    """Yield each image once, in the given order; folders are walked by sorted name.

    Of a folder, hidden files and files named as something else than pictures (``labels.csv``) are left out; a file
    that is named itself is always handed in, and told by its content.

    Open files are read here, up to just above ``limit_bytes``, since their owner may close them after.

    Raises:
        BadOptions: something is no image at all (a number, a text file's handle).
    """
    for image in [images] if _is_one(images) else images:  # type: ignore[union-attr]
        match image:
            case str() if image.startswith("s3://"):
                yield Source(image.rpartition("/")[2], url=image)
            case str() | os.PathLike():
                yield from _of_path(Path(image))
            case (str() as name, content):
                yield Source(name, body=_bytes_of(content, limit_bytes))
            case _:
                yield Source(_name_of(image), body=_bytes_of(image, limit_bytes))


def _is_one(images: object) -> bool:
    if isinstance(images, tuple):
        return len(images) == 2 and isinstance(images[0], str) and not isinstance(images[1], str | os.PathLike)
    return isinstance(images, str | os.PathLike | bytes | bytearray | memoryview) or hasattr(images, "read")


def _of_path(path: Path) -> Iterator[Source]:
    if not os.path.isdir(path):
        yield Source(path.name, path=path)
        return
    closed: list[OSError] = []
    for folder, folders, files in os.walk(path, onerror=closed.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        # A folder that may not be read is told as an image that may not: nothing is left out in silence.
        shut = [error.filename for error in closed]
        closed.clear()
        for found in (*map(Path, shut), *(Path(folder, name) for name in sorted(files) if _may_be_picture(name))):
            # With its folders: a walk meets one name many times.
            yield Source(found.relative_to(path).as_posix(), path=found)
    yield from (Source(os.path.basename(error.filename), path=Path(error.filename)) for error in closed)


def _may_be_picture(name: str) -> bool:
    kind, _ = mimetypes.guess_type(name)
    return not name.startswith(".") and (kind is None or kind.startswith("image/"))


def _name_of(image: object) -> str:
    name = getattr(image, "name", None)
    return os.path.basename(name) if isinstance(name, str) else "image"


def _bytes_of(content: object, limit_bytes: int) -> bytes:
    if isinstance(content, bytes | bytearray | memoryview):
        return bytes(content)
    read = getattr(content, "read", None)
    body = read(limit_bytes + 1) if callable(read) else None
    if not isinstance(body, bytes):
        raise BadOptions(
            f"{type(content).__name__} is no image: hand in paths, folders, bytes, files opened with 'rb' or s3:// addresses"
        )
    return body


def _read(path: Path, limit_bytes: int) -> bytes:
    try:
        # Without O_NONBLOCK a named pipe would hold us for ever.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise Refused("not_an_image", f"{path} is no regular file: hand in a picture.")
            if found.st_size > limit_bytes:
                raise TooLarge(found.st_size, limit_bytes)
            return file.read(limit_bytes + 1)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        # ValueError: a null character in the name.
        raise Refused("not_found", f"{path} is not there: check its name.") from None
    except OSError as error:
        raise Refused("forbidden", f"{path} cannot be read ({error.strerror}): check its place and permissions.") from None


def _checked(body: bytes, limit_bytes: int) -> bytes:
    if not body:
        raise EmptyImage
    if len(body) > limit_bytes:
        raise TooLarge(len(body), limit_bytes)
    return body
