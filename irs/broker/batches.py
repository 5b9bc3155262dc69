"""Calls that SQS takes ten at a time: collected, sent by own threads, tried again until they are through."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")

#: SQS refuses more entries in one batch.
MOST_ENTRIES = 10
RETRY_S = 0.5
LONGEST_RETRY_S = 5.0


@dataclass(slots=True)
class _Waiting(Generic[T]):
    item: T
    put_at: float
    not_before: float = 0.0
    tries: int = 0


class BatchedCalls(Generic[T]):
    """Hands items to ``call`` in batches of up to 10 of one ``key``, at most ``wait_s`` after they were put.

    Args:
        call: does one batch; returns the items to try again. If it raises, all are tried again.
        key: items of different keys never share a batch (a queue's URL).
    """

    def __init__(
        self,
        call: Callable[[Sequence[T]], Sequence[T]],
        *,
        key: Callable[[T], Hashable],
        wait_s: float,
        threads: int,
        name: str,
    ) -> None:
        self._call, self._key, self._wait_s, self._name = call, key, wait_s, name
        self._waiting: list[_Waiting[T]] = []
        self._in_flight = 0
        self._is_closing = self._is_over = False
        # When a waiting thread looks again by itself; None: only when it is woken.
        self._looks_at: float | None = None
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._work, name=f"{name}-{n}", daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def backlog(self) -> int:
        """Items that are not through yet."""
        return len(self._waiting) + self._in_flight

    def put(self, item: T) -> None:
        """Queue an item; never blocks."""
        with self._changed:
            now = time.monotonic()
            self._waiting.append(_Waiting(item, now))
            if len(self._waiting) >= MOST_ENTRIES or self._looks_at is None or self._looks_at > now + self._wait_s:
                self._changed.notify()

    def close(self, *, within_s: float) -> int:
        """Send what waits and end the threads; return how many items did not get through in time."""
        end = time.monotonic() + within_s
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        return self.backlog

    def _work(self) -> None:
        while batch := self._take():
            try:
                again = {id(item) for item in self._call([one.item for one in batch])}
            except Exception as error:  # the edge of a main loop: every unsent entry goes back
                log.warning("%s_failed", self._name, extra={"entries": len(batch), "reason": str(error)})
                again = {id(one.item) for one in batch}
            with self._changed:
                self._in_flight -= len(batch)
                for one in batch:
                    if id(one.item) in again:
                        one.not_before = time.monotonic() + min(LONGEST_RETRY_S, RETRY_S * 2**one.tries)
                        one.tries += 1
                        self._waiting.append(one)
                self._changed.notify_all()

    def _take(self) -> list[_Waiting[T]]:
        """Return a batch as soon as one is due; none when it is over."""
        with self._changed:
            while True:
                now = time.monotonic()
                batch, due_at = self._next(now)
                if batch and not self._is_over:
                    self._waiting = [one for one in self._waiting if one not in batch]
                    self._in_flight += len(batch)
                    self._looks_at = None
                    if self._waiting:
                        # Another must look at what is left: this one's call may take its whole time.
                        self._changed.notify()
                    return batch
                if self._is_over or (self._is_closing and not self._waiting and not self._in_flight):
                    self._changed.notify_all()
                    return []
                self._looks_at = due_at
                self._changed.wait(None if due_at is None else max(0.0, due_at - now))

    def _next(self, now: float) -> tuple[list[_Waiting[T]], float | None]:
        """Return a batch that is due, or when the next will be."""
        groups: dict[Hashable, list[_Waiting[T]]] = {}
        due_at: float | None = None
        for one in self._waiting:
            if one.not_before > now:
                due_at = one.not_before if due_at is None else min(due_at, one.not_before)
            else:
                groups.setdefault(self._key(one.item), []).append(one)
        for group in groups.values():
            ripe_at = max(group[0].put_at + self._wait_s, group[0].not_before)
            if len(group) >= MOST_ENTRIES or self._is_closing or ripe_at <= now:
                return group[:MOST_ENTRIES], None
            due_at = ripe_at if due_at is None else min(due_at, ripe_at)
        return [], due_at
