"""Scalers in a town: the production loop with its own clock, over one shared store; paused, killed, begun anew."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

from town import ON_DEMAND, SPOT, WALL, Town, TownEc2

from irs.errors import StorageUnavailable
from scaler import ScalerSettings
from scaler.book import Book
from scaler.lease import Lease
from scaler.loop import Loop, Plan, Step
from scaler.prices import Prices
from scaler.signals import Beats, Counts, Reading
from scaler.store import Conflict, Stored

PERIOD_S = 5


class Killed(BaseException):
    """The process ends here."""


class TownStore:
    """One object with conditional writes, as text; every scaler of the town shares it."""

    def __init__(self, town: Town) -> None:
        self._town = town
        self.text: str | None = None
        self.version = 0
        self.is_down = False

    def read(self, now: float) -> Stored | None:
        self._town.before_call("read")
        self._strike()
        if self.text is None:
            return None
        return Stored(Book.from_json(json.loads(self.text), now), str(self.version))

    def write(self, book: Book, etag: str | None, now: float) -> str:
        self._town.before_call("write")
        self._strike()
        if etag != (None if self.text is None else str(self.version)):
            raise Conflict("another write came first")
        self.text = json.dumps(book.to_json(now))
        self.version += 1
        self._town.sign_of_life_at = self._town.t
        self._town.before_call("written")
        self._strike()
        return str(self.version)

    def _strike(self) -> None:
        if self.is_down or self._town.chance.random() < self._town.faults.unstored:
            raise StorageUnavailable("no answer")


class TownSignals:
    """The town's queue and beats, as one scaler follows them."""

    def __init__(self, town: Town) -> None:
        self._town, self._beats = town, Beats()

    def read(self, *, now: float, wall: float, stuck_after_s: float) -> Reading:
        town = self._town
        lost = town.chance.random() < town.faults.lost_reading
        if lost and town.chance.random() < 0.5:
            raise StorageUnavailable("no answer")
        beats = [one.beat for one in town.machines.values() if one.beat is not None]
        # Beats are read, and EC2 answers: the queue alone cannot be counted.
        lost = lost or town.chance.random() < town.faults.uncounted
        counts = Counts() if lost else Counts(town.visible, town.inflight, town.delayed)
        return self._beats.observe(beats, counts, now=now, wall=wall, stuck_after_s=stuck_after_s)


class TownOrders:
    """Orders to the town's workers."""

    def __init__(self, town: Town) -> None:
        self._town = town

    def standing(self) -> set[str]:
        return set(self._town.orders)

    def retire(self, id: str, *, launch: str, why: str) -> None:
        self._town.before_call("retire")
        self._town.orders[id] = why

    def drain(self, id: str, *, launch: str, why: str) -> None:
        self._town.before_call("drain")
        self._town.orders[id] = why
        self._town.drains.add(id)

    def revoke(self, id: str) -> None:
        self._town.before_call("revoke")
        self._town.orders.pop(id, None)
        self._town.drains.discard(id)

    def forget(self, id: str) -> None:
        self._town.orders.pop(id, None)
        self._town.drains.discard(id)
        if id in self._town.machines:
            self._town.machines[id].beat = None


class Scalers:
    """Some scalers of one town; each has a clock of its own, none of them right."""

    def __init__(
        self,
        town: Town,
        *,
        number: int = 1,
        store: TownStore | None = None,
        pool: int = 0,
        prices: Prices | None = None,
        **changes: object,
    ) -> None:
        self.town, self.store = town, store or TownStore(town)
        settings = ScalerSettings(cap=town.cap, slots=town.slots, rate_per_s=town.slots / town.service_s, boot_s=40.0)
        policy = replace(settings, **{"candidates": (SPOT, ON_DEMAND), **changes})  # type: ignore[arg-type]
        priced = Prices(first=policy.candidates[0], per_hour=1.0) if prices is None else prices
        self.plan = Plan(policy=policy, policy_name="balanced", fleet="town", pool=pool, prices=priced)
        self.wall_jump_s = [0.0] * number
        self._starts = itertools.count(1)
        self.loops = [self._begin(n) for n in range(number)]
        self.steps: list[Step] = []
        self.acting: int | None = None
        self.paused_until = [0] * number

    def _begin(self, n: int) -> Loop:
        start, town = next(self._starts), self.town
        offset = 1_000_003.0 * start

        def clock() -> float:
            return town.t + offset

        return Loop(
            self.plan,
            lease=Lease(self.store, holder=f"scaler-{n}", ttl_s=15.0, nonce=lambda: f"{start}-{town.t}", clock=clock),
            ec2=TownEc2(town),
            signals=TownSignals(town),
            orders=TownOrders(town),
            clock=clock,
            wall=lambda: WALL + town.t + self.wall_jump_s[n],
            current_model=lambda: town.model,
        )

    def restart(self, n: int = 0) -> None:
        """The process is gone at once, and another begins."""
        self.loops[n] = self._begin(n)

    def step(self, n: int = 0) -> Step:
        before, self.acting = self.acting, n
        try:
            step = self.loops[n].step()
        finally:
            self.acting = before
        self.steps.append(step)
        return step

    def run(self, seconds: int) -> None:
        """Let time pass; each scaler steps every five seconds unless it is paused."""
        for _ in range(seconds):
            for n in range(len(self.loops)):
                if (self.town.t + n) % PERIOD_S == 0 and self.town.t >= self.paused_until[n]:
                    self.step(n)
            self.town.pass_s()

    def run_until_rest(self, within_s: int = 7200) -> None:
        """Let time pass until all images are done and no machine is left; fail after ``within_s``."""
        end = self.town.t + within_s
        while not (self.town.is_done and not self.town.live):
            assert self.town.t < end, (
                f"{self.town.handed_in - len(self.town.records)} images, {len(self.town.live)} machines left"
            )
            self.run(PERIOD_S)

    @property
    def kinds(self) -> list[str]:
        """The kinds of all decisions so far."""
        return [step.decision.kind for step in self.steps]
