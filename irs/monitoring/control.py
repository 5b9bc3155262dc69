"""Remote control of workers: Celery's own ``inspect`` and ``control``, over SNS and SQS.

Commands are broadcast to the topic ``{stack}-control``; a worker's replies come by :mod:`irs.monitoring.replies`.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from celery.app import control
from celery.utils.functional import maybe_list
from kombu import pidbox

from irs.broker.ephemeral import cloud_errors, prefix, queues_of
from irs.cloud import Cloud, get_cloud
from irs.errors import SetupError
from irs.monitoring.replies import Expected, Reply, ReplySender, reader_of
from irs.records import split_task_id, task_id
from irs.results import RecordStore

log = logging.getLogger(__name__)

#: A command that was sent longer ago is not obeyed: nobody expects it any more.
STALE_S = 60.0
#: When all who are known have answered, a worker that was just born may still do so.
LINGER_S = 0.2
#: How long the number of listening workers is believed.
COUNTED_S = 5.0
#: A queue that is just made may be unknown to a worker's part of SQS for so long.
NEW_QUEUE_S = 1.5
FLUSH_S = 2.0
_obeyed: Counter[str] = Counter()
_LASTING = frozenset(("revoke", "terminate"))


def commands_obeyed() -> dict[str, int]:
    """Return how often this process was told each command."""
    return dict(_obeyed)


class Node(pidbox.Node):  # type: ignore[misc]
    """A worker's end of remote control: what is no command never stops it listening."""

    def handle_message(self, body: Any, message: Any = None) -> Any:
        """Obey a command, unless it is none or stale."""
        if not isinstance(body, dict) or not isinstance(body.get("method"), str):
            log.warning("no_command", extra={"head": repr(body)[:100]})
            return None
        born = (message.headers or {}).get("born") if message is not None else None
        if isinstance(born, int | float) and (age_s := time.time() - born) > STALE_S:
            # Told, for two clocks that differ by a minute look the same.
            log.warning("stale_command", extra={"command": body["method"], "age_s": round(age_s)})
            return None
        try:
            # Of no other names than there are commands: a label must not grow without end.
            if body["method"] in (self.handlers or ()):
                _obeyed[body["method"]] += 1
            return super().handle_message(body, message)
        except Exception:  # the edge of a stage: Celery would close this worker's queue and make another
            log.exception("command_failed", extra={"command": body["method"]})
            return None


class Mailbox(pidbox.Mailbox):  # type: ignore[misc]
    """Broadcasts commands and collects replies: from as many workers as listen, and no longer than that takes."""

    node_cls = Node
    #: Shared by all copies of the mailbox, one of which Celery makes for each command.
    _senders: ClassVar[dict[int, ReplySender]] = {}
    _counted: ClassVar[dict[int, tuple[float, int]]] = {}

    def _publish_reply(self, reply: Reply, exchange: str, routing_key: str, ticket: str, *_: Any, **__: Any) -> None:
        del exchange
        _sender_of(get_cloud()).put(routing_key, ticket, reply, clock=self.clock.forward())

    def _publish(
        self,
        type: str,
        arguments: Any,
        destination: Sequence[str] | None = None,
        reply_ticket: str | None = None,
        channel: Any = None,
        timeout: float | None = None,
        serializer: str | None = None,
        producer: Any = None,
        pattern: str | None = None,
        matcher: str | None = None,
        *,
        reply_queue: str | None = None,
    ) -> None:
        message = {
            "method": type,
            "arguments": arguments,
            "destination": destination,
            "pattern": pattern,
            "matcher": matcher,
        }
        if reply_ticket:
            message |= {
                "ticket": reply_ticket,
                "reply_to": {"exchange": self.reply_exchange.name, "routing_key": reply_queue},
            }
        now = time.time()
        with self.producer_or_acquire(producer, channel or self.connection.default_channel) as acquired:
            acquired.publish(
                message,
                exchange=self.exchange.name,
                declare=[self.exchange],
                headers={"clock": self.clock.forward(), "born": now, "expires": now + timeout if timeout else 0},
                serializer=serializer or self.serializer,
                # What SNS did not take the caller is told at once.
                retry=False,
            )

    def _broadcast(
        self,
        command: str,
        arguments: Any = None,
        destination: Sequence[str] | None = None,
        reply: bool = False,
        timeout: float | None = 1,
        limit: int | None = None,
        callback: Callable[[Reply], None] | None = None,
        channel: Any = None,
        serializer: str | None = None,
        pattern: str | None = None,
        matcher: str | None = None,
    ) -> list[Reply] | None:
        cloud = get_cloud()
        if not cloud.settings.monitoring:
            raise SetupError(
                "Remote control is off: set IRS_MONITORING=1 for the workers and for this command. `irs up` does so itself."
            )
        if destination is not None and not isinstance(destination, list | tuple):
            raise ValueError(f"destination must be a list or tuple, not {destination!r}")
        options = {"channel": channel, "serializer": serializer, "pattern": pattern, "matcher": matcher}
        if not reply:
            self._publish(command, arguments or {}, destination, timeout=timeout, **options)
            return None
        with reader_of(cloud).expect() as expected:
            began_s = time.monotonic()
            self._publish(
                command,
                arguments or {},
                destination,
                expected.ticket,
                timeout=timeout,
                reply_queue=expected.queue_name,
                **options,
            )
            until_s = began_s + (1.0 if timeout is None else timeout) + (NEW_QUEUE_S if expected.is_first else 0.0)
            enough = limit or (len(set(destination)) if destination else None)
            known = None if enough or pattern else self._count_listeners(cloud)
            return self._collected(expected, until_s, enough=enough, known=known, callback=callback)

    def _collected(
        self,
        expected: Expected,
        until_s: float,
        *,
        enough: int | None,
        known: int | None,
        callback: Callable[[Reply], None] | None,
    ) -> list[Reply]:
        """Return the replies until there are ``enough``; shortly after the ``known`` have answered; or until the end."""
        replies: list[Reply] = []
        while enough is None or len(replies) < enough:
            if known is not None and len(replies) == known > 0:
                until_s = min(until_s, time.monotonic() + LINGER_S)
            came = expected.next(until_s - time.monotonic())
            if came is None:
                break
            reply, clock = came
            self.clock.adjust(clock)
            if callback is not None:
                callback(reply)
            replies.append(reply)
        return replies

    @classmethod
    def _count_listeners(cls, cloud: Cloud) -> int:
        """Return how many queues of workers are subscribed, as of the last seconds."""
        counted_at, count = cls._counted.get(id(cloud), (float("-inf"), 0))
        if time.monotonic() - counted_at > COUNTED_S:
            count = count_listeners(cloud)
            cls._counted[id(cloud)] = (time.monotonic(), count)
        return count

    @classmethod
    def close_senders(cls) -> None:
        """Send the replies that wait; of a worker that ends."""
        while cls._senders:
            cls._senders.popitem()[1].close(within_s=FLUSH_S)


def _sender_of(cloud: Cloud) -> ReplySender:
    senders = Mailbox._senders
    if id(cloud) not in senders:
        senders[id(cloud)] = ReplySender(cloud)
    return senders[id(cloud)]


def count_listeners(cloud: Cloud) -> int:
    """Return how many queues of workers are subscribed to the topic of commands; 0 when SNS does not say.

    Only to know when waiting is over: those of killed workers are counted until the janitor removes them.
    """
    queues, begins = queues_of(cloud), f"{prefix(cloud.settings.stack)}pidbox-"
    try:
        pages = queues.sns().get_paginator("list_subscriptions_by_topic").paginate(TopicArn=queues.places.topic_arn("control"))
        found = [one["Endpoint"].rpartition(":")[2] for page in pages for one in page.get("Subscriptions", [])]
    except cloud_errors() as error:
        log.debug("uncounted", extra={"reason": str(error)})
        return 0
    return sum(name.startswith(begins) for name in found)


class Control(control.Control):  # type: ignore[misc]
    """Celery's ``app.control`` on this mailbox; what it revokes, a job by its id too, is so for workers born later."""

    Mailbox = Mailbox

    def broadcast(self, command: str, arguments: dict[str, Any] | None = None, **options: Any) -> Any:
        """Broadcast a command; as Celery's, and a revoke is stored first.

        Raises:
            SetupError: remote control is off, and the command is none that lasts.
            StorageUnavailable: S3 does not answer; nothing was broadcast.
            QueueUnavailable: SNS or SQS does not answer.
        """
        if command in _LASTING:
            cloud = get_cloud()
            _store_cancels(cloud, [str(id) for id in maybe_list((arguments or {}).get("task_id")) or ()])
            if not cloud.settings.monitoring:
                # Workers look by themselves for what is cancelled, every few seconds.
                return None
        return super().broadcast(command, arguments, **options)

    def tell(self, command: str, arguments: dict[str, Any], producer: Any) -> None:
        """Broadcast a command over a producer of one's own, and store nothing: who tells has done that.

        Raises:
            MissingResource, QueueUnavailable: SNS does not take it.
        """
        self.mailbox(producer.connection)._publish(command, arguments, producer=producer)


def _store_cancels(cloud: Cloud, ids: list[str]) -> None:
    store = RecordStore(cloud)
    for id in ids:
        if split_task_id(task_id(id, 0)):
            store.cancel_job(id)
        else:
            store.cancel_task(id)
