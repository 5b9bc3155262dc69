"""The client: hand images in, get a job to follow."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

from irs import records
from irs.client.access import persistently, using_bucket
from irs.client.broadcast import tell_workers
from irs.client.handin import HandIn, upload
from irs.client.inputs import Image, Images, Source, sources
from irs.client.job import Job, OnProgress
from irs.client.sender import ImageTask, send_tasks
from irs.cloud import get_cloud
from irs.errors import BadOptions, PassingError
from irs.records import JobOpen, Manifest, Options, Record
from irs.results import RecordStore
from irs.results.store import JobListing
from irs.settings import Settings

RECOGNIZE_SECONDS = 300.0

_JOB_ID = re.compile(r"[0-9a-hjkmnp-tv-z]{26}")


class Client:
    """Hands images in and finds jobs. Cheap to make; safe for threads and after fork.

    Args:
        settings: where the service is; the environment's by default.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._cloud = get_cloud(settings)
        self._store = RecordStore(self._cloud)

    def recognize(self, images: Images, *, job: str | None = None, on_progress: OnProgress | None = None, **options: Any) -> Job:
        """Hand images in and return their job once all are stored and sent; workers begin with the first.

        An image that cannot be handed in (missing, empty, too large, unreadable) gets a failed record of its own
        and holds up no other. What S3 or SQS do not take is tried again for half a minute.

        Args:
            images: one or many of: path, folder, bytes, open binary file, ``s3://bucket/key``, ``(name, bytes)``.
            job: id of a job whose handing in broke off: the same images in the same order go on where it stopped.
            on_progress: called as images are sent, and later in the job's loops as they are answered.
            options: fields of :class:`irs.records.Options`.

        Raises:
            BadOptions: an option is wrong, or there is nothing to hand in.
            MissingResource, Unreachable, SetupError: the service cannot be reached as it is set up.
            StorageUnavailable, QueueUnavailable: it broke off; a note of the error, as of a KeyboardInterrupt, names the job
                to go on with.
        """
        came = sources(images, self._cloud.settings.max_bytes)
        if (first := next(came, None)) is None:
            raise BadOptions("there is nothing to hand in: name a file, a folder with files in it or an s3:// address")
        return self._recognize(itertools.chain([first], came), job, on_progress, options)

    def recognize_one(self, image: Image, *, timeout: float = RECOGNIZE_SECONDS, **options: Any) -> Record:
        """Hand in one image, wait for its record and return it: :func:`irs.recognize`."""
        came = list(itertools.islice(sources(image, self._cloud.settings.max_bytes), 2))
        if len(came) != 1:
            raise BadOptions("recognize() takes one image: hand in many, or a folder, with Client().recognize()")
        return self._recognize(iter(came), None, None, options).wait(timeout=timeout)[0].or_raise()

    def job(self, id: str, *, on_progress: OnProgress | None = None) -> Job:
        """Return a job that was opened by anyone, here or elsewhere.

        Raises:
            BadOptions: no such job is known.
            MissingResource, Unreachable, SetupError: the service cannot be reached as it is set up.
        """
        with using_bucket(self._cloud, self._cloud.output.name, is_first=True):
            opened = self._store.find_open(id) if _JOB_ID.fullmatch(id) else None
            if opened is None:
                # Tells a missing bucket from a missing job.
                self._store.list_job(id)
                days = self._cloud.settings.output_days
                raise BadOptions(f"job {id} is not known: check its id; records are kept {days} days")
            manifest = self._store.find_manifest(id)
        count = manifest.count if manifest else None
        return Job(self._cloud, id, options=opened.options, count=count, sent=count or 0, on_progress=on_progress)

    def cancel(self, id: str) -> bool:
        """Cancel a job, or one image by its task id (``JOB.NUMBER``): what no worker has begun is never answered.

        It holds for workers that start later too. What is in work at this moment may still get its record.

        Returns:
            Whether there was anything to cancel: False of what has its records.

        Raises:
            BadOptions: no such job is known, or it has no such image.
            MissingResource, Unreachable, SetupError: the service cannot be reached as it is set up.
            StorageUnavailable: S3 has not answered for 30 s.
        """
        split = records.split_task_id(id)
        if split is None:
            return self.job(id).cancel()
        count = self.job(split[0]).count
        if count is not None and split[1] >= count:
            raise BadOptions(f"job {split[0]} has no image {split[1]}: it holds {count}, numbered from 0")
        has_cancelled = persistently(lambda: self._store.cancel_task(id))
        tell_workers(self._cloud, id)
        return has_cancelled

    # The steps of recognize(), for who has the images one by one.

    def open(self, *, job: str | None = None, expected: int | None = None, **options: Any) -> JobOpen:
        """Open a job and return what it was opened with: of an open one its own options, whatever is asked for.

        Raises:
            BadOptions: an option is wrong, or ``job`` is no id.
            MissingResource, Unreachable, SetupError: the service cannot be reached as it is set up.
        """
        checked = Options.checked(options)
        if job is not None and not _JOB_ID.fullmatch(job):
            raise BadOptions(f"{job} is no id of a job: it has 26 small letters and digits")
        opened = JobOpen(job=job or records.new_job_id(), options=checked, expected=expected, created=time.time())
        # Before anything is stored: without the queue nobody would ever answer.
        self._cloud.queue_url(self._cloud.settings.requests_queue)
        with using_bucket(self._cloud, self._cloud.output.name, is_first=True):
            if not self._store.open_job(opened):
                return self._store.find_open(opened.job) or opened
        return opened

    def upload(self, job: str, number: int, name: str, body: bytes) -> ImageTask:
        """Store an image and return its task, to be sent; safe to run twice, raises as :meth:`recognize`."""
        return upload(self._cloud, job, number, name, body)

    def send(self, tasks: Sequence[ImageTask], options: Options) -> None:
        """Send tasks whose images are stored, ten in a request; safe to run twice, raises as :meth:`recognize`."""
        send_tasks(self._cloud, tasks, options)

    def close(self, job: str, count: int) -> None:
        """Say that a job holds ``count`` images and no more will come; safe to run twice."""
        opened = persistently(lambda: self._store.find_open(job))
        self._close(job, count, opened.options if opened else Options())

    def _close(self, job: str, count: int, options: Options) -> None:
        manifest = Manifest(job=job, count=count, options=options, closed=time.time())
        persistently(lambda: self._store.close_job(manifest))

    def _recognize(self, came: Iterator[Source], job: str | None, on_progress: OnProgress | None, options: dict[str, Any]) -> Job:
        opened = self.open(job=job, **options)
        try:
            listing = self._listing(opened.job) if job else JobListing(numbers=(), is_closed=False)
            count = HandIn(self._cloud, opened, frozenset(listing.numbers), on_progress).run(came)
            if listing.is_closed and (manifest := persistently(lambda: self._store.find_manifest(opened.job))):
                # Fewer are not its images: what is beyond them must not be hidden.
                count = max(count, manifest.count)
            self._close(opened.job, count, opened.options)
        except (PassingError, KeyboardInterrupt) as error:
            error.add_note(f"Job {opened.job} broke off: recognize(the same images, job='{opened.job}') goes on with it.")
            raise
        return Job(self._cloud, opened.job, options=opened.options, count=count, sent=count, on_progress=on_progress)

    def _listing(self, job: str) -> JobListing:
        listing = persistently(lambda: self._store.list_job(job))
        if listing.is_cancelled:
            raise BadOptions(f"job {job} was cancelled: hand the images in as a new one")
        return listing


def recognize(image: Image, *, timeout: float = RECOGNIZE_SECONDS, **options: Any) -> Record:
    """Hand in one image, wait for its record and return it; for the hurried, :class:`Client` does more.

    Raises:
        RecognitionFailed: it has no labels; the error says why.
        TimeoutError: no record within ``timeout`` seconds.
        BadOptions: ``image`` is not exactly one image, or an option is wrong.
        MissingResource, Unreachable, SetupError: the service cannot be reached as it is set up.
    """
    return Client().recognize_one(image, timeout=timeout, **options)
