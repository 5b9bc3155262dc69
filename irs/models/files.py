"""What a model directory is made of, and how files beside it are read and written. Needs no torch."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

DESCRIPTION, WEIGHTS, LABELS, WNIDS = "model.json", "weights.safetensors", "labels.txt", "wnids.txt"
#: A record holds some labels, and takes 64 KiB.
LABEL_LETTERS = 200
_CHUNK_BYTES = 2**20


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests_of(directory: Path) -> tuple[str, str]:
    """Return, in hex, the SHA-256 of the weights and the digest of the model, that of its description before them.

    Raises:
        OSError: one of the two files cannot be read.
    """
    weights, both = hashlib.sha256(), hashlib.sha256((directory / DESCRIPTION).read_bytes())
    with (directory / WEIGHTS).open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            weights.update(chunk)
            both.update(chunk)
    return weights.hexdigest(), both.hexdigest()


def is_label(text: str) -> bool:
    """Whether ``text`` can be a line of ``labels.txt``: something to read, and nothing that a terminal obeys."""
    return (
        bool(text.strip())
        and len(text) <= LABEL_LETTERS
        and text.splitlines() == [text]
        and not any(ord(letter) < 0x20 or 0x7F <= ord(letter) < 0xA0 for letter in text)
        and text == text.encode(errors="replace").decode()
    )


def write_whole(path: Path, content: bytes) -> None:
    """Put ``content`` in place of ``path``: whoever reads it, after a crash as well, finds the old one or the new one.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
