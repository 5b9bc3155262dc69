"""Reads one ephemeral queue in a thread: what comes is deleted first, and handed on once."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from kombu.utils.json import loads

from irs.broker.ephemeral import VISIBILITY_S, Ephemeral, EphemeralQueues, Kind, is_gone
from irs.cloud import Cloud
from irs.errors import IrsError, QueueUnavailable
from irs.sqs import SqsConnection

log = logging.getLogger(__name__)

MOST_MESSAGES = 10
WAIT_S = 20
GRACE_S = 5.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0
#: Messages remembered, so that one that SNS or SQS delivers twice is handed on once.
REMEMBERED = 10_000

Payload = dict[str, Any]


class Seen:
    """Which messages came before. Safe for threads."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._tags: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def is_new(self, payload: Payload) -> bool:
        """Whether this is the first delivery of a published message: its tag is given to it by its sender."""
        tag = str((payload.get("properties") or {}).get("delivery_tag"))
        with self._lock:
            if tag in self._tags:
                return False
            self._tags[tag] = None
            while len(self._tags) > self._most:
                self._tags.popitem(last=False)
            return True


def read_payload(message: dict[str, Any]) -> Payload | None:
    """Return kombu's message within a received one; None, and a line in the log, when it is none."""
    # Anyone who may publish to a topic may publish anything, and kombu makes objects of some of it.
    with suppress(Exception):
        payload = loads(message["Body"])
        if isinstance(payload, dict) and "body" in payload and isinstance(payload["properties"], dict):
            return payload
    log.warning("no_message", extra={"message_id": message.get("MessageId"), "head": str(message.get("Body"))[:100]})
    return None


class Listener:
    """Long polls on a queue of its own until it is ended; a queue that is gone is made anew under another name.

    Args:
        deliver: takes what came, in the listener's thread.
        is_needed: blocks until a poll makes sense; False ends listening.
    """

    def __init__(
        self,
        cloud: Cloud,
        queues: EphemeralQueues,
        kind: Kind,
        *,
        deliver: Callable[[list[Payload]], None],
        is_needed: Callable[[], bool] = lambda: True,
        queue: Ephemeral | None = None,
    ) -> None:
        self._cloud, self._queues, self._kind = cloud, queues, kind
        self._deliver, self._is_needed = deliver, is_needed
        self._seen = Seen()
        self._ended = threading.Event()
        self.queue = queue or queues.make(kind)
        threading.Thread(target=self._listen, name=f"irs-{kind}", daemon=True).start()

    def end(self) -> None:
        """Read no more, and remove the queue; what still comes is for nobody. Waits 2 s at most."""
        self._ended.set()
        self._queues.remove(self.queue)

    def _listen(self) -> None:
        connection = SqsConnection(self._cloud, is_cut=self._ended.is_set)
        pause_s = FIRST_PAUSE_S
        while self._is_needed() and not self._ended.is_set():
            try:
                messages = self._receive(connection)
                pause_s = FIRST_PAUSE_S
            except Exception as error:  # the edge of a main loop: no poll may end listening
                if self._ended.is_set():
                    break
                if is_gone(error):
                    self._replace()
                else:
                    # Our own errors say all in their sentence; anything else is ours to mend and needs its traceback.
                    trouble = not isinstance(error, QueueUnavailable) and error
                    log.warning("listening_failed", extra={"queue": self.queue.name, "reason": str(error)}, exc_info=trouble)
                self._ended.wait(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                continue
            if messages and not self._ended.is_set():
                payloads = [payload for message in messages if (payload := read_payload(message)) and self._seen.is_new(payload)]
                self._hand_on(payloads)
        connection.close()

    def _hand_on(self, payloads: list[Payload]) -> None:
        try:
            self._deliver(payloads)
        except Exception:  # the edge of a main loop: one message must not end listening
            log.exception("undeliverable", extra={"queue": self.queue.name})

    def _receive(self, connection: SqsConnection) -> list[dict[str, Any]]:
        url = self.queue.url
        request = {
            "QueueUrl": url,
            "MaxNumberOfMessages": MOST_MESSAGES,
            "WaitTimeSeconds": WAIT_S,
            "VisibilityTimeout": VISIBILITY_S,
        }
        asked_at = time.monotonic()
        messages = connection.call("ReceiveMessage", request, within_s=WAIT_S + GRACE_S).get("Messages") or []
        if not messages:
            if time.monotonic() - asked_at < 1.0:
                raise QueueUnavailable("ReceiveMessage was answered before its time, without a message")
            return []
        entries = [{"Id": str(n), "ReceiptHandle": message["ReceiptHandle"]} for n, message in enumerate(messages)]
        try:
            connection.call("DeleteMessageBatch", {"QueueUrl": url, "Entries": entries}, within_s=5.0)
        except QueueUnavailable as error:
            # They come again in half a minute, and are known by then.
            log.warning("undeleted", extra={"queue": self.queue.name, "reason": str(error)})
        return list(messages)

    def _replace(self) -> None:
        gone = self.queue
        log.warning("queue_gone", extra={"queue": gone.name})
        try:
            self.queue = self._queues.make(self._kind)
        except Exception as error:  # the edge of a main loop: tried again after a pause
            trouble = not isinstance(error, IrsError) and error
            log.warning("queue_unmade", extra={"kind": self._kind, "reason": str(error)}, exc_info=trouble)
            return
        self._queues.remove(gone)
        if self._ended.is_set():
            self._queues.remove(self.queue)
