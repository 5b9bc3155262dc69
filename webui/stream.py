"""The live stream of one job: server-sent events whose id says what was delivered, at whatever process.

``retry``, then ``results`` (up to 200 summaries, gathered for 100 ms), ``state`` (the job, at connect, then when
counts change, at most once a second) and at the end ``done``. A client that comes back with its last id is sent what is
missing, and perhaps more: it sets tiles by number, so repeats are harmless.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse, SendTimeoutError
from starlette.types import Receive, Scope, Send

from webui.live import Live
from webui.metrics import Metrics
from webui.runs import Runs
from webui.view import JobView
from webui.watch import Watch

log = logging.getLogger(__name__)

RETRY_MS = 1000
PING_S = 15
GATHER_S = 0.1
JOB_EVERY_S = 1.0
MOST_RESULTS = 200
#: A client that takes nothing for this long is frozen; it comes back by itself.
SEND_TIMEOUT_S = 30.0


class EventStream(EventSourceResponse):
    """Sends the events of one job until it has ended, the client has left, or the server stops."""

    def __init__(self, live: Live, watch: Watch, delivered: Runs, metrics: Metrics) -> None:
        super().__init__(
            events(live, watch, delivered),
            ping=PING_S,
            sep="\n",
            send_timeout=SEND_TIMEOUT_S,
            headers={"X-Accel-Buffering": "no"},
        )
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; a frozen client ends its stream and nothing else."""
        self._metrics.streams.inc()
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            self._metrics.frozen_streams.inc()
            log.info("stream_frozen", extra={"after_s": SEND_TIMEOUT_S})
        finally:
            self._metrics.streams.dec()


async def events(live: Live, watch: Watch, delivered: Runs) -> AsyncIterator[ServerSentEvent]:
    """Yield the events of a job; ``delivered`` is what the client has, and grows."""
    at = 0
    told: JobView | None = None
    told_s = sent_s = float("-inf")
    yield ServerSentEvent(retry=RETRY_MS, sep="\n")
    with live.watching(watch):
        while True:
            # Taken before anything is looked at: what changes from here on wakes us.
            changed = watch.changed
            batch: list[dict[str, Any]] = []
            while at < len(watch.order) and len(batch) < MOST_RESULTS:
                number = watch.order[at]
                at += 1
                if delivered.add(number):
                    batch.append(watch.seen[number].to_json())
            if batch:
                sent_s = time.monotonic()
                yield _event("results", {"results": batch}, delivered)
            if at < len(watch.order):
                continue
            wait_s: float | None = None
            if watch.is_swept:
                # Before the first sweep its counts would be too small.
                if watch.has_ended:
                    await watch.name_model()
                view = watch.view()
                if view.has_ended:
                    yield _event("state", view.to_json(), delivered)
                    yield _event("done", view.to_json(), delivered)
                    return
                wait_s = None if told and told.counts == view.counts else max(0.0, told_s + JOB_EVERY_S - time.monotonic())
                if wait_s == 0.0:
                    told, told_s, wait_s = view, time.monotonic(), None
                    yield _event("state", view.to_json(), delivered)
            with anyio.move_on_after(wait_s):
                await changed.wait()
            # Results that come close together share an event; the first after a pause goes at once.
            if (left_s := sent_s + GATHER_S - time.monotonic()) > 0:
                await anyio.sleep(left_s)


def _event(kind: str, data: dict[str, Any], delivered: Runs) -> ServerSentEvent:
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return ServerSentEvent(text, event=kind, id=delivered.text(), sep="\n")
