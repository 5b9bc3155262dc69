"""One file by HTTP: within a time, whole and checked, or not at all."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from irs.models.files import sha256_of

#: Silence that ends a download.
SILENCE_S = 30.0
#: How long a download runs before its speed tells whether it can end in time.
_TRIAL_S = 3.0
_CHUNK_BYTES = 2**18
_PART = re.compile(r".+\.\d+-\d+\.part")
#: A download that goes on writes more often: what is older is of a process that was killed.
_ABANDONED_S = 600.0

Arrived = Callable[[int, int], object]


def download(
    url: str, path: Path, *, sha256_start: str, within_s: float, silence_s: float = SILENCE_S, arrived: Arrived | None = None
) -> None:
    """Store what is at ``url`` as ``path``, in place of what is there; blocks, but for name servers no longer than ``within_s``.

    Args:
        sha256_start: the first digits, in hex, of what must come.
        within_s: given up as soon as the speed shows that it will not do.
        arrived: told bytes so far and bytes in all (0: not known), some times a second.

    Raises:
        OSError: it did not come, not in time, or is not what was asked for; nothing is left behind.
    """
    began_s = time.monotonic()
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    sha256, done = hashlib.sha256(), 0
    try:
        # An opener of its own: the one that urlopen keeps for good knows the proxies of its first use.
        with urllib.request.build_opener().open(url, timeout=min(silence_s, within_s)) as answer, part.open("wb") as file:
            total = answer.length or 0
            while chunk := answer.read1(_CHUNK_BYTES):
                file.write(chunk)
                sha256.update(chunk)
                done += len(chunk)
                _check_pace(time.monotonic() - began_s, done, total, within_s)
                if arrived is not None:
                    arrived(done, total)
        if done < total:
            raise OSError(f"it broke off after {done:,} of {total:,} bytes")
        if not sha256.hexdigest().startswith(sha256_start):
            raise OSError("it came damaged, its sha256 differs: try again")
        part.replace(path)
    except http.client.HTTPException as error:
        raise OSError(f"no HTTP is spoken there ({type(error).__name__})") from None
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def shown(what: str) -> Iterator[Arrived | None]:
    """Yield what shows on a terminal how far a download is; None where standard error is none."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


def has_sha256(path: Path, start: str) -> bool:
    """Whether there is a file whose SHA-256, in hex, begins so."""
    try:
        return sha256_of(path).startswith(start)
    except OSError:
        return False


def _sweep(folder: Path) -> None:
    """Remove what killed downloads left behind."""
    for left in folder.glob("*.part"):
        with suppress(OSError):  # another process may be quicker
            if _PART.fullmatch(left.name) and time.time() - left.stat().st_mtime > _ABANDONED_S:
                left.unlink()


def _check_pace(took_s: float, done: int, total: int, within_s: float) -> None:
    if took_s > within_s:
        raise TimeoutError(f"it did not come within {within_s:g} s")
    if took_s > _TRIAL_S and total and (need_s := took_s * total / done) > within_s:
        raise TimeoutError(f"it would take {need_s:.0f} s")
