"""Live results: one consumer of the response queue, and sweeps of the jobs that somebody watches.

News wake, sweeps find. A process that hears all news sweeps every 5 s, and once a second after a run's first; once a
record stood whose news did not come, somebody competes (or news were lost): then all its jobs are swept every second for
ten minutes.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup

from irs.cloud import Cloud
from irs.errors import IrsError
from irs.records import NewsItem
from irs.results import RecordStore
from irs.results.news import NewsReader
from webui.ids import check_job_id, why_unknown
from webui.metrics import Metrics
from webui.watch import Watch

log = logging.getLogger(__name__)

SWEEP_S = 5.0
FAST_SWEEP_S = 1.0
FAST_FOR_S = 600.0
#: A job that nobody asks for is forgotten after this long.
FORGET_S = 60.0
#: Of a queue or bucket that does not answer.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
READERS = 16


class Live:
    """The jobs this process knows. ``async with live.running():`` listens and sweeps."""

    def __init__(self, cloud: Cloud, metrics: Metrics, *, news_wait_s: int = 20) -> None:
        self.limiter = anyio.CapacityLimiter(READERS)
        self._cloud, self._metrics, self._news_wait_s = cloud, metrics, news_wait_s
        self._store = RecordStore(cloud)
        self._watches: dict[str, Watch] = {}
        #: Single images that somebody waits for, by task id; set by their news.
        self.singles: dict[str, anyio.Event] = {}
        self._fast_until_s = float("-inf")
        self._hurry = anyio.Event()
        self._tasks: TaskGroup | None = None
        self._is_stopping = threading.Event()

    @property
    def streams(self) -> int:
        """Live streams that are open now."""
        return sum(watch.watchers for watch in self._watches.values())

    async def find(self, job: str) -> Watch:
        """Return what is known of a job; only whether it exists is asked for.

        Raises:
            Problem: there is no such job, or it has expired.
            StorageUnavailable: S3 does not answer.
        """
        check_job_id(job)
        if (watch := self._watches.get(job)) is None:
            opened = await to_thread.run_sync(self._store.find_open, job, limiter=self.limiter)
            if opened is None:
                raise why_unknown(job, self._cloud.settings.output_days)
            # Another request may have found it meanwhile.
            watch = self._watches.setdefault(job, Watch(self._cloud, opened, self.limiter, self._metrics))
            self._metrics.watched.set(len(self._watches))
        watch.used_s = time.monotonic()
        return watch

    @contextmanager
    def watching(self, watch: Watch) -> Iterator[None]:
        """Sweep a job for as long as one or more streams are open on it."""
        assert self._tasks is not None, "Live is not running"
        watch.watchers += 1
        if not watch.is_tended:
            watch.is_tended = True
            self._tasks.start_soon(self._tend, watch)
        try:
            yield
        finally:
            watch.watchers -= 1
            watch.used_s = time.monotonic()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen to the response queue and tend the jobs until the block ends, which never waits for a poll."""
        # A thread of its own, of the kind that ends with the process: a long poll cannot be broken off.
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            loop = asyncio.get_running_loop()
            listener = threading.Thread(target=self._listen, args=(loop,), name="irs-web-news", daemon=True)
            listener.start()
            tasks.start_soon(self._forget)
            try:
                yield
            finally:
                self._is_stopping.set()
                tasks.cancel_scope.cancel()

    def note_news(self, items: list[NewsItem]) -> None:
        """Give news to the jobs and single images known here; all else is dropped, since its truth is in the bucket."""
        by_job: defaultdict[str, list[NewsItem]] = defaultdict(list)
        told = 0
        for item in items:
            if item.job in self._watches:
                by_job[item.job].append(item)
            elif waiting := self.singles.get(item.task_id):
                waiting.set()
                told += 1
        told += sum(map(len, by_job.values()))
        self._metrics.news.labels("yes").inc(told)
        self._metrics.news.labels("no").inc(len(items) - told)
        for job, of_job in by_job.items():
            self._watches[job].note_news(of_job)

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Poll for ever; the edge of a main loop."""
        reader, pause_s = NewsReader(self._cloud), FIRST_PAUSE_S
        while not self._is_stopping.is_set():
            try:
                self._metrics.news_polls.inc()
                items = reader.receive(wait_s=self._news_wait_s)
                pause_s = FIRST_PAUSE_S
            except Exception as error:  # the edge of a main loop: without it every result would wait for a sweep
                if pause_s == FIRST_PAUSE_S:
                    log.warning("news_unreachable", extra={"reason": str(error)}, exc_info=not isinstance(error, IrsError))
                self._is_stopping.wait(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                continue
            if items and not self._is_stopping.is_set():
                try:
                    loop.call_soon_threadsafe(self.note_news, items)
                except RuntimeError:
                    # The loop has ended meanwhile.
                    return

    async def _tend(self, watch: Watch) -> None:
        """Sweep one job while it is watched and not at its end."""
        try:
            await self._sweep_on(watch)
        finally:
            watch.is_tended = False

    async def _sweep_on(self, watch: Watch) -> None:
        pause_s = FIRST_PAUSE_S
        while watch.watchers and not (watch.is_swept and watch.has_ended):
            try:
                await watch.sweep(fresh_s=0.5)
                pause_s = FIRST_PAUSE_S
                wait_s = self._interval_s(watch)
            except Exception as error:  # the edge of a main loop: one job's trouble must not end the others' streams
                log.warning(
                    "sweep_failed", extra={"job": watch.job, "reason": str(error)}, exc_info=not isinstance(error, IrsError)
                )
                wait_s = pause_s
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            until_s = time.monotonic() + wait_s
            while watch.watchers and not watch.has_ended and (left_s := until_s - time.monotonic()) > 0:
                with anyio.move_on_after(min(left_s, FAST_SWEEP_S)):
                    await watch.changed.wait()
                if watch.has_unheard():
                    self._note_competition()
                # One look soon after a run begins tells whether others share its news: five seconds would be long.
                wait_s = FAST_SWEEP_S if watch.has_begun() else self._interval_s(watch)
                until_s = min(until_s, time.monotonic() + wait_s)

    def _interval_s(self, watch: Watch) -> float:
        return FAST_SWEEP_S if watch.is_in_doubt or time.monotonic() < self._fast_until_s else SWEEP_S

    def _note_competition(self) -> None:
        if time.monotonic() >= self._fast_until_s:
            log.info("news_missed", extra={"sweep_s": FAST_SWEEP_S, "for_s": FAST_FOR_S})
        self._fast_until_s = time.monotonic() + FAST_FOR_S

    async def _forget(self) -> None:
        while True:
            await anyio.sleep(FORGET_S / 4)
            end_s = time.monotonic() - FORGET_S
            for job in [job for job, watch in self._watches.items() if not watch.watchers and watch.used_s < end_s]:
                del self._watches[job]
            self._metrics.watched.set(len(self._watches))
