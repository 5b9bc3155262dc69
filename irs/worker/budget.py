"""A bound on the bytes of images that a worker holds at once."""

from __future__ import annotations

import threading
import time

from irs.errors import StageTimeout


class ByteBudget:
    """``total`` bytes shared by all task threads: whoever finds none left waits.

    One image may take more than ``total`` only alone, so that none waits for ever.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.held = 0
        self._freed = threading.Condition()

    def try_take(self, size: int) -> bool:
        """Take ``size`` bytes if they fit now."""
        with self._freed:
            return self._take(size)

    def take(self, size: int, *, within_s: float) -> None:
        """Take ``size`` bytes, waiting for others to give theirs back.

        Raises:
            StageTimeout: they did not within ``within_s``.
        """
        end = time.monotonic() + within_s
        with self._freed:
            while not self._take(size):
                left = end - time.monotonic()
                if left <= 0:
                    raise StageTimeout(f"no room for {size:,} bytes of image within {within_s:g} s")
                self._freed.wait(left)

    def give_back(self, size: int) -> None:
        """Return what was taken."""
        with self._freed:
            self.held -= size
            self._freed.notify_all()

    def _take(self, size: int) -> bool:
        if self.held and self.held + size > self.total:
            return False
        self.held += size
        return True
