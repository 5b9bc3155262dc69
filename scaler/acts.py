"""What a leader does to workers that are there: orders to leave, and the end of instances.

Each act stands for itself: one that fails is done again in the next step. None is done without a valid lease.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from irs.errors import PassingError
from scaler.fleet import Ec2, Instance, Throttled
from scaler.launching import Allowance
from scaler.life import DRAINED, FleetNow
from scaler.orders import Orders, Word

log = logging.getLogger(__name__)

#: Orders are compared with what stands in the bucket so often: an earlier leader may have left some.
RECONCILE_S = 60.0
#: What an instance said is kept for so long after its end.
FORGET_S = 3600.0
#: Of a boot that failed, so much of the console is told.
CONSOLE_LINES = 12


class Acts:
    """The acts of one term. ``may_act``: whether this process leads at this very moment."""

    def __init__(
        self, ec2: Ec2, orders: Orders, allowance: Allowance, *, may_act: Callable[[], bool], clock: Callable[[], float]
    ) -> None:
        self._ec2, self._orders, self._allowance, self._may_act, self._clock = ec2, orders, allowance, may_act, clock
        #: By instance; of one that an earlier leader gave only that it stands: "".
        self._standing: dict[str, Word | Literal[""]] = {}
        self._gone_at: dict[str, float] = {}
        self._reconciled_at: float | None = None

    def reconcile(self) -> None:
        """Learn which orders stand, from time to time. Raises StorageUnavailable."""
        now = self._clock()
        if self._reconciled_at is None or now - self._reconciled_at >= RECONCILE_S:
            self._standing = {id: self._standing.get(id, "") for id in self._orders.standing()}
            self._reconciled_at = now

    def order(self, orders: Mapping[str, Word], fleet: FleetNow, *, launch_of: Callable[[str], str], why: str) -> None:
        """Tell workers what ``orders`` has for them, and call all others back that still work."""
        by_word: dict[Word, Callable[..., None]] = {"retire": self._orders.retire, "drain": self._orders.drain}
        able = {one.id for one in fleet.workers if one.phase in ("ready", "stuck")}
        for id, word in sorted(orders.items()):
            # What an earlier leader told stands as it is, but for a drain: it may have been to retire only.
            is_told = self._standing.get(id) == word or (word == "retire" and self._standing.get(id) == "")
            if not is_told and self._do(by_word[word], id, launch=launch_of(id), why=why):
                self._standing[id] = word
        for id in sorted((self._standing.keys() & able) - orders.keys()):
            if self._do(self._orders.revoke, id):
                del self._standing[id]

    def told(self, word: Word) -> frozenset[str]:
        """Return who was told ``word`` in this term."""
        return frozenset(id for id, told in self._standing.items() if told == word)

    def forget(self, gone: Iterable[str]) -> None:
        """Remove, an hour later, what the instances that are gone said and were told."""
        now = self._clock()
        self._gone_at |= dict.fromkeys(gone, now)
        for id in [id for id, at in self._gone_at.items() if now - at >= FORGET_S]:
            if self._do(self._orders.forget, id):
                del self._gone_at[id]
                self._standing.pop(id, None)

    def end(self, finish: Mapping[str, str], fleet: FleetNow, instances: Iterable[Instance], pool: int) -> dict[str, str]:
        """End what is to be ended, the surplus of the stopped pool too; return whom, and why."""
        by_id = {one.id: one for one in instances}
        pooled = len(fleet.stopped) + sum(1 for one in by_id.values() if one.state == "stopping")
        surplus = dict.fromkeys(fleet.stopped[pool:], "the pool is full")
        ended: dict[str, str] = {}
        for id, why in {**finish, **surplus}.items():
            if id not in by_id:
                continue
            # Only what worked well is worth starting again; spot instances cannot be stopped.
            keep = why == DRAINED and by_id[id].pair.market == "on-demand" and pooled < pool
            if self._end(id, why, keep=keep):
                pooled += keep
                ended[id] = why
        return ended

    def tell_failed(self, failed: Iterable[str]) -> None:
        """Log the last words of boots that failed."""
        for id in sorted(failed):
            try:
                said = self._ec2.console(id).strip().splitlines() if self._allowance.take() else []
            except PassingError as error:
                said = [f"(no console: {error})"]
            log.error("boot failed", extra={"instance": id, "console": "\n".join(said[-CONSOLE_LINES:])})

    def _end(self, id: str, why: str, *, keep: bool) -> bool:
        if not self._may_act() or not self._allowance.take():
            return False
        try:
            self._ec2.end(id, keep=keep)
        except PassingError as error:
            if isinstance(error, Throttled):
                self._allowance.backoff.throttled()
            log.warning("instance not ended", extra={"instance": id, "reason": str(error)})
            return False
        self._allowance.backoff.answered()
        log.info("stopped" if keep else "terminated", extra={"instance": id, "why": why})
        return True

    def _do(self, act: Callable[..., None], id: str, **said: str) -> bool:
        if not self._may_act():
            return False
        try:
            act(id, **said)
        except PassingError as error:
            log.warning("order not given", extra={"instance": id, "reason": str(error)})
            return False
        return True
