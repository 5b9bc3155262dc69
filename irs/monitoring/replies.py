"""Replies to commands: a worker sends them from a thread of its own, a commanding process reads them all from one queue.

Celery's own way makes and deletes a queue for each command; here a process makes one at its first command and
gives it back after five idle minutes. A ticket tells whose reply it is.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from kombu.utils.json import dumps

from irs.broker.batches import BatchedCalls
from irs.broker.ephemeral import is_gone, queues_of
from irs.broker.listener import Listener, Payload
from irs.cloud import Cloud
from irs.errors import QueueUnavailable
from irs.sqs import Sqs

log = logging.getLogger(__name__)

#: A reply that is not through by then has nobody who waits for it.
REPLY_S = 30.0
#: SQS says that a new queue may be unknown in parts of it for a second.
NEW_QUEUE_S = 1.0
IDLE_S = 300.0

Reply = dict[str, Any]


@dataclass(slots=True, eq=False)
class _Outgoing:
    url: str
    body: str
    put_at: float = field(default_factory=time.monotonic)


class ReplySender:
    """Sends replies without the worker's event loop waiting for SQS. Safe for threads."""

    def __init__(self, cloud: Cloud) -> None:
        self._places = queues_of(cloud).places
        self._sqs = Sqs(cloud)
        self._calls: BatchedCalls[_Outgoing] = BatchedCalls(
            self._send, key=lambda reply: reply.url, wait_s=0.0, threads=1, name="irs-reply"
        )

    def put(self, queue_name: str, ticket: str, reply: Reply, *, clock: int) -> None:
        """Send a reply soon; to a queue that is none for replies it is not sent at all. Never blocks."""
        url = self._places.reply_url(queue_name)
        if url is None:
            log.warning("no_reply_queue", extra={"queue": queue_name})
            return
        headers = {"ticket": ticket, "clock": clock}
        properties = {"delivery_tag": str(uuid4())}
        self._calls.put(_Outgoing(url, dumps({"body": reply, "headers": headers, "properties": properties})))

    def close(self, *, within_s: float) -> None:
        """Send what waits, and end."""
        self._calls.close(within_s=within_s)

    def _send(self, replies: Sequence[_Outgoing]) -> list[_Outgoing]:
        now = time.monotonic()
        due = [reply for reply in replies if now - reply.put_at < REPLY_S]
        if not due:
            return []
        entries = [{"Id": str(n), "MessageBody": reply.body} for n, reply in enumerate(due)]
        try:
            answer = self._sqs.call("SendMessageBatch", {"QueueUrl": due[0].url, "Entries": entries})
        except QueueUnavailable as error:
            if not is_gone(error):
                raise
            # Too new to be known everywhere, or its owner has gone: then it must not be made again.
            return [reply for reply in due if now - reply.put_at < NEW_QUEUE_S]
        for failed in answer.get("Failed", ()):
            log.warning("reply_refused", extra={"reason": json.dumps(failed)[:200]})
        return []


@dataclass(slots=True)
class Expected:
    """Replies to one command, as they come. ``is_first``: the queue was made for this command, and is new."""

    ticket: str
    queue_name: str
    is_first: bool
    _came: queue.SimpleQueue[tuple[Reply, int]] = field(default_factory=queue.SimpleQueue)

    def put(self, reply: Reply, clock: int) -> None:
        """Hand a reply to who waits."""
        self._came.put((reply, clock))

    def next(self, within_s: float) -> tuple[Reply, int] | None:
        """Return the next reply and its sender's clock; None if there was none in time."""
        try:
            return self._came.get(timeout=max(0.0, within_s))
        except queue.Empty:
            return None


class ReplyReader:
    """The reply queue of this process. Safe for threads: each command gets its own replies and no other's."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._expected: dict[str, Expected] = {}
        self._listener: Listener | None = None
        self._changed = threading.Condition()

    @contextmanager
    def expect(self) -> Iterator[Expected]:
        """Wait for replies within the block: the command is to be published in it, not before.

        Raises:
            QueueUnavailable: the queue cannot be made.
        """
        with self._changed:
            is_first = self._listener is None
            if self._listener is None:
                queues = queues_of(self._cloud)
                self._listener = Listener(self._cloud, queues, "reply", deliver=self._deliver, is_needed=self._is_needed())
            expected = Expected(str(uuid4()), self._listener.queue.name, is_first)
            self._expected[expected.ticket] = expected
            self._changed.notify_all()
        try:
            yield expected
        finally:
            with self._changed:
                del self._expected[expected.ticket]

    def _is_needed(self) -> Callable[[], bool]:
        def wait_until_needed() -> bool:
            with self._changed:
                if self._changed.wait_for(lambda: self._expected, IDLE_S):
                    return True
                listener, self._listener = self._listener, None
            if listener is not None:
                listener.end()
            return False

        return wait_until_needed

    def _deliver(self, payloads: list[Payload]) -> None:
        for payload in payloads:
            headers = payload.get("headers") or {}
            expected = self._expected.get(str(headers.get("ticket")))
            # A reply that comes late is for nobody.
            if expected is not None and isinstance(payload["body"], dict):
                expected.put(payload["body"], int(headers.get("clock") or 0))


_readers: dict[tuple[int, int], ReplyReader] = {}
_lock = threading.Lock()


def reader_of(cloud: Cloud) -> ReplyReader:
    """Return the reader of this process for ``cloud``; a forked child has its own."""
    with _lock:
        return _readers.setdefault((id(cloud), os.getpid()), ReplyReader(cloud))
