"""Handing in: uploads in parallel, each sent as soon as it is stored, and what cannot be handed in recorded."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from irs import records
from irs.client.access import persistently, using_bucket
from irs.client.inputs import Refused, Source
from irs.client.job import OnProgress, Progress
from irs.client.sender import ImageTask, Sender
from irs.cloud import Cloud
from irs.errors import BadOptions
from irs.records import ImageFacts, JobOpen, Record, Timing
from irs.results import RecordStore

#: Uploads at once; as many again wait with their bytes read.
UPLOADS = 16
#: Six digits in the keys: more would no longer sort by number.
MOST_IMAGES = 1_000_000


def upload(cloud: Cloud, job: str, number: int, name: str, body: bytes) -> ImageTask:
    """Store an image and return its task, to be sent; safe to run twice.

    Raises:
        MissingResource, SetupError: the input bucket is not there or may not be written.
        StorageUnavailable: S3 does not take it.
    """
    key = records.image_key(job, number, name)
    with using_bucket(cloud, cloud.input.name):
        cloud.input.put(key, body, content_type="application/octet-stream")
    return ImageTask(job, number, key, name)


class HandIn:
    """Hands the images of one open job in; those in ``answered`` have a record and are passed over."""

    def __init__(self, cloud: Cloud, opened: JobOpen, answered: frozenset[int], on_progress: OnProgress | None) -> None:
        self._cloud, self._opened, self._answered, self._on_progress = cloud, opened, answered, on_progress
        self._store = RecordStore(cloud)
        self._running: set[Future[None]] = set()

    def run(self, came: Iterable[Source]) -> int:
        """Return how many images came, once all are stored and sent.

        Raises:
            BadOptions: they are more than a job holds; those before are handed in.
            StorageUnavailable, QueueUnavailable: it broke off.
        """
        count = 0
        with Sender(self._cloud, self._opened.options) as sender, ThreadPoolExecutor(UPLOADS, "irs-upload") as pool:
            try:
                for number, source in enumerate(came):
                    if number == MOST_IMAGES:
                        raise BadOptions(f"a job holds at most {MOST_IMAGES:,} images: hand in the rest as another job")
                    count = number + 1
                    if number not in self._answered:
                        self._running.add(pool.submit(self._one, sender, number, source))
                    self._settle(sender, below=2 * UPLOADS)
                self._settle(sender, below=1)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        self._tell(count, sender.sent)
        return count

    def _settle(self, sender: Sender, *, below: int) -> None:
        """Wait until fewer than ``below`` uploads run, and raise what one of them or a send has raised."""
        while len(self._running) >= below:
            done, self._running = wait(self._running, return_when=FIRST_COMPLETED)
            for one in done:
                one.result()
            sender.check()
            self._tell(None, sender.sent)

    def _one(self, sender: Sender, number: int, source: Source) -> None:
        job = self._opened.job
        if source.url is not None:
            sender.put(ImageTask(job, number, source.url, source.name))
            return
        try:
            body = source.load(self._cloud.settings.max_bytes)
        except Refused as refused:
            record = self._refused(number, source.name, refused)
            persistently(lambda: self._store.put(record))
            return
        sender.put(persistently(lambda: upload(self._cloud, job, number, source.name, body)))

    def _refused(self, number: int, name: str, refused: Refused) -> Record:
        job = self._opened.job
        return Record(
            task_id=records.task_id(job, number),
            job=job,
            number=number,
            status="failed",
            image=ImageFacts(name=name, key=records.image_key(job, number, name)),
            timing=Timing(submitted=time.time()),
            # It never was a message.
            receives=0,
            error=refused.fault,
        )

    def _tell(self, count: int | None, sent: int) -> None:
        if self._on_progress is not None:
            self._on_progress(Progress(count, sent + len(self._answered), len(self._answered)))
