"""Where a shared model is: ``s3://bucket/name`` or ``s3://bucket/name/digest``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from irs.errors import ModelError

SCHEME = "s3://"
#: Of a whole SHA-256, and the fewest a person may shorten it to.
DIGEST_HEX, FEWEST_HEX = 64, 8
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DIGEST = re.compile(rf"(?:sha256:)?([0-9a-f]{{{FEWEST_HEX},{DIGEST_HEX}}})")


@dataclass(frozen=True, slots=True)
class Reference:
    """A model in a bucket. Its text is the address that IRS_MODEL takes.

    Attributes:
        name: empty where a digest alone is given.
        digest: hex; empty where the name's current model is meant, shortened where a person wrote it so.
    """

    bucket: str
    name: str
    digest: str = ""

    @property
    def key(self) -> str:
        """What the keys of its objects begin with, without the slash."""
        return f"{self.name}/{self.digest}" if self.digest else self.name

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}"

    @classmethod
    def of(cls, word: str, bucket: str) -> Reference:
        """Return what a person means by an address, ``NAME``, ``NAME/DIGEST`` or ``DIGEST``; the latter in ``bucket``.

        Raises:
            ModelError: it is none of these.
        """
        path = word
        if word.startswith(SCHEME):
            bucket, _, path = word.removeprefix(SCHEME).partition("/")
        parts = path.rstrip("/").split("/")
        alone = len(parts) == 1
        # A name could be written in hexadecimal: a lone word is a digest only if it says so, or is long enough for nothing else.
        if alone and not word.startswith(SCHEME) and (lone := _lone_digest(parts[0])):
            return cls(bucket, "", lone)
        digest = _DIGEST.fullmatch(parts[1]) if len(parts) == 2 else None
        if not _BUCKET.fullmatch(bucket) or not is_name(parts[0]) or not (alone or digest):
            raise ModelError(f"{word!r} names no shared model: write s3://BUCKET/NAME or s3://BUCKET/NAME/DIGEST.")
        return cls(bucket, parts[0], digest[1] if digest else "")


def is_name(name: str) -> bool:
    """Whether a model of this name can be shared: it becomes a part of addresses and of paths."""
    return _NAME.fullmatch(name) is not None and not _lone_digest(name)


def _lone_digest(word: str) -> str:
    found = _DIGEST.fullmatch(word)
    return found[1] if found and (word.startswith("sha256:") or len(word) >= 12) else ""
