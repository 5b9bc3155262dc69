"""Tasks on their way to the request queue: what waits while one request is out goes with the next, ten a request."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import anyio
from anyio import to_thread

from irs.client.sender import Sendable, send_tasks
from irs.cloud import Cloud
from irs.records import Options, fingerprint

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Waiting:
    tasks: Sequence[Sendable]
    options: Options
    sent: anyio.Event = field(default_factory=anyio.Event)
    error: Exception | None = None


class Publisher:
    """Sends the tasks of all requests of this process; :meth:`run` works beside them."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._limiter = anyio.CapacityLimiter(2)
        self._waiting: list[_Waiting] = []
        self._came = anyio.Event()

    async def send(self, tasks: Sequence[Sendable], options: Options) -> None:
        """Return once the tasks are in the queue. Sending one again is harmless.

        Raises:
            QueueUnavailable: SQS did not take them; some may be there.
            MissingResource, Unreachable: the queue is not there, or SQS does not answer.
        """
        one = _Waiting(tasks, options)
        self._waiting.append(one)
        self._came.set()
        await one.sent.wait()
        if one.error is not None:
            raise one.error

    async def run(self) -> None:
        """Send what comes, until cancelled."""
        while True:
            await self._came.wait()
            self._came = anyio.Event()
            taken, self._waiting = self._waiting, []
            by_options: defaultdict[str, list[_Waiting]] = defaultdict(list)
            for one in taken:
                by_options[fingerprint(one.options.to_json())].append(one)
            for together in by_options.values():
                await self._send(together)

    async def _send(self, together: list[_Waiting]) -> None:
        tasks = [task for one in together for task in one.tasks]
        error: Exception | None = None
        try:
            await to_thread.run_sync(send_tasks, self._cloud, tasks, together[0].options, limiter=self._limiter)
        except Exception as raised:  # the edge of a main loop: raised where the requests wait
            log.warning("send_failed", extra={"tasks": len(tasks), "reason": str(raised)})
            error = raised
        for one in together:
            one.error = error
            one.sent.set()
