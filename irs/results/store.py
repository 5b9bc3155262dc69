"""Records and job objects in the output bucket: each written once, read by id, found by one listing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypeVar

from irs import records
from irs.cloud import Bucket, Cloud
from irs.errors import InternalError, NotFound, PassingError
from irs.records import MAX_RECORD_BYTES, JobOpen, Manifest, Record

JSON = "application/json"
#: Objects read at once.
READERS = 16
#: What callers may choose at any length, cut where a record would grow beyond its bound.
MOST_TEXT_CHARACTERS = 1000

Kind = TypeVar("Kind", JobOpen, Manifest, Record)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class JobListing:
    """What one listing of a job shows: the rising numbers of its records, and whether it is closed, or cancelled."""

    numbers: tuple[int, ...]
    is_closed: bool
    is_cancelled: bool = False


class RecordStore:
    """The output bucket as records. Safe for threads and after fork; every call may raise StorageUnavailable."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    @property
    def _bucket(self) -> Bucket:
        # Asked for each time: a forked child has another one.
        return self._cloud.output

    def put(self, record: Record) -> bool:
        """Store a record unless one stands already; return whether it was stored.

        A record over 64 KiB loses its thumbnail first, then the ends of its longest texts.
        """
        return self._bucket.put(records.record_key(record.task_id), _fitted(record), content_type=JSON, create=True)

    def get(self, task_id: str) -> Record:
        """Return the record of a task.

        Raises:
            NotFound: there is none (yet).
            InternalError: the object is no record, or another task's.
        """
        key = records.record_key(task_id)
        record = self._read(key, Record)
        if records.record_key(record.task_id) != key:
            raise InternalError(f"s3://{self._bucket.name}/{key} holds the record of {record.task_id}")
        return record

    def find(self, task_id: str) -> Record | None:
        """Return the record of a task, None while there is none; for an object that is none, a failed one that says so."""
        try:
            return self.get(task_id)
        except NotFound:
            return None
        except InternalError as error:
            return records.unreadable_record(task_id, error)

    def find_answer(self, task_id: str) -> Record | None:
        """Return what readers are told: the record, or of a cancelled job without one that it is ``cancelled``."""
        if record := self.find(task_id):
            return record
        split = records.split_task_id(task_id)
        return records.cancelled_record(task_id) if split and self.is_cancelled(split[0]) else None

    def find_many(self, task_ids: Sequence[str]) -> list[Record | None]:
        """Return the records of many tasks in their order; None where there is none, or as :func:`ask_all`."""
        return ask_all(self.find, task_ids)

    def delete(self, task_id: str) -> None:
        """Remove a record, so that the task can be answered anew; none there is no error."""
        self._bucket.delete(records.record_key(task_id))

    def list_job(self, job: str, *, after: int = -1) -> JobListing:
        """Return which images of a job above number ``after`` have a record: one LIST per 1000 of them."""
        numbers: list[int] = []
        is_closed = is_cancelled = False
        # Numbers sort before "cancelled" and "manifest.json": a listing that starts anywhere among them ends with these.
        start = records.record_key(records.task_id(job, after)) if after >= 0 else ""
        for listed in self._bucket.list(records.job_prefix(job), after=start):
            if (number := records.number_of_record_key(listed.key)) is not None:
                numbers.append(number)
            is_closed = is_closed or listed.key == records.manifest_key(job)
            is_cancelled = is_cancelled or listed.key == records.job_cancelled_key(job)
        return JobListing(tuple(numbers), is_closed, is_cancelled)

    def list_images(self, job: str) -> dict[int, str]:
        """Return the keys of the job's images by number: those that were stored, and not named by an address."""
        keys = (listed.key for listed in self._cloud.input.list(records.job_prefix(job)))
        return {number: key for key in keys if (number := records.number_of_image_key(key)) is not None}

    def cancel_job(self, job: str) -> None:
        """Let no worker begin another image of the job, those included that start later; safe to run twice."""
        # For workers first: what the second tells readers must hold by then.
        self._bucket.put(records.tombstone_key(records.new_job_id(), job), b"", content_type=JSON)
        self._bucket.put(records.job_cancelled_key(job), b"", content_type=JSON)

    def cancel_task(self, task_id: str) -> bool:
        """Let no worker answer the task; return False if it was answered before. Safe to run twice."""
        self._bucket.put(records.tombstone_key(records.new_job_id(), task_id), b"", content_type=JSON)
        # The last word: what a worker stores after this is not the first.
        return self.put(records.cancelled_record(task_id))

    def is_cancelled(self, job: str) -> bool:
        """Return whether the job is cancelled."""
        try:
            self._bucket.get(records.job_cancelled_key(job))
        except NotFound:
            return False
        return True

    def open_job(self, opened: JobOpen) -> bool:
        """Store what was asked for; return False, and change nothing, if the job was opened before."""
        return self._bucket.put(records.open_key(opened.job), opened.to_bytes(), content_type=JSON, create=True)

    def close_job(self, manifest: Manifest) -> None:
        """Store how many images the job holds; told again it replaces what was told before."""
        self._bucket.put(records.manifest_key(manifest.job), manifest.to_bytes(), content_type=JSON)

    def find_open(self, job: str) -> JobOpen | None:
        """Return what was asked for when the job was opened; None for a job that never was."""
        return self._find(records.open_key(job), JobOpen)

    def find_manifest(self, job: str) -> Manifest | None:
        """Return the manifest; None while more images may come."""
        return self._find(records.manifest_key(job), Manifest)

    def _find(self, key: str, kind: type[Kind]) -> Kind | None:
        try:
            return self._read(key, kind)
        except NotFound:
            return None

    def _read(self, key: str, kind: type[Kind]) -> Kind:
        body = self._bucket.get(key)
        try:
            return kind.from_json(body)
        except ValueError:
            raise InternalError(f"s3://{self._bucket.name}/{key} holds no {kind.__name__}") from None


def ask_all(ask: Callable[[str], T], ids: Sequence[str]) -> list[T | None]:
    """Return the answers in order, asked for 16 at once; None where S3 did not answer, to be asked for again.

    Raises:
        StorageUnavailable: S3 answered for none of them.
    """
    failures: list[PassingError] = []

    def try_to_ask(id: str) -> T | None:
        try:
            return ask(id)
        except PassingError as error:
            failures.append(error)
            return None

    if len(ids) < 2:
        answers = [try_to_ask(id) for id in ids]
    else:
        with ThreadPoolExecutor(READERS, "irs-reader") as pool:
            answers = list(pool.map(try_to_ask, ids))
    if failures and len(failures) == len(ids):
        raise failures[0]
    return answers


def _fitted(record: Record) -> bytes:
    for form in chain([record], _smaller(record)):
        body = form.to_bytes()
        if len(body) <= MAX_RECORD_BYTES:
            break
    return body


def _smaller(record: Record) -> Iterable[Record]:
    yield (record := replace(record, thumbnail=None))
    name, key, error = record.image.name, record.image.key, record.error
    yield replace(
        record,
        image=replace(record.image, name=name and name[:MOST_TEXT_CHARACTERS], key=key[:MOST_TEXT_CHARACTERS]),
        error=error and replace(error, message=error.message[:MOST_TEXT_CHARACTERS]),
    )
