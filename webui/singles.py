"""One image that somebody waits for: stored, sent, answered, and forgotten again."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass

import anyio
from anyio import to_thread

from irs import records
from irs.client.access import persistently, using_bucket
from irs.client.sender import SingleTask
from irs.cloud import Cloud
from irs.errors import PassingError, StageTimeout
from irs.records import Options, Record
from irs.results import RecordStore
from webui.live import Live
from webui.publish import Publisher

#: Images that are only asked about stand here in the input bucket until they are answered.
PREFIX = "single/"
#: News come at once, but perhaps to another process: between two looks of our own.
FIRST_LOOK_S, LONGEST_LOOK_S = 0.1, 2.0
THREADS = 32


@dataclass(frozen=True, slots=True)
class Stored:
    """Where an image is: ``key`` is None of one that is not ours to forget."""

    id: str
    image: str
    name: str
    key: str | None


class Singles:
    """Asks about single images. Every call may raise an error of the cloud."""

    def __init__(self, cloud: Cloud, live: Live, publisher: Publisher) -> None:
        self._cloud, self._live, self._publisher = cloud, live, publisher
        self._store = RecordStore(cloud)
        self._limiter = anyio.CapacityLimiter(THREADS)

    async def store(self, body: bytes, name: str = "image") -> Stored:
        """Store an image to ask about."""
        id = f"single-{records.new_job_id()}"
        await to_thread.run_sync(self._put, f"{PREFIX}{id}", body, limiter=self._limiter)
        return Stored(id, f"{PREFIX}{id}", name, f"{PREFIX}{id}")

    def stored_at(self, address: str) -> Stored:
        """Return what stands at an ``s3://`` address."""
        return Stored(f"single-{records.new_job_id()}", address, address.rpartition("/")[2], None)

    async def ask(self, stored: Stored, options: Options, *, within_s: float) -> Record:
        """Return the record of an image, once a worker has stored it.

        Raises:
            StageTimeout: nobody answered in time; nobody will any more.
        """
        came = self._live.singles[stored.id] = anyio.Event()
        try:
            await self._publisher.send([SingleTask(stored.id, stored.image, stored.name)], options)
            return await self._answer(stored.id, came, within_s)
        finally:
            del self._live.singles[stored.id]

    async def forget(self, stored: Stored) -> None:
        """Remove an image of ours; what S3 does not do now, the bucket's lifecycle does later."""
        if stored.key is not None:
            with suppress(PassingError):
                await to_thread.run_sync(self._cloud.input.delete, stored.key, limiter=self._limiter)

    async def _answer(self, id: str, came: anyio.Event, within_s: float) -> Record:
        until_s, look_s = time.monotonic() + within_s, FIRST_LOOK_S
        while (left_s := until_s - time.monotonic()) > 0:
            with anyio.move_on_after(min(look_s, left_s)):
                await came.wait()
            if record := await to_thread.run_sync(self._store.find, id, limiter=self._limiter):
                return record
            if came.is_set():
                # Told, and not there: a record that was removed since. Else the loop would not rest.
                came = self._live.singles[id] = anyio.Event()
            look_s = min(2 * look_s, LONGEST_LOOK_S)
        if await to_thread.run_sync(self._store.cancel_task, id, limiter=self._limiter):
            raise StageTimeout(f"No worker has answered within {within_s:g} s: try again.")
        # The answer came in this very moment.
        return await to_thread.run_sync(self._store.get, id, limiter=self._limiter)

    def _put(self, key: str, body: bytes) -> None:
        with using_bucket(self._cloud, self._cloud.input.name):
            persistently(lambda: self._cloud.input.put(key, body, content_type="application/octet-stream"))
