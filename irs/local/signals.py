"""Signals as something to wait for, so that one loop can hear both them and the end of its children."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """While entered, SIGINT, SIGTERM and SIGHUP are counted instead of ending the process. For the main thread.

    Attributes:
        asked: the signals that asked this process to end, in order.
    """

    def __init__(self) -> None:
        self.asked: list[signal.Signals] = []
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in _ENDING:
            self._before[number] = signal.signal(number, self._count)
        # A handler, if only an empty one, makes the end of a child wake the loop.
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._reader)
        os.close(self._writer)

    def wait(self, within_s: float) -> None:
        """Return at the next signal or the end of a child, at the latest after ``within_s``."""
        if select.select([self._reader], [], [], max(0.0, within_s))[0]:
            os.read(self._reader, 4096)

    def wait_until(self, check: Callable[[], bool], *, within_s: float) -> bool:
        """Return whether ``check()`` became true in time; broken off as soon as one more signal asks to end."""
        asked, end = len(self.asked), time.monotonic() + within_s
        while not check():
            left_s = end - time.monotonic()
            if left_s <= 0 or len(self.asked) > asked:
                return False
            self.wait(min(left_s, 0.1))
        return True

    def _count(self, number: int, _frame: FrameType | None) -> None:
        self.asked.append(signal.Signals(number))
