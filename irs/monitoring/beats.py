"""What the workers of a stack say of themselves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from irs.cloud import Cloud
from irs.errors import MissingResource, NotFound
from irs.records import Beat

#: Beats of workers that ended without a word are kept for days; they are news for an hour.
NEWS = timedelta(hours=1)
_READERS = 16


def read_beats(cloud: Cloud) -> list[Beat]:
    """Return the last beat of each worker, from an hour before the newest one on: an hour by the bucket's own clock.

    A LIST, and a GET a worker: a beat is written anew each time, so its age is known without reading it.

    Raises:
        MissingResource: there is no output bucket.
        StorageUnavailable: S3 does not answer.
    """

    def read(key: str) -> Beat | None:
        try:
            return Beat.from_json(cloud.output.get(key))
        except (NotFound, ValueError):
            # Expired meanwhile, or of a version that is not ours.
            return None

    try:
        listed = list(cloud.output.list("workers/"))
    except NotFound:
        raise MissingResource(f"Bucket {cloud.output.name} is not there: run `irs provision` first.") from None
    newest = max((one.modified for one in listed), default=None)
    keys = [one.key for one in listed if newest is not None and newest - one.modified < NEWS]
    with ThreadPoolExecutor(_READERS, thread_name_prefix="irs-beats") as pool:
        return [beat for beat in pool.map(read, keys) if beat]
