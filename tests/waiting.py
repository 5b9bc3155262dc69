"""Waiting in tests: a condition and an end, never a fixed time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(check: Callable[[], T], *, within_s: float = 10.0, every_s: float = 0.02) -> T:
    """Return the first truthy ``check()``; fail with its last value after ``within_s``."""
    end = time.monotonic() + within_s
    while not (value := check()):
        assert time.monotonic() < end, f"still {value!r} after {within_s} s"
        time.sleep(every_s)  # the only sleep in tests/
    return value
