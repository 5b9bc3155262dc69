"""Events on their way: gathered in memory, published in batches by a thread of their own."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from kombu.exceptions import EncodeError

from irs.errors import BadOptions

log = logging.getLogger(__name__)

Event = dict[str, Any]

#: Watchers see what happened at most so much later.
INTERVAL_S = 2.0
MOST_EVENTS = 400
#: While SNS is away the oldest are dropped beyond it.
MOST_WAITING = 20_000
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0


class Outbox:
    """Events that wait to be published. ``put`` costs an append: nothing that sends events ever waits for SNS.

    Args:
        publish: publishes one batch; whatever it raises, the batch is tried again: in halves if it is too long or
            holds what cannot be written out.

    Attributes:
        sent, dropped: events published, and given up.
    """

    def __init__(self, publish: Callable[[list[Event]], None], *, interval_s: float = INTERVAL_S) -> None:
        self._publish, self._interval_s = publish, interval_s
        self._waiting: deque[Event] = deque()
        self._changed = threading.Condition()
        self._is_urgent = self._is_closing = False
        self._since_s = 0.0
        self._thread: threading.Thread | None = None
        self.sent = self.dropped = 0

    @property
    def is_closed(self) -> bool:
        """Whether it takes no more events."""
        return self._is_closing

    def put(self, event: Event, *, at_once: bool = False) -> None:
        """Queue an event; never blocks, never raises."""
        with self._changed:
            if self._is_closing:
                return
            if not self._waiting:
                self._since_s = time.monotonic()
            self._waiting.append(event)
            if len(self._waiting) > MOST_WAITING:
                self._waiting.popleft()
                self.dropped += 1
            self._is_urgent = self._is_urgent or at_once
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="irs-events", daemon=True)
                self._thread.start()
            # Between the first and the last of a batch the thread has nothing to decide.
            if at_once or len(self._waiting) in (1, MOST_EVENTS):
                self._changed.notify()

    def close(self, *, within_s: float) -> list[Event]:
        """Publish what waits, for at most ``within_s``; return what is left."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(within_s)
        with self._changed:
            left = list(self._waiting)
            self._waiting.clear()
            return left

    def _work(self) -> None:
        pause_s = FIRST_PAUSE_S
        while batch := self._take():
            if self._try(batch):
                pause_s = FIRST_PAUSE_S
                continue
            with self._changed:
                self._waiting.extendleft(reversed(batch))
                if self._is_closing:
                    return
                self._changed.wait_for(lambda: self._is_closing, pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _take(self) -> list[Event]:
        """Return a batch as soon as it is due; none when it is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closing)
            self._changed.wait_for(self._is_due, max(0.0, self._since_s + self._interval_s - time.monotonic()))
            self._is_urgent = False
            batch = [self._waiting.popleft() for _ in range(min(MOST_EVENTS, len(self._waiting)))]
            self._since_s = time.monotonic()
            return batch

    def _is_due(self) -> bool:
        return self._is_urgent or self._is_closing or len(self._waiting) >= MOST_EVENTS

    def _try(self, batch: list[Event]) -> bool:
        try:
            self._publish(batch)
            self.sent += len(batch)
        except (BadOptions, EncodeError) as error:
            if len(batch) == 1:
                log.warning("event_dropped", extra={"type": batch[0].get("type"), "reason": str(error)})
                self.dropped += 1
                return True
            middle = len(batch) // 2
            return self._try(batch[:middle]) and self._try(batch[middle:])
        except Exception as error:  # the edge of a main loop: SNS comes back, or the oldest are dropped
            log.warning("events_held", extra={"events": len(batch), "reason": str(error)})
            return False
        return True
