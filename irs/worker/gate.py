"""The way to S3: open, or shut while S3 does not answer.

While it is shut the worker takes no messages and its tasks wait under their leases, so that an outage costs
a message one receive at most instead of one every few seconds.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from irs.errors import RequestError, StorageUnavailable

log = logging.getLogger(__name__)
T = TypeVar("T")

FIRST_PROBE_S = 0.2
LONGEST_PROBE_S = 15.0
#: A read that S3 refuses this often while it answers others is left to its message's own back-off.
READ_TRIES = 6


class StorageGate:
    """Lets calls to S3 through, repeats those an outage broke, and probes until S3 answers again.

    Args:
        probe: asks S3 for something small; raises StorageUnavailable while it is away.
        on_shut, on_open: told once for each outage, from the probing thread.
    """

    def __init__(self, probe: Callable[[], object], *, on_shut: Callable[[str], None], on_open: Callable[[], None]) -> None:
        self._probe, self._on_shut, self._on_open = probe, on_shut, on_open
        self._open = threading.Event()
        self._open.set()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._refused: set[object] = set()

    @property
    def is_open(self) -> bool:
        """Whether S3 answered last time it was asked, and no call waits to be made again."""
        return self._open.is_set() and not self._refused

    def call(self, ask: Callable[[], T], *, until: float, is_read: bool = False) -> T:
        """Return ``ask()``, repeated after an outage. ``ask`` must be safe to run twice.

        Args:
            until: by ``time.monotonic``: when the message goes back.
            is_read: give up sooner if S3 answers others.

        Raises:
            StorageUnavailable: S3 stayed away, or the worker stops.
        """
        end = until
        me, pause_s, tries = object(), FIRST_PROBE_S, 0
        try:
            while True:
                if not self._open.wait(max(0.0, end - time.monotonic())):
                    raise StorageUnavailable("S3 did not answer in the time of this message")
                if self._closing.is_set() and time.monotonic() >= end:
                    raise StorageUnavailable("S3 does not answer and the worker stops")
                try:
                    return ask()
                except StorageUnavailable as error:
                    tries += 1
                    if self._closing.is_set() or time.monotonic() >= end or (is_read and tries >= READ_TRIES):
                        raise
                    self._refused.add(me)
                    self._shut(str(error))
                # S3 may answer the probe and yet refuse this: all writes, or one object.
                self._closing.wait(min(pause_s * random.uniform(0.5, 1.0), max(0.0, end - time.monotonic())))  # noqa: S311
                pause_s = min(2 * pause_s, LONGEST_PROBE_S)
        finally:
            self._refused.discard(me)

    def close(self) -> None:
        """Let waiting calls fail instead of waiting: the worker stops."""
        self._closing.set()
        self._open.set()

    def _shut(self, reason: str) -> None:
        with self._lock:
            if not self._open.is_set() or self._closing.is_set():
                return
            self._open.clear()
        threading.Thread(target=self._wait_for_answer, args=(reason,), name="irs-storage-probe", daemon=True).start()

    def _wait_for_answer(self, reason: str) -> None:
        log.warning("storage_away", extra={"reason": reason})
        began, pause_s = time.monotonic(), FIRST_PROBE_S
        self._on_shut(reason)
        while not self._closing.is_set():
            try:
                self._probe()
                break
            except RequestError:
                # S3 answers, if with a refusal: its calls tell their own.
                break
            except Exception:  # the edge of a thread: whatever it is, no answer came
                self._closing.wait(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 (jitter)
                pause_s = min(2 * pause_s, LONGEST_PROBE_S)
        if not self._closing.is_set():
            # Else pollers would fetch messages only to hand them back.
            self._on_open()
        self._open.set()
        log.warning("storage_back", extra={"after_s": round(time.monotonic() - began, 3)})
