"""Poller threads: long polls that never end consumption, whatever SQS answers.

kombu polls in a chain of callbacks that the first failed or hanging poll breaks for good. Here each poller is
a loop of its own, with time-outs, back-off, and a watchdog that replaces it should it fall silent.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from irs.broker.receive import Receiver
from irs.errors import QueueUnavailable

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
#: An empty answer this much before the end of its long poll is a fault, not an empty queue.
HASTY_S = 0.5
HASTY_PAUSE_S = 0.25
#: Failing this long is told as unhealthy; shorter is a hiccup.
UNHEALTHY_AFTER_S = 5.0
#: Beyond a long poll's length: a poller not heard of for longer is replaced.
SILENT_S = 30.0


class Poller:
    """One polling thread of one queue.

    Args:
        receiver: makes the connection, in the thread itself.
        room: blocks until messages may be taken; returns how many, reserved, or 0 when polling is over.
        on_messages: takes what came, out of so many reserved, with the time (monotonic) before the call.
        on_empty: told that SQS had no message during a whole long poll.
        wait_s: asked before each receive: how long it may wait for a message.
    """

    def __init__(
        self,
        url: str,
        number: int,
        *,
        receiver: Callable[[], Receiver],
        room: Callable[[int], int],
        on_messages: Callable[[list[dict[str, Any]], int, float], None],
        on_empty: Callable[[], None],
        wait_s: Callable[[], int],
        visibility_s: int,
    ) -> None:
        self.url, self.number = url, number
        self._receiver, self._room, self._on_messages, self._on_empty = receiver, room, on_messages, on_empty
        self._ask_wait_s, self._visibility_s = wait_s, visibility_s
        #: Of the receive under way.
        self._wait_s = wait_s()
        self._generation = 0
        self._heard_at = time.monotonic()
        self._failing_since: float | None = None
        self._is_waiting_for_room = False
        self._thread = self._start()

    @property
    def is_ok(self) -> bool:
        """Whether it is heard of, and SQS answers it."""
        failing_s = time.monotonic() - self._failing_since if self._failing_since is not None else 0.0
        return failing_s < UNHEALTHY_AFTER_S and not self._is_silent()

    def watch(self) -> None:
        """Replace the thread if it is not heard of. A late answer of the old one is still handed on."""
        if self._is_silent() or not self._thread.is_alive():
            log.error("poller_replaced", extra={"url": self.url, "poller": self.number})
            self._thread = self._start()

    def join(self, within_s: float) -> bool:
        """Wait for the end of its last poll; False if it does not come."""
        self._thread.join(within_s)
        return not self._thread.is_alive()

    def _start(self) -> threading.Thread:
        self._generation += 1
        self._heard_at = time.monotonic()
        thread = threading.Thread(target=self._run, args=(self._generation,), name=f"irs-poller-{self.number}", daemon=True)
        thread.start()
        return thread

    def _is_silent(self) -> bool:
        return not self._is_waiting_for_room and time.monotonic() - self._heard_at > self._wait_s + SILENT_S

    def _run(self, generation: int) -> None:
        pause_s = FIRST_PAUSE_S
        receiver: Receiver | None = None
        while generation == self._generation:
            self._is_waiting_for_room = True
            count = self._room(self.number)
            self._is_waiting_for_room = False
            self._heard_at = asked_at = time.monotonic()
            if not count:
                break
            messages: list[dict[str, Any]] = []
            self._wait_s = self._ask_wait_s()
            try:
                receiver = receiver or self._receiver()
                messages = receiver.receive(self.url, count=count, wait_s=self._wait_s, visibility_s=self._visibility_s)
                fault = None
            except Exception as error:  # the edge of a main loop: no poll may end polling
                fault = error
            self._heard_at = time.monotonic()
            try:
                # Always, also with nothing: what was reserved and did not come is free again.
                self._on_messages(messages, count, asked_at)
            except Exception:  # the edge of a main loop: a message that is none must not end polling
                log.exception("not_messages", extra={"url": self.url})
            if fault is None:
                self._failing_since = None
                pause_s = FIRST_PAUSE_S
                if not messages and self._heard_at - asked_at < max(HASTY_PAUSE_S, self._wait_s - HASTY_S):
                    time.sleep(HASTY_PAUSE_S)
                elif not messages:
                    self._on_empty()
                continue
            if self._failing_since is None:
                self._failing_since = asked_at
            # Our own errors say all in their sentence; anything else is ours to mend and needs its traceback.
            log.warning("poll_failed", extra={"reason": str(fault)}, exc_info=not isinstance(fault, QueueUnavailable) and fault)
            time.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 (jitter)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        if receiver is not None:
            receiver.close()
