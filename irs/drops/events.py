"""What S3 tells on the drops queue: a file was dropped, a record was stored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote_plus

from irs import records
from irs.settings import Settings


@dataclass(frozen=True, slots=True)
class Dropped:
    """One version of a file in the drop box; ``name`` is its key without ``drop/``."""

    key: str
    name: str
    etag: str

    @property
    def task_id(self) -> str:
        """The id of the task that answers this version."""
        return records.drop_task_id(self.key, self.etag)


@dataclass(frozen=True, slots=True)
class Recorded:
    """A record of what may be a dropped file."""

    task_id: str


def read_events(body: str, settings: Settings) -> list[Dropped | Recorded]:
    """Return what one message tells that concerns the drop box; nothing of S3's own test message.

    Raises:
        ValueError: it is no message of S3.
    """
    try:
        told = json.loads(body)
        if told.get("Event") == "s3:TestEvent":
            return []
        return list(_concerning(told["Records"], settings))
    except (AttributeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"no message of S3 ({type(error).__name__}: {error})") from None


def _concerning(told: list[dict[str, dict[str, dict[str, str]]]], settings: Settings) -> Iterator[Dropped | Recorded]:
    for one in told:
        if not str(one["eventName"]).startswith("ObjectCreated:"):
            continue
        bucket, key = one["s3"]["bucket"]["name"], unquote_plus(one["s3"]["object"]["key"])
        if bucket == settings.input_bucket and (name := records.drop_name(key)):
            yield Dropped(key, name, one["s3"]["object"]["eTag"])
        elif bucket == settings.output_bucket and (task_id := records.drop_of_record_key(key)):
            yield Recorded(task_id)
