"""Leases: every message in hand stays invisible to others until it is deleted or handed back.

The visibility timeout is short (30 s), so that a killed worker's images come back soon, and is renewed here
for as long as the message is held: waiting, running, or finished and not yet deleted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)

#: Renewed when less than this share of the visibility timeout is left.
RENEW_BELOW = 0.6
#: Finished messages remembered, so that one that comes back is deleted and not run.
FINISHED_REMEMBERED = 20_000


@dataclass(slots=True, eq=False)
class Lease:
    """The hold on one message. Times are of ``time.monotonic``.

    Attributes:
        tag: its first receipt handle, kombu's delivery tag.
        handle: its latest receipt handle: a message that came again while it was held has a new one.
        until: when others may see it.
        done_at: when its task ended and its delete was asked for; 0 before.
        hide_s: set when it was handed back: how long it stays hidden from then on.
        is_capped: held longer than a message may be held; others may have it.
        is_lost: SQS did not know the hold any more; others may have it, and an acknowledgement still deletes it.
    """

    url: str
    message_id: str
    tag: str
    receives: int
    since: float
    until: float
    handle: str = ""
    done_at: float = 0.0
    hide_s: int | None = None
    is_capped: bool = False
    is_lost: bool = False


class Leases:
    """All messages that one consumer holds. Safe for threads.

    Args:
        extend: makes messages of one queue invisible for ``visibility_s`` from now; returns those it cannot
            hold any more. Raises when SQS does not answer.
        max_lease_s: a message held longer is left to others: its task hangs.
    """

    def __init__(self, extend: Callable[[list[Lease]], list[Lease]], *, visibility_s: float, max_lease_s: float) -> None:
        self._extend = extend
        self._visibility_s, self._max_lease_s = visibility_s, max_lease_s
        self._by_id: dict[str, Lease] = {}
        self._by_tag: dict[str, Lease] = {}
        self._finished: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def stuck(self) -> int:
        """Messages held longer than the cap."""
        return sum(lease.is_capped for lease in list(self._by_id.values()))

    def hold(self, lease: Lease) -> bool:
        """Take hold of a received message; False if it is held already, then with its new handle."""
        lease.handle = lease.tag
        with self._lock:
            if held := self._by_id.get(lease.message_id):
                held.handle, held.until, held.is_lost = lease.handle, lease.until, False
                return False
            self._by_id[lease.message_id] = self._by_tag[lease.tag] = lease
            return True

    def find(self, tag: str) -> Lease | None:
        """Return the lease of a delivery tag."""
        return self._by_tag.get(tag)

    def finish(self, lease: Lease) -> None:
        """Remember that the message is done; its lease goes on until :meth:`drop`."""
        with self._lock:
            self._finished[lease.message_id] = None
            while len(self._finished) > FINISHED_REMEMBERED:
                self._finished.popitem(last=False)

    def is_finished(self, message_id: str) -> bool:
        """Whether the message was done here before."""
        return message_id in self._finished

    def drop(self, lease: Lease) -> None:
        """Let go: the message is deleted, or others may have it."""
        with self._lock:
            if self._by_id.get(lease.message_id) is lease:
                del self._by_id[lease.message_id]
            self._by_tag.pop(lease.tag, None)

    def renew(self) -> None:
        """Extend what is due; what SQS does not answer for is tried again in the next round."""
        now = time.monotonic()
        due: dict[str, list[Lease]] = {}
        for lease in list(self._by_id.values()):
            if lease.hide_s is not None or lease.is_lost or lease.until - now > RENEW_BELOW * self._visibility_s:
                continue
            if now - lease.since > self._max_lease_s:
                # A finished one waits for its delete alone: its task does not hang.
                if not lease.is_capped and not self.is_finished(lease.message_id):
                    lease.is_capped = True
                    log.error("lease_capped", extra={"message_id": lease.message_id, "held_s": round(now - lease.since)})
                continue
            due.setdefault(lease.url, []).append(lease)
        for leases in due.values():
            for start in range(0, len(leases), 10):
                self._renew(leases[start : start + 10])

    def _renew(self, leases: list[Lease]) -> None:
        asked_at = time.monotonic()
        try:
            lost = self._extend(leases)
        except Exception as error:  # the edge of a main loop: one queue that fails must not keep the others waiting
            log.warning("renewal_failed", extra={"reason": str(error)})
            return
        for lease in leases:
            if lease in lost:
                # Others may have it now; the task goes on, and the first record stands.
                log.warning("lease_lost", extra={"message_id": lease.message_id})
                lease.is_lost = True
            else:
                lease.until = asked_at + self._visibility_s
