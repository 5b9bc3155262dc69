"""Images handed in whose message was lost with the queues of an embedded cloud that was killed: sent again.

The buckets outlive it: they tell which images there are, with which options, and which have a record.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, islice

from irs import records
from irs.client.sender import MOST_SENDS, ImageTask, send_tasks
from irs.cloud import Cloud
from irs.records import Options
from irs.results import RecordStore


def resend_unanswered(cloud: Cloud) -> int:
    """Send a task for each image of a job that has no record; return how many. Safe to run twice.

    An image keeps its task id, so a message that was not lost costs a second recognition and changes nothing.
    The full name of a file travels in its message alone: the record will show the shorter one of its key.

    Raises:
        MissingResource, Unreachable, QueueUnavailable, StorageUnavailable: what was sent by then stands.
    """
    store, count = RecordStore(cloud), 0
    # The listing comes by key, so a job's images come together.
    for job, images in groupby(_images(cloud), key=lambda image: image.job):
        # The client was killed between its first upload and open.json: the defaults answer as well as any.
        opened = store.find_open(job)
        options = opened.options if opened else Options()
        unanswered = _unanswered(cloud, job, images)
        while some := list(islice(unanswered, MOST_SENDS)):
            send_tasks(cloud, some, options)
            count += len(some)
    return count


def _images(cloud: Cloud) -> Iterator[ImageTask]:
    for listed in cloud.input.list("jobs/"):
        if (number := records.number_of_image_key(listed.key)) is not None:
            _, job, _, name = listed.key.split("/", 3)
            yield ImageTask(job=job, number=number, image=listed.key, name=name)


def _unanswered(cloud: Cloud, job: str, images: Iterator[ImageTask]) -> Iterator[ImageTask]:
    keys = {listed.key for listed in cloud.output.list(records.job_prefix(job))}
    # Whoever cancelled the job waits for nothing.
    if records.job_cancelled_key(job) not in keys:
        answered = {records.number_of_record_key(key) for key in keys}
        yield from (image for image in images if image.number not in answered)
