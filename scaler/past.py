"""A trace of a past day, from what the records of the output bucket say: replay your own load before you pay for it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

from irs.cloud import Cloud
from irs.errors import MissingResource, NotFound
from irs.records import Record, number_of_record_key

DAY_S = 86_400
#: An image that came late in the day may be recorded on the next one.
RECORDED_WITHIN = timedelta(days=1)
_READERS = 32


def arrivals_of(cloud: Cloud, day: date) -> dict[int, int]:
    """Return how many images were handed in at each second of ``day`` (UTC).

    Every record of the two days that could hold one is read: a GET an image.

    Raises:
        MissingResource: there is no output bucket.
        StorageUnavailable: S3 does not answer.
    """
    begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
    counts: Counter[int] = Counter()
    with ThreadPoolExecutor(max_workers=_READERS, thread_name_prefix="irs-past") as pool:
        for submitted in pool.map(lambda key: _submitted(cloud, key), _keys(cloud, begin)):
            if submitted is not None and 0 <= (second := math.floor(submitted - begin.timestamp())) < DAY_S:
                counts[second] += 1
    return dict(counts)


def _keys(cloud: Cloud, begin: datetime) -> Iterator[str]:
    until = begin + timedelta(days=1) + RECORDED_WITHIN
    try:
        for prefix in ("jobs/", "tasks/"):
            for one in cloud.output.list(prefix):
                is_record = prefix == "tasks/" or number_of_record_key(one.key) is not None
                if is_record and begin <= one.modified < until:
                    yield one.key
    except NotFound:
        raise MissingResource(f"Bucket {cloud.output.name} is not there: run `irs provision` first.") from None


def _submitted(cloud: Cloud, key: str) -> float | None:
    try:
        return Record.from_json(cloud.output.get(key)).timing.submitted
    except (NotFound, ValueError):
        # Expired meanwhile, or of a version that is not ours.
        return None
