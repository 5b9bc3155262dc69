"""Counting on the hot path: a note costs less than a microsecond, and turning it into metrics is left to who asks.

Knows nothing of Prometheus, so that callers load none of it (:mod:`irs.monitoring.metrics` shows what is counted).
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_left
from collections.abc import Sequence
from types import TracebackType

#: Upper bounds of the buckets for durations, in seconds.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Spread:
    """How values are spread: a histogram. For several threads only under a lock of its owner."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def note(self, value: float, times: int = 1) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    @property
    def count(self) -> int:
        """Values in all."""
        return sum(self.counts)

    def buckets(self) -> list[tuple[str, float]]:
        """Return upper bounds with how many values reach no further, as Prometheus writes them."""
        told, reached = [], 0
        for bound, count in zip((*map(float, self.bounds), float("inf")), self.counts, strict=True):
            reached += count
            told.append(("+Inf" if bound == float("inf") else str(bound), float(reached)))
        return told

    def copy(self) -> Spread:
        """Return it as it is now."""
        made = Spread(self.bounds)
        made.counts, made.sum = self.counts[:], self.sum
        return made


class Spreads:
    """Spreads by labels. Safe for threads."""

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self._bounds = bounds
        self._by_labels: dict[tuple[str, ...], Spread] = {}
        self._lock = threading.Lock()
        # The lock may be held by a thread that does not come along.
        os.register_at_fork(after_in_child=self._begin_anew)

    def note(self, labels: tuple[str, ...], value: float) -> None:
        """Count a value under its labels."""
        with self._lock:
            spread = self._by_labels.get(labels)
            if spread is None:
                spread = self._by_labels[labels] = Spread(self._bounds)
            spread.note(value)

    def read(self) -> dict[tuple[str, ...], Spread]:
        """Return what was counted so far."""
        with self._lock:
            return {labels: spread.copy() for labels, spread in self._by_labels.items()}

    def _begin_anew(self) -> None:
        self._by_labels, self._lock = {}, threading.Lock()


class Call:
    """One call to a service under way: ``with Call("s3", "GetObject"):``; what it raises tells its code."""

    __slots__ = ("_began", "_operation", "_service")

    def __init__(self, service: str, operation: str) -> None:
        self._service, self._operation = service, operation

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        code = OK if error is None else ANSWERS.get(type(error).__name__) or str(getattr(error, "code", type(error).__name__))
        CALLS.note((self._service, self._operation, code), time.monotonic() - self._began)


OK = "200"
#: What a service says when it is well: an object that is not there, or that stood already.
ANSWERS = {"NotFound": "404", "AlreadyExistsError": "412"}
#: All calls of this process to AWS: how long each took, by service, operation and code.
CALLS = Spreads()
#: From a task's end to the confirmed delete of its message, of the whole process; its labels are empty.
ACKS = Spreads()
