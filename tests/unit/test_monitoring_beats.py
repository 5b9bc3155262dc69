"""Which beats are read: those that still say something, by no clock but the bucket's."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from irs.cloud import Listed
from irs.errors import MissingResource, NotFound
from irs.monitoring.beats import read_beats
from irs.records import Beat

LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)


class Bucket:
    """Beats by the minutes that they are older than the newest one; None is no beat of ours."""

    name = "out"

    def __init__(self, **minutes: int | None) -> None:
        self._minutes = minutes

    def list(self, prefix: str) -> Iterator[Listed]:
        for name, minutes in self._minutes.items():
            yield Listed(f"{prefix}{name}.json", 1, LONG_AGO - timedelta(minutes=minutes or 0))

    def get(self, key: str) -> bytes:
        name = key.removeprefix("workers/").removesuffix(".json")
        if name == "gone":
            raise NotFound(key)
        if self._minutes[name] is None:
            return b"{}"
        return Beat(instance=name, boot="a", host="h", pid=1, phase="ready", at=0.0, started=0.0).to_bytes()


def read(bucket: Any) -> list[str]:
    cloud: Any = SimpleNamespace(output=bucket)
    return sorted(beat.instance for beat in read_beats(cloud))


def test_beats_are_read_from_an_hour_before_the_newest_one_on_however_long_ago_that_was() -> None:
    assert ["a", "b"] == read(Bucket(a=0, b=59, c=60, d=6000))


def test_a_beat_that_has_gone_or_is_of_another_version_keeps_nobody_from_the_others() -> None:
    assert ["a"] == read(Bucket(a=0, gone=1, other=None))


def test_no_beats_are_none_and_no_bucket_is_told() -> None:
    class Absent(Bucket):
        def list(self, prefix: str) -> Iterator[Listed]:
            raise NotFound(prefix)

    assert [] == read(Bucket())
    with pytest.raises(MissingResource, match="irs provision"):
        read(Absent())
