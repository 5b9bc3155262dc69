"""What one process knows of one job: seen results, found by news or by sweeps of the output bucket.

All of it can be found again at any process: nothing here must outlive a kill.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar, TypeVarTuple, Unpack

import anyio
from anyio import to_thread

from irs import records
from irs.cloud import Cloud
from irs.errors import IrsError
from irs.records import JobOpen, Manifest, ModelFacts, NewsItem, Record
from irs.results import RecordStore
from webui.arrivals import Arrivals
from webui.metrics import Metrics
from webui.runs import MOST, Runs
from webui.view import JobView, Stage, Summary

#: Records read between two looks of the streams: few enough that the first tiles settle soon, and of little memory.
READ_AT_ONCE = 64
#: News of a record that a sweep found may still be on their way for this long.
NEWS_GRACE_S = 1.0
#: News after so long a silence begin a run: then somebody who shares them is looked for.
SILENCE_S = 30.0
RATE_OVER_S = 10.0
DAY_S = 86_400.0

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@dataclass(frozen=True, slots=True)
class _Look:
    """What one LIST showed: records' numbers with the time of each, and the marks of the job."""

    stored: dict[int, float]
    is_closed: bool
    is_cancelled: bool


class Watch:
    """One job as this process sees it. For the event loop's thread alone; blocking calls go to others.

    Attributes:
        seen: summaries by number; ``order`` holds the numbers as they were seen.
        watchers: streams that are open now; ``is_tended`` while it is swept for them.
    """

    def __init__(self, cloud: Cloud, opened: JobOpen, limiter: anyio.CapacityLimiter, metrics: Metrics) -> None:
        self.opened, self.job = opened, opened.job
        self.arrivals = Arrivals(cloud, opened.job)
        self.seen: dict[int, Summary] = {}
        self.order: list[int] = []
        self.runs = Runs()
        self.watchers = 0
        self.is_tended = False
        self.used_s = time.monotonic()
        self.is_cancelled = False
        self.is_looked = self.is_swept = False
        self._cloud, self._store, self._limiter, self._metrics = cloud, RecordStore(cloud), limiter, metrics
        self._manifest: Manifest | None = None
        self._model: ModelFacts | None = None
        self._counts = {"ok": 0, "failed": 0, "cancelled": 0, "unsure": 0}
        self._recent: deque[float] = deque(maxlen=2000)
        self._last_at: float | None = None
        # Found by a sweep, their news not heard: number -> when.
        self._unheard: dict[int, float] = {}
        self._heard_s = float("-inf")
        self._has_begun = False
        self._changed = anyio.Event()
        self._sweeping = anyio.Lock()
        self._looking = anyio.Lock()
        self._looked_s = self._swept_s = float("-inf")
        # Listed, and still to be read: number -> when it was stored.
        self._unread: dict[int, float] = {}

    # What is known

    @property
    def changed(self) -> anyio.Event:
        """Set at the next change; take it before looking at what is known."""
        return self._changed

    @property
    def is_closed(self) -> bool:
        """Whether no more images will come."""
        return self._manifest is not None

    @property
    def has_ended(self) -> bool:
        """Whether all results are seen, or none is waited for."""
        return self.is_cancelled or self._is_finished

    @property
    def _is_finished(self) -> bool:
        return self._manifest is not None and self.runs.frontier >= self._manifest.count

    def dropped(self) -> list[int]:
        """Return the images of a cancelled job without a record, as far as their numbers are known; of another none."""
        if not self.is_cancelled:
            return []
        known: Iterable[int] = range(self._manifest.count) if self._manifest else self.arrivals
        return [number for number in known if number not in self.seen]

    def view(self, *, now: float | None = None) -> JobView:
        """Return the job as it is known now."""
        at = time.time() if now is None else now
        count = self._manifest.count if self._manifest else self.opened.expected
        arrived = max(self.arrivals.count(self.seen), self._manifest.count if self._manifest else 0)
        counts = dict(self._counts)
        if self.is_cancelled and not self._is_finished:
            # Readers take every number without a record of a cancelled job as cancelled.
            counts["cancelled"] += max(0, (self._manifest.count if self._manifest else arrived) - len(self.seen))
        done = counts["ok"] + counts["failed"] + counts["cancelled"]
        rate = self._rate(at)
        left = (count or 0) - done
        return JobView(
            id=self.job,
            stage=self._stage(),
            count=count if not self.is_cancelled or self._manifest else arrived,
            expected=self.opened.expected,
            arrived=arrived,
            done=done,
            **counts,
            created=self.opened.created,
            finished_at=self._finished_at(),
            options=self.opened.options,
            model=self._model,
            rate=rate,
            eta_s=round(left / rate, 1) if rate and self._manifest and not self.has_ended else None,
            expires_at=self.opened.created + DAY_S * self._cloud.settings.output_days,
        )

    def _stage(self) -> Stage:
        if self._is_finished:
            return "finished"
        if self.is_cancelled:
            return "cancelled"
        if self._manifest is None:
            return "open"
        return "running" if self.seen else "waiting_for_worker"

    def _finished_at(self) -> float | None:
        if not self._is_finished or self._manifest is None:
            return None
        return max(self._manifest.closed, self._last_at or 0.0)

    def _rate(self, at: float) -> float | None:
        # Not in order: times of news are ours, those of a listing are S3's, in whole seconds.
        recent = [one for one in self._recent if one > at - RATE_OVER_S]
        if len(recent) < 2 or self.has_ended:
            return None
        return round(len(recent) / max(1.0, at - min(recent)), 1)

    # What comes in

    def note_news(self, items: Iterable[NewsItem]) -> None:
        """Take news of images of this job; those seen already are only heard."""
        at, heard_s = time.time(), time.monotonic()
        self._has_begun = self._has_begun or heard_s - self._heard_s > SILENCE_S
        self._heard_s = heard_s
        is_new = False
        for item in items:
            if item.number is not None:
                self._unheard.pop(item.number, None)
                is_new = self._see(Summary.of(item), at) or is_new
        if is_new:
            self._tell()

    def note_closed(self, manifest: Manifest) -> None:
        """The job was closed through this process."""
        self._manifest = manifest
        self._tell()

    def note_cancelled(self) -> None:
        """The job was cancelled through this process."""
        self.is_cancelled = True
        self._tell()

    def note_arrived(self) -> None:
        """An image was stored through this process."""
        self._tell()

    def note_record(self, record: Record) -> None:
        """A record was stored through this process: no news will come of it."""
        if self._see(Summary.of(NewsItem.of(record)), time.time()):
            self._tell()

    @property
    def is_in_doubt(self) -> bool:
        """Whether a record was found whose news may still be on their way."""
        return bool(self._unheard)

    def has_begun(self) -> bool:
        """Whether the first news after a silence came. Told once each time."""
        has_begun, self._has_begun = self._has_begun, False
        return has_begun

    def has_unheard(self) -> bool:
        """Whether a record stands whose news did not come: somebody else took it, or it was lost. Told once each."""
        late = [number for number, found_s in self._unheard.items() if time.monotonic() - found_s > NEWS_GRACE_S]
        for number in late:
            del self._unheard[number]
        return bool(late)

    def is_answered(self, number: int) -> bool:
        """Whether a record of that number is known to stand."""
        return number in self.runs or number in self._unread

    async def look(self, *, fresh_s: float = float("inf")) -> None:
        """LIST what stands, unless that was done within ``fresh_s`` before; reads no records.

        Raises:
            StorageUnavailable: S3 does not answer.
        """
        asked_s = time.monotonic()
        if self._looked_s < asked_s - fresh_s or not self.is_looked:
            async with self._looking:
                if self._looked_s < asked_s - fresh_s or not self.is_looked:
                    await self._mark()

    async def sweep(self, *, fresh_s: float = 0.0) -> None:
        """LIST from the frontier and read what is new, unless a sweep began within ``fresh_s`` before; one at a time.

        Raises:
            StorageUnavailable: S3 does not answer.
        """
        asked_s = time.monotonic()
        async with self._sweeping:
            if self.is_swept and (self._is_finished or self._swept_s >= asked_s - fresh_s):
                return
            began_s = time.monotonic()
            async with self._looking:
                await self._mark()
            await self._read()
            await self.name_model()
            self.is_swept = True
            self._swept_s = began_s
            self._tell()

    async def _mark(self) -> None:
        began_s = time.monotonic()
        look = await self._run(self._list, self.runs.frontier - 1)
        if look.is_closed and self._manifest is None:
            self._manifest = await self._run(self._store.find_manifest, self.job)
        if self._manifest is None:
            await self.arrivals.refresh(self._limiter)
        self.is_cancelled = self.is_cancelled or look.is_cancelled
        # News may have told some since the listing.
        self._unread = {number: at for number, at in look.stored.items() if number not in self.runs}
        self.is_looked, self._looked_s = True, began_s
        self._tell()

    def _list(self, after: int) -> _Look:
        """Numbers sort before ``cancelled``, ``manifest.json`` and ``open.json``: a listing always ends with them."""
        self._metrics.sweeps.inc()
        prefix = records.job_prefix(self.job)
        start = records.record_key(records.task_id(self.job, after)) if after >= 0 else ""
        stored: dict[int, float] = {}
        marks: set[str] = set()
        for listed in self._cloud.output.list(prefix, after=start):
            if (number := records.number_of_record_key(listed.key)) is not None:
                stored[number] = listed.modified.timestamp()
            else:
                marks.add(listed.key.removeprefix(prefix))
        return _Look(stored, "manifest.json" in marks, "cancelled" in marks)

    async def _read(self) -> None:
        while self._unread:
            part = list(self._unread)[:READ_AT_ONCE]
            ages = {number: self._unread[number] for number in part}
            for number, record in await self._run(self._find, [number for number in part if number not in self.runs]):
                self._model = self._model or record.model
                # At the first sweep news may be long gone: nobody was here to hear them.
                if self._see(Summary.of(NewsItem.of(record)), ages[number]) and self.is_swept:
                    self._unheard[number] = time.monotonic()
            for number in part:
                # Not answered for, or removed since: the next sweep lists it again.
                self._unread.pop(number, None)
            self._tell()

    def _find(self, numbers: Sequence[int]) -> list[tuple[int, Record]]:
        self._metrics.record_reads.inc(len(numbers))
        found = self._store.find_many([records.task_id(self.job, number) for number in numbers])
        return [(number, record) for number, record in zip(numbers, found, strict=True) if record is not None]

    async def name_model(self) -> None:
        """Find out which model answered: news do not say it. Asks once, when there is an answer."""
        if self._model is not None or not self._counts["ok"]:
            return
        number = next(number for number in self.order if self.seen[number].status == "ok")
        try:
            record = await self._run(self._store.find, records.task_id(self.job, number))
        except IrsError:
            # Only a name: the next sweep asks again.
            return
        self._model = record.model if record else None

    def _see(self, summary: Summary, at: float) -> bool:
        if not 0 <= summary.number < MOST or not self.runs.add(summary.number):
            return False
        self.seen[summary.number] = summary
        self.order.append(summary.number)
        self._counts[summary.status] += 1
        if summary.status == "ok" and not summary.sure:
            self._counts["unsure"] += 1
        self._recent.append(at)
        self._last_at = max(self._last_at or 0.0, at)
        return True

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def _run(self, call: Callable[[Unpack[Ts]], T], *arguments: *Ts) -> T:
        return await to_thread.run_sync(call, *arguments, limiter=self._limiter)
