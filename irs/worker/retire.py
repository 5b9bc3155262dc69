"""The order to leave: to retire, when there are no images, or to drain, with those in hand."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from irs import broker
from irs.broker import Health
from irs.records import Order

log = logging.getLogger(__name__)

#: Under the order long polls are short, so that the end of the queue is soon noticed.
POLL_S = 1
#: Idle for so long, and the queue seen empty since: nothing is left to do.
IDLE_S = 1.0


class Retirement:
    """What is known of the order; it can be taken back until the worker has left. Times are those of ``clock``."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.order: Order | None = None
        self._ordered_at = 0.0

    def follow(self, order: Order | None) -> None:
        """Begin to retire, or go back to work; told the same again it changes nothing."""
        if order is not None and self.order is None:
            self._ordered_at = self._clock()
            broker.hasten(POLL_S)
            log.info("retiring", extra={"why": order.why})
        elif order is None and self.order is not None:
            broker.relax()
            log.info("not_retiring", extra={"after_s": round(self._clock() - self._ordered_at, 1)})
        self.order = order

    def is_over(self, health: Health, *, idle_since: float | None) -> bool:
        """Whether the worker leaves: told to drain, or to retire, idle, and no message in a whole receive since both."""
        if self.order is not None and self.order.order == "drain":
            return True
        if self.order is None or idle_since is None or health.held or health.emptied_at is None:
            return False
        return self._clock() - idle_since >= IDLE_S and health.emptied_at >= max(idle_since, self._ordered_at)
