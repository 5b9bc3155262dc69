"""The images of one job that are stored in the input bucket."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import cast

import anyio
from anyio import to_thread

from irs import records
from irs.cloud import Cloud, Listed
from webui.problems import Problem
from webui.view import Arrived, Summary


@dataclass(frozen=True, slots=True)
class Stored:
    """One image of the input bucket; ``name`` and ``sha256`` are known where it came through this process.

    Attributes:
        listed_s: when it was stored, by S3's clock; None where it came through this process.
    """

    key: str
    bytes: int | None
    name: str | None = None
    sha256: str | None = None
    is_published: bool = False
    listed_s: float | None = None


class Arrivals:
    """Images by number: listed once, then noted as they come; another process's are found by :meth:`refresh`."""

    def __init__(self, cloud: Cloud, job: str) -> None:
        self._cloud, self._job = cloud, job
        self._known: dict[int, Stored] = {}
        self._is_listed = False
        # Two that come at once under one number have other keys: the second is looked at when the first stands.
        self._turns: defaultdict[int, anyio.Lock] = defaultdict(anyio.Lock)

    def __contains__(self, number: int) -> bool:
        return number in self._known

    def __iter__(self) -> Iterator[int]:
        return iter(self._known)

    def count(self, seen: Mapping[int, Summary]) -> int:
        """Return how many images are stored, or have a result all the same: refused ones, those named by key."""
        return len(self._known) + sum(1 for number in seen if number not in self._known)

    def missing(self, count: int, seen: Container[int]) -> list[int]:
        """Return the numbers below ``count`` that are neither stored nor answered."""
        return [number for number in range(count) if number not in self._known and number not in seen]

    def perhaps_unsent(self, before_s: float) -> list[tuple[int, Stored]]:
        """Return what this process stored or others stored before a moment, and this process has not sent."""
        return [
            (number, stored)
            for number, stored in self._known.items()
            if not stored.is_published and (stored.listed_s is None or stored.listed_s < before_s)
        ]

    def find(self, number: int) -> Stored | None:
        """Return what is stored under a number."""
        return self._known.get(number)

    def rows(self, seen: Mapping[int, Summary]) -> list[Arrived]:
        """Return the stored images by number."""
        rows = []
        for number, stored in sorted(self._known.items()):
            key_name = stored.key.rpartition("/")[2]
            told = seen[number].name if number in seen else None
            name = stored.name or told or key_name
            rows.append(Arrived(n=number, name=name, key_name=key_name, bytes=stored.bytes, sha256=stored.sha256))
        return rows

    async def refresh(self, limiter: anyio.CapacityLimiter) -> None:
        """LIST what is stored; raises StorageUnavailable."""
        listed = await to_thread.run_sync(self._list, limiter=limiter)
        for one in listed:
            number = records.number_of_image_key(one.key)
            if number is not None and number not in self._known:
                self._known[number] = Stored(one.key, one.size, listed_s=one.modified.timestamp())
        self._is_listed = True

    async def know(self, limiter: anyio.CapacityLimiter) -> None:
        """LIST once: what came before this process may stand under another name."""
        if not self._is_listed:
            await self.refresh(limiter)

    async def put(self, number: int, name: str, body: bytes | bytearray, limiter: anyio.CapacityLimiter) -> bool:
        """Store an image; return False if the same bytes stood under its number.

        Raises:
            Problem: other bytes stand there (409).
            StorageUnavailable: S3 does not take it.
        """
        sha256 = await to_thread.run_sync(_digest, body, limiter=limiter)
        turn = self._turns[number]
        try:
            async with turn:
                return await self._put(number, name, body, sha256, limiter)
        finally:
            if not turn.locked():
                self._turns.pop(number, None)

    async def _put(self, number: int, name: str, body: bytes | bytearray, sha256: str, limiter: anyio.CapacityLimiter) -> bool:
        key = records.image_key(self._job, number, name)
        before = self._known.get(number)
        is_new = before is None and await to_thread.run_sync(self._create, key, body, limiter=limiter)
        if not is_new:
            standing = before or Stored(key, len(body))
            there = standing.sha256 or await to_thread.run_sync(self._digest_of, standing.key, limiter=limiter)
            if there != sha256:
                raise Problem(
                    "image_taken",
                    f"Number {number} of this job is another image ({standing.key.rpartition('/')[2]}):"
                    " send this one under a number of its own.",
                )
            self._known[number] = replace(standing, name=name, sha256=sha256)
            return False
        self._known[number] = Stored(key, len(body), name, sha256)
        return True

    def note_published(self, number: int) -> None:
        """The task of a stored image was sent by this process."""
        self._known[number] = replace(self._known[number], is_published=True)

    def _list(self) -> list[Listed]:
        return list(self._cloud.input.list(records.job_prefix(self._job)))

    def _create(self, key: str, body: bytes | bytearray) -> bool:
        # The store takes any buffer, without a copy.
        return self._cloud.input.put(key, cast(bytes, body), content_type="application/octet-stream", create=True)

    def _digest_of(self, key: str) -> str:
        return _digest(self._cloud.input.get(key))


def _digest(body: bytes | bytearray) -> str:
    return hashlib.sha256(body).hexdigest()
