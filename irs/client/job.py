"""A job: images handed in together, and their records as they come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

from irs import records
from irs.client.access import persistently
from irs.client.broadcast import tell_workers
from irs.cloud import Cloud
from irs.errors import NotFound, PassingError, Unreachable
from irs.records import Options, Record
from irs.results import RecordStore
from irs.results.backoff import Backoff

#: Records read before the first of them is given out: few enough to begin soon.
MOST_READS = 64


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is. ``count``: its images, None while more may come; ``sent`` tasks and ``done`` images of them."""

    count: int | None
    sent: int
    done: int


OnProgress = Callable[[Progress], object]


class Job:
    """Follows one job. Holds nothing that the buckets do not hold: any process may follow any job, many at once.

    ``for record in job`` and ``async for record in job`` give each record once, as they come, until the job is
    closed and all its images have one. Each loop begins anew. Of a cancelled job all that stand are given, then a
    record of the status ``cancelled`` for each image that has none.

    Attributes:
        id: what :meth:`Client.job` finds it by.
        options: how its images are answered.
    """

    def __init__(
        self,
        cloud: Cloud,
        id: str,
        *,
        options: Options,
        count: int | None = None,
        sent: int = 0,
        on_progress: OnProgress | None = None,
    ) -> None:
        self.id, self.options = id, options
        self._cloud, self._store = cloud, RecordStore(cloud)
        self._count, self._sent, self._on_progress = count, sent, on_progress

    def __repr__(self) -> str:
        return f"Job({self.id!r}, count={self._count})"

    @property
    def count(self) -> int | None:
        """Images of the job; None while more may be handed in. Asks S3 until the job is closed."""
        if self._count is None and (manifest := self._store.find_manifest(self.id)):
            self._count = manifest.count
        return self._count

    def __iter__(self) -> Iterator[Record]:
        return self.as_completed()

    def __aiter__(self) -> AsyncIterator[Record]:
        return self._as_completed_async()

    def as_completed(self, *, timeout: float | None = None) -> Iterator[Record]:
        """Yield each record as it comes.

        Raises:
            TimeoutError: not all are there ``timeout`` seconds after the first was asked for.
            Unreachable: S3 has not answered for 30 s.
        """
        watch = _Watch(self, timeout)
        while True:
            yield from watch.step()
            if watch.is_done:
                return
            time.sleep(watch.pause_s())

    def in_order(self, *, timeout: float | None = None) -> Iterator[Record]:
        """Yield the records by image number, each as soon as it and all before it are there; else as :meth:`as_completed`."""
        early: dict[int, Record] = {}
        expected = 0
        for record in self.as_completed(timeout=timeout):
            early[record.number or 0] = record
            while expected in early:
                yield early.pop(expected)
                expected += 1

    def wait(self, *, timeout: float | None = None) -> list[Record]:
        """Return all records by image number; blocks and raises as :meth:`as_completed`."""
        return list(self.in_order(timeout=timeout))

    def progress(self) -> Progress:
        """Return how far the job is now: one LIST per 1000 images. All of a cancelled one is done."""
        listing = self._store.list_job(self.id)
        done = len(listing.numbers)
        if listing.is_cancelled:
            done = max(done, self.count or 0)
        return Progress(self.count, max(self._sent, done), done)

    def cancel(self) -> bool:
        """Let none of the job's images be begun that is not; safe to run twice, raises as :meth:`Client.cancel`.

        Returns:
            Whether there was one: False of a job whose images all have a record.
        """
        listing = persistently(lambda: self._store.list_job(self.id))
        if self.count is not None and len(listing.numbers) >= self.count:
            return False
        persistently(lambda: self._store.cancel_job(self.id))
        tell_workers(self._cloud, self.id)
        return True

    def get_record(self, number: int) -> Record:
        """Return the record of one image.

        Raises:
            NotFound: there is none (yet).
        """
        if record := self.find_record(number):
            return record
        raise NotFound(records.record_key(records.task_id(self.id, number)))

    def find_record(self, number: int) -> Record | None:
        """Return the record of one image, None while there is none."""
        return self._store.find_answer(records.task_id(self.id, number))

    async def _as_completed_async(self) -> AsyncIterator[Record]:
        watch = _Watch(self, None)
        while True:
            for record in await asyncio.to_thread(lambda: list(watch.step())):
                yield record
            if watch.is_done:
                return
            await asyncio.sleep(watch.pause_s())


class _Watch:
    """One loop over a job's records: each once.

    The frontier is the number below which all are seen. Listing starts there, so that a pass costs one LIST of
    what is new, and not one of all.
    """

    def __init__(self, job: Job, timeout: float | None) -> None:
        self._job, self._timeout = job, timeout
        self._backoff = Backoff(timeout=timeout)
        self._frontier = 0
        # Seen beyond the frontier.
        self._ahead: set[int] = set()
        self._unread: list[int] = []
        self._done = 0
        self._is_cancelled = self._has_ended = False

    @property
    def is_done(self) -> bool:
        return self._has_ended or (self._job._count is not None and self._frontier >= self._job._count)

    def step(self) -> Iterator[Record]:
        """Yield the records that came since the last step, up to 64 read at once."""
        try:
            found = self._read()
        except PassingError as error:
            self._note_failure(error)
            return
        for record in found:
            self._done += 1
            if self._job._on_progress is not None:
                self._job._on_progress(Progress(self._job._count, max(self._job._sent, self._done), self._done))
            yield record

    def pause_s(self) -> float:
        """Return how long to wait before the next step.

        Raises:
            TimeoutError: the time is over.
        """
        if self._unread:
            return 0.0
        if self._backoff.is_over:
            missing = "" if self._job._count is None else f"{self._job._count - self._done} of {self._job._count} "
            raise TimeoutError(
                f"Job {self._job.id} has {missing or 'some '}images without a record after {self._timeout:g} s:"
                " see with `irs status` whether workers run. The job goes on without this."
            )
        return self._backoff.pause_s()

    def _read(self) -> list[Record]:
        if not self._unread:
            self._unread = self._list()
            if self._is_cancelled and not self._unread:
                self._has_ended = True
                return self._unanswered()
        numbers = self._unread[:MOST_READS]
        found = self._job._store.find_many([records.task_id(self._job.id, number) for number in numbers])
        self._unread = self._unread[MOST_READS:]
        came = []
        for number, record in zip(numbers, found, strict=True):
            # None: not answered for, or removed since to be answered anew: listed again by the next pass.
            if record is not None:
                self._ahead.add(number)
                came.append(record)
        while self._frontier in self._ahead:
            self._ahead.remove(self._frontier)
            self._frontier += 1
        self._backoff.note_answer(is_new=bool(came))
        return came

    def _list(self) -> list[int]:
        listing = self._job._store.list_job(self._job.id, after=self._frontier - 1)
        self._is_cancelled = listing.is_cancelled
        if listing.is_closed and self._job._count is None:
            # Asks for the manifest.
            _ = self._job.count
        count = self._job._count
        # What stands beyond the last image is none of the job's.
        return [number for number in listing.numbers if number not in self._ahead and (count is None or number < count)]

    def _unanswered(self) -> list[Record]:
        """Return what stands for the images of a cancelled job that have no record."""
        keys = self._job._store.list_images(self._job.id)
        numbers = range(self._job._count) if self._job._count is not None else sorted(keys)
        return [
            records.cancelled_record(records.task_id(self._job.id, number), key=keys.get(number, ""))
            for number in numbers
            if number >= self._frontier and number not in self._ahead
        ]

    def _note_failure(self, error: PassingError) -> None:
        try:
            self._backoff.note_failure(error)
        except PassingError:
            raise Unreachable(
                f"{error} Job {self._job.id} goes on without this: follow it later with Client().job('{self._job.id}')."
            ) from None
