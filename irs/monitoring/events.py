"""Celery's events over SNS: in batches, from a thread of their own, and of tasks only while somebody watches.

Whoever watches takes out a lease of a minute (``enable_events``) and renews it; a worker whose lease has ended says
nothing but its heartbeat.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections import Counter
from dataclasses import dataclass
from typing import Any

from celery.app import events
from celery.events.dispatcher import EventDispatcher
from celery.events.event import group_from
from celery.events.receiver import EventReceiver

from irs.errors import IrsError
from irs.monitoring.outbox import Event, Outbox

log = logging.getLogger(__name__)

LEASE_S = 60.0
#: A lease is renewed well before its end: a command may be lost.
RENEW_S = 20.0
#: Between two heartbeats, of a worker that is watched and of one that is not.
WATCHED_BEAT_S, UNWATCHED_BEAT_S = 10.0, 30.0
FLUSH_S = 2.0
_AT_ONCE = frozenset(("worker-online", "worker-offline"))


@dataclass(frozen=True, slots=True)
class EventCounts:
    """Events of this process; ``lease_s``: how long somebody still watches."""

    sent: int
    dropped: int
    lease_s: float


#: That are open; what closed ones sent and dropped is added up in ``_closed``.
_living: weakref.WeakSet[Dispatcher] = weakref.WeakSet()
_closed: Counter[str] = Counter()


def read_events() -> EventCounts:
    """Return what the dispatchers of this process have done."""
    living = list(_living)
    return EventCounts(
        sent=_closed["sent"] + sum(one.outbox.sent for one in living),
        dropped=_closed["dropped"] + sum(one.outbox.dropped for one in living),
        lease_s=max((max(0.0, one.watched_until - time.monotonic()) for one in living), default=0.0),
    )


class Dispatcher(EventDispatcher):  # type: ignore[misc]
    """A worker's events. Sending one never blocks; of tasks nothing is sent without a lease.

    Attributes:
        watched_until: end of the lease, by ``time.monotonic``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.watched_until = 0.0
        self._beat_at = float("-inf")
        self._left: list[Event] = []
        self.outbox = Outbox(self._publish_batch)
        super().__init__(*args, **kwargs)
        _living.add(self)

    @property
    def is_watched(self) -> bool:
        """Whether a lease runs."""
        return time.monotonic() < self.watched_until

    def watch(self, lease_s: float = LEASE_S) -> None:
        """Send events of tasks for so long from now."""
        self.watched_until = time.monotonic() + lease_s

    def unwatch(self) -> None:
        """Send no more events of tasks."""
        self.watched_until = 0.0

    def beat_soon(self) -> None:
        """Let the next heartbeat pass, however soon it comes."""
        self._beat_at = float("-inf")

    def send(self, type: str, blind: bool = False, *_: Any, **fields: Any) -> None:
        """Queue an event, unless nobody wants it."""
        if not self.enabled or (group_from(type) == "task" and not self.is_watched):
            return
        if type == "worker-heartbeat":
            period_s = WATCHED_BEAT_S if self.is_watched else UNWATCHED_BEAT_S
            # Celery's timer goes at its own pace, which a watcher may not need.
            if time.monotonic() - self._beat_at < 0.9 * period_s:
                return
            self._beat_at, fields["freq"] = time.monotonic(), period_s
        for option in ("utcoffset", "retry", "retry_policy", "Event"):
            fields.pop(option, None)
        self.outbox.put(self._prepare_event(type, fields, blind=blind), at_once=type in _AT_ONCE)

    def flush(self, *_: Any, **__: Any) -> None:
        """Do nothing: what waits is published by its own thread."""

    def extend_buffer(self, other: Dispatcher) -> None:
        """Take over the lease, and what the dispatcher before could not publish."""
        self.watched_until = other.watched_until
        for event in other._left:
            self.outbox.put(event)

    def enable(self) -> None:
        """Begin, or begin again after :meth:`close`."""
        if self.outbox.is_closed:
            self.outbox = Outbox(self._publish_batch)
        _living.add(self)
        super().enable()

    def close(self) -> None:
        """Publish what waits, for 2 s at most."""
        self._left += self.outbox.close(within_s=FLUSH_S)
        if self in _living:
            _living.discard(self)
            _closed.update(sent=self.outbox.sent, dropped=self.outbox.dropped)
        super().close()

    def _publish_batch(self, batch: list[Event]) -> None:
        with (
            self.app.connection_for_write() as connection,
            self.app.amqp.Producer(connection, auto_declare=False) as producer,
        ):
            producer.publish(
                batch,
                exchange=self.exchange.name,
                routing_key="task.multi",
                declare=[self.exchange],
                serializer=self.serializer,
                # A tenth in length: SNS takes 256 KiB, and bills each 64.
                compression="zlib",
                headers=self.headers,
                retry=False,
            )


class Receiver(EventReceiver):  # type: ignore[misc]
    """Who watches: renews its lease, and asks SQS once in 20 s while nothing happens."""

    _renewed_at = float("-inf")

    def capture(self, limit: int | None = None, timeout: float | None = None, wakeup: bool = True) -> None:
        """Hand events to the handlers, until ``should_stop``."""
        for _ in self.itercapture(limit=limit, timeout=timeout, wakeup=wakeup):
            pass

    def itercapture(self, limit: int | None = None, timeout: float | None = None, wakeup: bool = True) -> Any:
        """As :meth:`capture`, one step a batch."""
        interval_s = min(RENEW_S, timeout) if timeout else RENEW_S
        return self.consume(limit=limit, timeout=timeout, safety_interval=interval_s, wakeup=wakeup)

    def on_consume_ready(self, *args: Any, **kwargs: Any) -> None:
        """Say that somebody watches, and ask all workers for a sign of life."""
        self.renew()
        super().on_consume_ready(*args, **kwargs)

    def on_iteration(self) -> None:
        """Renew the lease when it is due."""
        if time.monotonic() - self._renewed_at >= 0.9 * RENEW_S:
            self.renew()

    def renew(self) -> None:
        """Ask all workers for events of tasks, for a minute from now."""
        self._renewed_at = time.monotonic()
        try:
            self.app.control.enable_events()
        except IrsError as error:
            log.warning("lease_unrenewed", extra={"reason": str(error)})


class Events(events.Events):  # type: ignore[misc]
    """Celery's ``app.events`` on these classes."""

    receiver_cls = "irs.monitoring.events:Receiver"
    dispatcher_cls = "irs.monitoring.events:Dispatcher"
