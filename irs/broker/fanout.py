"""Our transport with broadcasts: what is published to Celery's control and event exchanges goes to SNS topics.

Whoever listens has a queue of its own (:mod:`irs.broker.ephemeral`). Celery's names of such queues stay within the
process; SQS's are new each time. Tasks take the way of :mod:`irs.broker.transport`, unchanged.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from queue import Empty
from typing import Any

from kombu.transport import virtual
from kombu.utils.json import dumps

from irs.broker import transport
from irs.broker.ephemeral import VISIBILITY_S, Ephemeral, EphemeralQueues, Kind, cloud_errors, is_gone, queues_of
from irs.broker.listener import MOST_MESSAGES, WAIT_S, Listener, Payload, Seen, read_payload
from irs.broker.receive import GRACE_S
from irs.errors import BadOptions, MissingResource, QueueUnavailable

log = logging.getLogger(__name__)

#: Celery's exchanges that reach everybody, and the topics behind them.
EXCHANGES = {"celery.pidbox": "control", "celeryev": "events"}
#: SNS takes 256 KiB; the rest is room for attributes.
MOST_BYTES = 250 * 1024
FAULT_PAUSE_S = 1.0
NEXT_TURN_S = 0.01


def kind_of(queue: str) -> Kind | None:
    """Return which kind of ephemeral queue Celery means by a name; None for a queue of tasks."""
    if queue.endswith(".celery.pidbox"):
        return "pidbox"
    return "events" if queue.startswith("celeryev.") else None


class Channel(transport.Channel):
    """A channel that can also listen to broadcasts, and publish them."""

    supports_fanout = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._listeners: dict[str, Listener] = {}
        self._own: dict[str, Ephemeral] = {}
        self._seen = Seen()
        self._timeout_s: float | None = None

    @property
    def queues(self) -> EphemeralQueues:
        """What makes and removes this process's own queues."""
        return queues_of(self.cloud)

    def exchange_declare(self, exchange: str | None = None, type: str = "direct", *args: Any, **kwargs: Any) -> None:
        # Celery declares its event exchange as a topic for all but two brokers it knows.
        super().exchange_declare(exchange, "fanout" if exchange in EXCHANGES else type, *args, **kwargs)

    def basic_consume(self, queue: str, no_ack: bool, callback: Any, consumer_tag: str, *args: Any, **kwargs: Any) -> Any:
        kind = kind_of(queue)
        if kind is None or not self.hub:
            return super().basic_consume(queue, no_ack, callback, consumer_tag, *args, **kwargs)
        # Past the intake: a command waits for no lease, no drain and no pause of the tasks.
        virtual.Channel.basic_consume(self, queue, no_ack, callback, consumer_tag, *args, **kwargs)
        self._listeners[queue] = Listener(
            self.cloud,
            self.queues,
            kind,
            deliver=lambda payloads: self.hub.call_soon(self._deliver_broadcasts, queue, payloads),
            queue=self._own.pop(queue, None),
        )
        return None

    def basic_cancel(self, consumer_tag: str) -> Any:
        queue = self._tag_to_queue.get(consumer_tag)
        done = super().basic_cancel(consumer_tag)
        if listener := self._listeners.pop(queue or "", None):
            listener.end()
        return done

    def drain_events(self, timeout: float | None = None, callback: Any = None, **kwargs: Any) -> Any:
        # kombu passes it no further, so that a poll would last its own time whatever the caller allows.
        self._timeout_s = timeout
        return super().drain_events(timeout=timeout, callback=callback, **kwargs)

    def close(self) -> None:
        if self.closed:
            return
        own, self._own = list(self._own.values()), {}
        cloud, queues = self.cloud, queues_of
        super().close()
        queues(cloud).remove(*own)

    def _new_queue(self, queue: str, **kwargs: Any) -> str:
        kind = kind_of(queue)
        if kind is None:
            return str(super()._new_queue(queue, **kwargs))
        if listener := self._listeners.get(queue):
            return listener.queue.url
        if queue not in self._own:
            self._own[queue] = self.queues.make(kind)
        return self._own[queue].url

    def _delete(self, queue: str, *_: Any, **__: Any) -> None:
        # Never a queue of tasks: those are irs provision's.
        if own := self._own.pop(queue, None):
            self.queues.remove(own)

    def _queue_bind(self, *args: Any) -> None:
        # A queue is subscribed when it is made.
        pass

    def _subscribe_queue_to_fanout_exchange_if_required(self, queue_name: str) -> None:
        pass

    def _put_fanout(self, exchange: str, message: Payload, *_: Any, **__: Any) -> None:
        publish(self.queues, EXCHANGES[exchange], dumps(message))

    def _get_bulk(self, queue: str, *args: Any, **kwargs: Any) -> None:
        if kind_of(queue) is None:
            super()._get_bulk(queue, *args, **kwargs)
            return
        payloads = [payload for message in self._received(queue) if (payload := read_payload(message))]
        fresh = [payload for payload in payloads if self._seen.is_new(payload)]
        if not fresh:
            raise Empty
        for payload in fresh:
            self.connection._deliver(payload, queue)

    def _received(self, queue: str) -> list[dict[str, Any]]:
        """Receive and delete up to ten messages, waiting no longer than the caller of ``drain_events`` does."""
        faults: tuple[type[Exception], ...] = (QueueUnavailable, *cloud_errors())
        wait_s = WAIT_S if self._timeout_s is None else min(WAIT_S, math.ceil(self._timeout_s))
        client = self.cloud.client("sqs", read_seconds=WAIT_S + GRACE_S, attempts=1)
        try:
            url = self._new_queue(queue)
            messages: list[dict[str, Any]] = client.receive_message(
                QueueUrl=url, MaxNumberOfMessages=MOST_MESSAGES, WaitTimeSeconds=wait_s, VisibilityTimeout=VISIBILITY_S
            ).get("Messages", [])
            if messages:
                entries = [{"Id": str(n), "ReceiptHandle": message["ReceiptHandle"]} for n, message in enumerate(messages)]
                client.delete_message_batch(QueueUrl=url, Entries=entries)
        except faults as error:
            log.warning("listening_failed", extra={"queue": queue, "reason": str(error)})
            if is_gone(error):
                self._delete(queue)
            # A queue or a cloud that is away comes back: who watches waits for it.
            time.sleep(FAULT_PAUSE_S if self._timeout_s is None else min(FAULT_PAUSE_S, self._timeout_s))
            raise Empty from None
        return messages

    def _deliver_broadcasts(self, queue: str, payloads: list[Payload]) -> None:
        # What a command puts off, or its end of the worker, is looked at in the hub's next turn: soon, not at the
        # next heartbeat. The hub wakes for what other threads call, not for what is called within a turn.
        self.hub.call_later(NEXT_TURN_S, _nothing)
        for payload in payloads:
            callback: Callable[[Payload], None] | None = self.connection and self.connection._callbacks.get(queue)
            if callback is None:
                return
            try:
                callback(payload)
            except Exception:  # the edge of a stage: one bad command must not end the worker
                log.exception("broadcast_failed", extra={"queue": queue})


def _nothing() -> None:
    pass


def publish(queues: EphemeralQueues, topic: str, text: str) -> None:
    """Publish to everybody who listens to the topic now. Blocks for one request.

    Raises:
        BadOptions: it is longer than SNS takes.
        MissingResource: there is no such topic.
        QueueUnavailable: SNS does not answer.
    """
    if len(text) * 4 > MOST_BYTES and (size := len(text.encode())) > MOST_BYTES:
        raise BadOptions(f"a broadcast has {size:,} bytes and SNS takes {MOST_BYTES:,}: name fewer ids in one command")
    arn = queues.places.topic_arn(topic)
    try:
        queues.sns().publish(TopicArn=arn, Message=text)
    except cloud_errors() as error:
        if "NotFound" in str(error):
            raise MissingResource(f"Topic {arn.rpartition(':')[2]} is not there: run `irs provision` first.") from None
        raise QueueUnavailable(f"SNS does not take a broadcast to {arn.rpartition(':')[2]}: {error}") from None


class Transport(transport.Transport):
    """Celery asks by ``implements`` whether there is remote control."""

    Channel = Channel
    implements = transport.Transport.implements.extend(exchange_type=frozenset({"direct", "fanout"}))
