"""Jobs as the page and the API handle them: open, fill, close, follow, cancel. Holds nothing that must outlive it."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import anyio
from anyio import to_thread

from irs import records
from irs.client import Client
from irs.client.broadcast import tell_workers
from irs.client.sender import MOST_SENDS, ImageTask
from irs.cloud import Cloud
from irs.errors import Forbidden, NotFound, RequestError
from irs.records import Fault, ImageFacts, JobOpen, Manifest, Options, Record, Timing
from irs.results import RecordStore
from webui import ids
from webui.live import READERS, Live
from webui.metrics import Metrics
from webui.problems import Problem
from webui.publish import Publisher
from webui.view import Arrived, JobView, Page, Summary
from webui.watch import READ_AT_ONCE, Watch

#: The states that results can be asked for by.
STATUSES = ("ok", "failed", "cancelled", "unsure")
MOST_NAME_CHARACTERS = 255


@dataclass(frozen=True, slots=True)
class Reference:
    """An image that is stored already: a key of the input bucket, or ``s3://bucket/key``."""

    image: str
    name: str


@dataclass(frozen=True, slots=True)
class Original:
    """An image as it was handed in: ``image`` is a key of the input bucket or an ``s3://`` address."""

    image: str
    name: str
    bytes: int | None


class Jobs:
    """All jobs of one stack. Every call may raise Problem, or an error of the service that stands for one."""

    def __init__(self, cloud: Cloud, live: Live, publisher: Publisher, metrics: Metrics) -> None:
        self._cloud, self._live, self._publisher, self._metrics = cloud, live, publisher, metrics
        self._settings = cloud.settings
        self._store, self._client = RecordStore(cloud), Client(cloud.settings)
        self._writers = anyio.CapacityLimiter(cloud.settings.web_uploads)
        self._began_s = time.time()

    @property
    def max_bytes(self) -> int:
        """Bytes an image may have."""
        return self._settings.max_bytes

    # Open and fill

    async def open(self, options: dict[str, Any], expected: int | None = None, key: str | None = None) -> JobView:
        """Open a job; told the same ``key`` (Idempotency-Key) within a day, return the same job."""
        self.check_count(expected or 0)
        checked = Options.checked(options)
        opened = await to_thread.run_sync(self._open, checked, expected, key, limiter=self._writers)
        if opened.options != checked:
            raise Problem("bad_options", "This Idempotency-Key has opened a job with other options: choose another key.")
        self._metrics.jobs.inc()
        watch = await self._live.find(opened.job)
        await watch.look()
        return watch.view()

    def _open(self, options: Options, expected: int | None, key: str | None) -> JobOpen:
        job = None
        if key is not None:
            secret = self._settings.web_token or self._settings.input_bucket
            yesterday, job = ids.repeatable_ids(key, secret)
            if (opened := self._store.find_open(yesterday)) is not None:
                return opened
        return self._client.open(job=job, expected=expected, **options.changed())

    async def put(self, id: str, number: int, name: str, body: bytes | bytearray) -> bool:
        """Store an image and send its task; return False if it was there before. Once it returns, nothing is lost."""
        watch = await self._filling(id, number)
        name = shortened(name)
        if number not in watch.arrivals:
            self._check_takes(watch, number)
        is_new = await watch.arrivals.put(number, name, body, self._writers)
        stored = watch.arrivals.find(number)
        assert stored is not None
        if not stored.is_published and not watch.is_answered(number):
            # Also of a repeat: whoever stored it may have been killed before it sent the task.
            await self._publisher.send([ImageTask(watch.job, number, stored.key, name)], watch.opened.options)
            watch.arrivals.note_published(number)
        if is_new:
            self._metrics.images.inc()
            self._metrics.image_bytes.inc(len(body))
        watch.note_arrived()
        return is_new

    async def expect(self, id: str, number: int) -> None:
        """Refuse an image of no job, of a cancelled one, or beyond the most a job holds, before its bytes are read."""
        await self._filling(id, number)

    async def refuse(self, id: str, number: int, name: str, error: RequestError) -> bool:
        """Store a failed record for an image that cannot be handed in, so that it holds up no other.

        Returns:
            Whether a record stands under that number; not where another image has it, and keeps it.
        """
        self._metrics.refused.labels(error.code).inc()
        watch = await self._filling(id, number)
        if number not in watch.arrivals and not watch.is_answered(number):
            self._check_takes(watch, number)
            await self._fail(watch, [_failed(watch.job, number, name, error.code, str(error))])
        return watch.is_answered(number)

    async def _fail(self, watch: Watch, failed: Sequence[Record]) -> None:
        def store() -> list[bool]:
            with ThreadPoolExecutor(min(READERS, len(failed)), "irs-refused") as pool:
                return list(pool.map(self._store.put, failed))

        is_new = await to_thread.run_sync(store, limiter=self._writers)
        for record in itertools.compress(failed, is_new):
            watch.note_record(record)

    async def fill(self, id: str, references: Sequence[Reference]) -> JobView:
        """Send images that are stored already as the images of a job, and close it."""
        self.check_count(len(references))
        watch = await self._live.find(id)
        for reference in references:
            self._check_readable(reference.image)
        tasks = [ImageTask(id, n, reference.image, reference.name) for n, reference in enumerate(references)]
        await self._publisher.send(tasks, watch.opened.options)
        await self._close(watch, len(tasks))
        return watch.view()

    async def close(self, id: str, count: int, *, leave_out: bool = False) -> JobView:
        """Say that a job holds ``count`` images; told again it changes nothing.

        Args:
            leave_out: what has not arrived will not: it fails, instead of being asked for.
        """
        self.check_count(count)
        watch = await self._live.find(id)
        await watch.look(fresh_s=0.0)
        if watch.is_closed:
            view = watch.view()
            if view.count != count:
                raise Problem("job_closed", f"The job is closed and holds {view.count} images.")
            return view
        if watch.is_cancelled:
            raise Problem("cancelled", "The job was cancelled.")
        known = [*watch.arrivals, *watch.seen]
        if known and max(known) >= count:
            raise Problem("job_unfilled", f"The job holds image number {max(known)}: its count is at least {max(known) + 1}.")
        missing = [number for number in watch.arrivals.missing(count, watch.seen) if not watch.is_answered(number)]
        if missing and leave_out:
            lost = [_failed(id, number, f"image {number}", "not_found", "The image never arrived.") for number in missing]
            await self._fail(watch, lost)
        elif missing:
            raise Problem(
                "job_unfilled", f"{len(missing)} of {count} images have not arrived: send them, then close.", missing=missing
            )
        await self._send_lost(watch)
        await self._close(watch, count)
        return watch.view()

    async def _send_lost(self, watch: Watch) -> None:
        """Send the tasks of images that have no answer, and that this process could not send or stored before it began.

        Whoever stored them may have been killed before it sent them, and a browser that was closed repeats nothing. The
        full name travels in the message alone: of those that others stored it is that of the key.
        """
        lost = [
            ImageTask(watch.job, number, stored.key, stored.name or stored.key.rpartition("/")[2])
            for number, stored in watch.arrivals.perhaps_unsent(self._began_s)
            if not watch.is_answered(number)
        ]
        # Some at a time: other images' tasks go between them, and a repeat goes on where this one broke off.
        for start in range(0, len(lost), MOST_SENDS):
            some = lost[start : start + MOST_SENDS]
            await self._publisher.send(some, watch.opened.options)
            for task in some:
                watch.arrivals.note_published(task.number)

    async def _close(self, watch: Watch, count: int) -> None:
        manifest = Manifest(job=watch.job, count=count, options=watch.opened.options, closed=time.time())
        await to_thread.run_sync(self._store.close_job, manifest, limiter=self._writers)
        watch.note_closed(manifest)

    async def cancel(self, id: str) -> JobView:
        """Cancel a job: no more of its images are begun. One that has finished stays as it is."""
        watch = await self._live.find(id)
        await watch.sweep(fresh_s=1.0)
        if not watch.has_ended:
            await to_thread.run_sync(self._store.cancel_job, id, limiter=self._writers)
            watch.note_cancelled()
            await to_thread.run_sync(tell_workers, self._cloud, id, limiter=self._writers)
        return watch.view()

    # Follow

    async def watch(self, id: str) -> Watch:
        """Return what is known of a job, to be followed; raises 404 and 410."""
        return await self._live.find(id)

    async def get(self, id: str) -> JobView:
        """Return the job as it stands, at most a second old."""
        watch = await self._live.find(id)
        await watch.sweep(fresh_s=1.0)
        return watch.view()

    async def images(self, id: str) -> list[Arrived]:
        """Return the images that have arrived, by number."""
        watch = await self._live.find(id)
        await watch.look()
        await watch.arrivals.know(self._live.limiter)
        return watch.arrivals.rows(watch.seen)

    async def summaries(self, id: str, first: int, end: int) -> list[Summary]:
        """Return what is known of the answered images from number ``first`` up to ``end``; reads no record anew."""
        watch = await self._live.find(id)
        await watch.sweep(fresh_s=1.0)
        return [watch.seen[number] for number in range(first, end) if number in watch.seen]

    async def results(self, id: str, after: int = -1, limit: int = 200, status: str | None = None) -> Page:
        """Return the records above number ``after``, by number, at most ``limit``."""
        watch = await self._live.find(id)
        await watch.sweep(fresh_s=1.0)
        numbers = [number for number in self._numbers(watch, status) if number > after]
        part = numbers[:limit]
        found = await self._read(watch, part)
        return Page(tuple(found), part[-1] if len(numbers) > len(part) else None)

    async def records(self, id: str, status: str | None = None) -> AsyncIterator[Record]:
        """Yield all records that stand, by number."""
        watch = await self._live.find(id)
        await watch.sweep(fresh_s=1.0)
        numbers = self._numbers(watch, status)
        for start in range(0, len(numbers), READ_AT_ONCE):
            for record in await self._read(watch, numbers[start : start + READ_AT_ONCE]):
                yield record

    async def record(self, id: str, number: int) -> Record:
        """Return the record of one image.

        Raises:
            Problem: there is none (yet).
        """
        await self._live.find(id)
        found = await to_thread.run_sync(self._store.find_answer, records.task_id(id, number), limiter=self._live.limiter)
        if found is None:
            raise Problem("not_found", f"Image {number} has no result yet.")
        return found

    async def original(self, id: str, number: int) -> Original:
        """Return where an image is stored.

        Raises:
            Problem: the job has no such image.
        """
        watch = await self._live.find(id)
        await watch.arrivals.know(self._live.limiter)
        if (stored := watch.arrivals.find(number)) is not None:
            summary = watch.seen.get(number)
            name = stored.name or (summary and summary.name) or stored.key.rpartition("/")[2]
            return Original(stored.key, name, stored.bytes)
        record = await self.record(id, number)
        return Original(record.image.key, record.image.name or record.image.key.rpartition("/")[2], record.image.bytes)

    async def load(self, image: str) -> bytes:
        """Return the bytes of an image by its key or address, which this service may read.

        Raises:
            Problem: it is larger than images may be, or its bucket is none of those allowed.
            NotFound: it has expired.
        """
        self._check_readable(image)
        return await to_thread.run_sync(self._load, image, limiter=self._live.limiter)

    def _load(self, image: str) -> bytes:
        bucket, key = _place(image, self._settings.input_bucket)
        try:
            opened = self._cloud.bucket(bucket).open(key)
            if opened.size > self._settings.max_bytes:
                raise Problem("too_large", f"The image has {opened.size:,} bytes.")
            return opened.read()
        except NotFound:
            raise Problem("not_found", f"The image has expired: images are kept {self._settings.input_days} days.") from None

    async def _read(self, watch: Watch, numbers: Sequence[int]) -> list[Record]:
        task_ids = {number: records.task_id(watch.job, number) for number in numbers}
        stored = [task_ids[number] for number in numbers if number in watch.seen]
        found = await to_thread.run_sync(self._store.find_many, stored, limiter=self._live.limiter)
        known = dict(zip(stored, found, strict=True))
        if len(stored) < len(numbers):
            # Cancelled before they were begun: their names are in their keys.
            await watch.arrivals.know(self._live.limiter)
        for number, task_id in task_ids.items():
            if task_id not in known:
                arrived = watch.arrivals.find(number)
                known[task_id] = records.cancelled_record(task_id, key=arrived.key if arrived else "")
        return [record for number in numbers if (record := known[task_ids[number]]) is not None]

    def _numbers(self, watch: Watch, status: str | None) -> list[int]:
        if status is None:
            return sorted([*watch.seen, *watch.dropped()])
        if status not in STATUSES:
            raise Problem("bad_request", f"status must be one of {', '.join(STATUSES)}, not {status[:40]}.")
        if status == "unsure":
            return sorted(number for number, one in watch.seen.items() if one.status == "ok" and not one.sure)
        dropped = watch.dropped() if status == "cancelled" else ()
        return sorted([*dropped, *(number for number, one in watch.seen.items() if one.status == status)])

    # What is refused

    async def _filling(self, id: str, number: int) -> Watch:
        if not 0 <= number < self._settings.web_max_images:
            raise Problem("too_many_images", f"A job holds at most {self._settings.web_max_images:,} images, numbered from 0.")
        watch = await self._live.find(id)
        await watch.look()
        await watch.arrivals.know(self._live.limiter)
        if watch.is_cancelled:
            raise Problem("cancelled", "The job was cancelled.")
        return watch

    def _check_takes(self, watch: Watch, number: int) -> None:
        if watch.is_closed:
            raise Problem("job_closed", "The job is closed: open another one for further images.")
        if watch.is_answered(number):
            raise Problem("image_taken", f"Number {number} of this job was refused or answered: use a number of its own.")

    def check_count(self, count: int) -> None:
        """Refuse a job of too many images."""
        if count > self._settings.web_max_images:
            raise Problem("too_many_images", f"A job holds at most {self._settings.web_max_images:,} images, not {count:,}.")

    def _check_readable(self, image: str) -> None:
        bucket, _ = _place(image, self._settings.input_bucket)
        if bucket not in self._settings.allowed_buckets:
            raise Forbidden(f"s3://{bucket}")


def _failed(job: str, number: int, name: str, code: str, message: str) -> Record:
    name = shortened(name)
    return Record(
        task_id=records.task_id(job, number),
        job=job,
        number=number,
        status="failed",
        image=ImageFacts(name=name, key=records.image_key(job, number, name)),
        timing=Timing(submitted=time.time()),
        # It never was a message.
        receives=0,
        error=Fault(code=code, message=message),
    )


def shortened(name: str) -> str:
    """Return a name fit for a record: at most 255 characters, none that UTF-8 cannot hold."""
    return (name.encode(errors="replace").decode() or "image")[:MOST_NAME_CHARACTERS]


def _place(image: str, input_bucket: str) -> tuple[str, str]:
    if not image.startswith("s3://"):
        return input_bucket, image
    bucket, _, key = image.removeprefix("s3://").partition("/")
    return bucket, key
