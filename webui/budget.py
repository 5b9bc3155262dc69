"""How much may come in at once: bytes held, images received, jobs opened by one address."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from prometheus_client import Gauge

from webui.problems import Problem

#: Who waits longer for room is told to come again.
WAIT_S = 20.0
MINUTE_S = 60.0
#: Addresses remembered; the oldest are forgotten beyond it.
MOST_ADDRESSES = 10_000


class ByteBudget:
    """Bytes that may be held at once. Who comes first is served first; the rest is held back by TCP."""

    def __init__(self, limit_bytes: int, receivers: int, gauge: Gauge) -> None:
        self._free = self._limit_bytes = limit_bytes
        self._receivers = anyio.CapacityLimiter(receivers)
        self._turn = anyio.Lock()
        self._freed = anyio.Condition()
        self._gauge = gauge

    @property
    def held_bytes(self) -> int:
        """Bytes taken now."""
        return self._limit_bytes - self._free

    @asynccontextmanager
    async def hold(self, size_bytes: int) -> AsyncIterator[None]:
        """Take ``size_bytes`` (at most the whole budget) and a place among the receivers for the block.

        Raises:
            Problem: no room came free within 20 s (503).
        """
        size_bytes = min(size_bytes, self._limit_bytes)
        token = object()
        with anyio.move_on_after(WAIT_S) as waited:
            await self._receivers.acquire_on_behalf_of(token)
            try:
                await self._take(size_bytes)
            except BaseException:
                self._receivers.release_on_behalf_of(token)
                raise
        if waited.cancelled_caught:
            raise Problem("busy", "The service receives as much as it can hold: try again in some seconds.")
        try:
            yield
        finally:
            self._receivers.release_on_behalf_of(token)
            with anyio.CancelScope(shield=True):
                async with self._freed:
                    self._free += size_bytes
                    self._gauge.set(self.held_bytes)
                    self._freed.notify_all()

    async def _take(self, size_bytes: int) -> None:
        # In turn: else a large image would wait for ever behind small ones.
        async with self._turn, self._freed:
            while self._free < size_bytes:
                await self._freed.wait()
            self._free -= size_bytes
            self._gauge.set(self.held_bytes)


class Rate:
    """So many in a minute from one address."""

    def __init__(self, per_minute: int, code: str, what: str) -> None:
        self._per_minute, self._code, self._what = per_minute, code, what
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def check(self, address: str, *, now_s: float | None = None) -> None:
        """Count one more.

        Raises:
            Problem: they are too many (429), with the seconds to wait.
        """
        at_s = time.monotonic() if now_s is None else now_s
        times = self._times.setdefault(address, deque())
        self._times.move_to_end(address)
        while times and times[0] <= at_s - MINUTE_S:
            times.popleft()
        if len(times) >= self._per_minute:
            wait_s = max(1, round(times[0] + MINUTE_S - at_s))
            raise Problem(
                self._code,
                f"At most {self._per_minute} {self._what} a minute: try again in {wait_s} s.",
                retry_after_s=wait_s,
            )
        times.append(at_s)
        while len(self._times) > MOST_ADDRESSES:
            self._times.popitem(last=False)
