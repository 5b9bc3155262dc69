"""What the output bucket has for this worker: the order to retire, what was cancelled, the scaler's sign of life.

Read from a thread of its own: no beat waits for an answer of S3, and no image ever.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from irs.cloud import Cloud
from irs.errors import IrsError, NotFound, PassingError
from irs.records import Order, order_key
from irs.worker.cancelled import CancelledIds
from irs.worker.outlive import Outliving
from irs.worker.retire import Retirement

log = logging.getLogger(__name__)

#: While there is work, or an order that may be taken back.
BUSY_S = 5.0
IDLE_S = 15.0
FIRST_PAUSE_S = 1.0


class Directions:
    """Keeps ``cancelled``, ``retirement`` and ``outliving`` up to date: a GET a beat, and a LIST while busy.

    Args:
        launch: the scaler's id of this worker's launch as far as it is known now.
    """

    def __init__(self, cloud: Cloud, *, launch: Callable[[], str | None]) -> None:
        settings = cloud.settings
        self._cloud, self._launch = cloud, launch
        self.cancelled = CancelledIds(cloud)
        self.retirement = Retirement()
        self.outliving = Outliving(cloud, limit_s=settings.outlive_seconds, is_named=settings.is_named)
        self._is_busy = False
        self._asked_at = time.monotonic()
        self._due, self._ended, self._first = threading.Event(), threading.Event(), threading.Event()
        threading.Thread(target=self._keep_reading, name="irs-directions", daemon=True).start()

    def wait_first(self, within_s: float) -> None:
        """Wait until what was cancelled before this worker began is known."""
        if not self._first.wait(within_s):
            log.warning("cancels_unknown", extra={"after_s": within_s})

    def remind(self, *, is_busy: bool) -> None:
        """Let the thread read when it is time to; never blocks."""
        self._is_busy = is_busy
        period_s = BUSY_S if is_busy or self.retirement.order else IDLE_S
        is_due = time.monotonic() - self._asked_at >= period_s or self.outliving.is_due(self._launch())
        if self._first.is_set() and is_due:
            self._asked_at = time.monotonic()
            self._due.set()

    def end(self) -> None:
        """Read no more."""
        self._ended.set()
        self._due.set()

    def _keep_reading(self) -> None:
        while not self._try(self.cancelled.refresh):
            if self._ended.wait(FIRST_PAUSE_S):
                return
        self._first.set()
        # The order too: it may be older than this process.
        self._try(self._read_order)
        while not self._ended.is_set():
            self._due.wait()
            self._due.clear()
            if self._ended.is_set():
                return
            self._try(self._read_order)
            if self._is_busy:
                self._try(self.cancelled.refresh)
            if self.outliving.is_due(self._launch()):
                self._try(self.outliving.look)

    def _read_order(self) -> None:
        key = order_key(self._cloud.settings.instance_id)
        try:
            order = Order.from_json(self._cloud.output.get(key))
        except NotFound:
            self.retirement.follow(None)
        except ValueError as error:
            log.warning("order_unread", extra={"key": key, "reason": str(error).splitlines()[0]})
        else:
            self.retirement.follow(order if order.is_for(self._launch()) else None)

    def _try(self, read: Callable[[], None]) -> bool:
        """Return whether there was an answer; a refusal is one, for asking again would bring the same."""
        try:
            read()
        except PassingError as error:
            log.warning("directions_lost", extra={"reason": str(error)})
            return False
        except IrsError as error:
            log.warning("directions_refused", extra={"reason": str(error)})
        except Exception:  # the edge of a main loop: what one answer does must not end reading
            log.exception("directions_unread")
        return True
