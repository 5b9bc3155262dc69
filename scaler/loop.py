"""The loop: read, decide, write it down, act. One loop for production, tests and the simulator.

Clock, EC2, store, signals and orders are given to it. Nothing is done that is not written first, and nothing is written
by who does not lead: the write of each step is the renewal of the lease.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from irs.errors import PassingError
from scaler import measure, money
from scaler.acts import Acts
from scaler.book import Book, Said
from scaler.fleet import Ec2, Instance, Throttled
from scaler.launching import Allowance, Backoff, Launching
from scaler.lease import Lease
from scaler.life import FleetNow, Heard, Life, kind_of
from scaler.limits import next_place
from scaler.observation import ANYWHERE, Observation, Pair, Worker
from scaler.orders import Orders, Word
from scaler.policy import Decision, Kind, decide, held_back, unseeing
from scaler.prices import Prices
from scaler.rollout import Rollout
from scaler.settings import ScalerSettings
from scaler.signals import STUCK_S, Signals
from scaler.state import State

log = logging.getLogger(__name__)

#: A worker that finished nothing for so many times as it takes for one image is stuck, if that is longer.
STUCK_IMAGES = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the loop is told: the policy's settings and how instances are had.

    Attributes:
        fleet: name of the fleet; begins each launch id.
        pool: instances that are stopped rather than ended; they start sooner.
        prices: what an hour of an instance costs.
        dry: decide and tell, change nothing.
    """

    policy: ScalerSettings
    policy_name: str
    fleet: str
    pool: int = 0
    prices: Prices = field(default_factory=Prices)
    dry: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one step came to; ``fleet`` and ``seen`` are None where nothing could be read or another leads."""

    leads: bool
    decision: Decision
    now: float
    seen: Observation | None = None
    fleet: FleetNow | None = None
    book: Book | None = None
    launched: int = 0
    ended: Mapping[str, str]


@dataclass(slots=True)
class _Term:
    """What a leader remembers beside the book, from the moment it leads."""

    acts: Acts
    life: Life = field(default_factory=Life)
    looked_at: float | None = None
    rollout: Rollout = field(default_factory=Rollout)
    launches_from: float = float("inf")


class Loop:
    """One scaler. ``plan`` may be replaced between two steps: a lower cap sends the surplus home, it ends nobody.

    Args:
        clock: monotonic seconds.
        wall: Unix seconds, for ages and the day of the budget alone.
        current_model: digest of what workers shall serve, None where they keep what they have.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        lease: Lease,
        ec2: Ec2,
        signals: Signals,
        orders: Orders,
        clock: Callable[[], float],
        wall: Callable[[], float],
        current_model: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.plan, self._lease, self._ec2, self._signals, self._orders = plan, lease, ec2, signals, orders
        self._clock, self._wall, self._current_model = clock, wall, current_model
        self._allowance, self._looks = Allowance(clock), Backoff(clock)
        self._book: Book | None = None
        self._term = self._new_term()

    @property
    def leads(self) -> bool:
        """Whether this process holds the lease now."""
        return self._lease.is_valid()

    @property
    def epoch(self) -> int:
        """The epoch that this process leads, or led last."""
        return self._lease.epoch

    def step(self) -> Step:
        """Take the lease if it is free; if this process leads, read, decide, write and act once. Never raises a fault
        of the cloud: such a step does nothing."""
        try:
            if self._book is None or not (self.plan.dry or self._lease.is_valid()):
                found = self._lease.acquire()
                # A new leader knows nothing but the book.
                self._book, self._term = None, self._new_term()
                if found is None:
                    return self._not_leader(f"{self._lease.other.holder or 'another scaler'} leads")
                self._book, was_there = found
                # A fleet may stand that an unknown predecessor launched for the images that wait now.
                self._term.launches_from = self._clock() + (0.0 if was_there else 2 * self.plan.policy.period_s)
            return self._lead(self._book)
        except PassingError as error:
            log.warning("step failed", extra={"reason": str(error)})
            return self._blind(str(error))

    def close(self) -> None:
        """Hand the lease on: a successor may take it at once. No instance is touched."""
        if self._book is not None:
            self._lease.release(self._book)
        self._book = None

    # One step of the leader

    def _lead(self, book: Book) -> Step:
        policy, acts = self.plan.policy, self._term.acts
        try:
            instances = self._describe()
            rate = measure.rate_per_s(book.policy, policy, by_busy_time=book.policy.busy_s is not None)
            reading = self._signals.read(
                now=self._clock(), wall=self._wall(), stuck_after_s=max(STUCK_S, STUCK_IMAGES / max(rate, 1e-3))
            )
            if not self.plan.dry:
                acts.reconcile()
        except PassingError as error:
            return self._keep_only_the_lease(book, str(error))
        now = self._clock()
        boot_s = measure.boot_time_s(book.policy, policy, self._next_kind(book, now))
        launches = {intent.launch for intent in book.intents}
        known = book.known | {one.id for one in instances if one.launch in launches}
        # One of the pool has the tag of the launch that it came of at first.
        known |= {id for intent in book.intents for id in intent.ids}
        fleet = self._term.life.look(
            instances, reading.heard, book.intents,
            remembered=known, ending=book.ending, now=now, wall=self._wall(), boot_s=boot_s,
        )  # fmt: skip
        book = self._after_look(book, fleet, instances, known, now)
        # Known from here on, whatever becomes of this step: what has ended is told once.
        self._book, self._term.looked_at = book, now
        if not self.plan.dry:
            acts.forget(fleet.gone)
        seen = replace(
            reading.observation,
            workers=self._priced(fleet, instances),
            boots=fleet.boots,
            next_kind=self._next_kind(book, now, has_pool=bool(fleet.stopped)),
            next_price=self.plan.prices.weight(self._next_place(book, now)),
            capacity_blocks=book.limits.blocked_until(policy.candidates, now),
            spent_today_usd=book.money.usd,
        )
        decision = self._limited(decide(seen, book.policy, policy, now), fleet, book, now)
        decision, drain = self._rolled(decision, seen, reading.heard, fleet, book)
        finish = {**fleet.finish, **dict.fromkeys(decision.cancel, "its boot is not needed any more")}
        book = replace(
            book,
            policy=decision.state,
            ending=finish,
            said=Said(
                wall=self._wall(), kind=decision.kind, reason=decision.reason, policy=self.plan.policy_name,
                cap=policy.cap, numbers=decision.numbers,
            ),
        )  # fmt: skip
        if self.plan.dry:
            self._book = book
            return self._step(decision, now, seen, fleet, book, {})
        launching = self._launching()
        asked = {intent.launch for intent in book.intents}
        book = launching.wish(book, decision.launch, fleet.stopped, decision.reason) if decision.launch else book
        if not self._store(book):
            return self._unsure(decision, now)
        if decision.kind not in ("stale-reading", "blind"):
            orders: dict[str, Word] = {**dict.fromkeys(decision.retire, "retire"), **dict.fromkeys(drain, "drain")}
            acts.order(orders, fleet, launch_of=self._term.life.launch_of, why=decision.reason)
        ended = acts.end(finish, fleet, instances, self.plan.pool)
        # Boots that failed are read of after they were told to end: their last words come late.
        acts.tell_failed(fleet.failed)
        live = sum(1 for one in instances if one.state in ("pending", "running", "stopping"))
        self._book = launching.act(book, live)
        launched = sum(intent.count for intent in self._book.intents if intent.launch not in asked)
        return self._step(decision, now, seen, fleet, self._book, ended, launched)

    def _describe(self) -> list[Instance]:
        if not self._looks.is_over():
            raise Throttled("EC2 was asked too often, and is left alone for a while")
        try:
            instances = self._ec2.describe()
        except Throttled:
            self._looks.throttled()
            raise
        self._looks.answered()
        return instances

    def _after_look(self, book: Book, fleet: FleetNow, instances: list[Instance], known: frozenset[str], now: float) -> Book:
        limits = book.limits.after_boots(failed=len(fleet.failed), succeeded=len(fleet.boots), now=now)
        for pair in fleet.notices:
            limits = limits.after_notice(pair, now)
        running = [self.plan.prices.of(one.pair) for one in instances if one.state in ("pending", "running")]
        since_s = None if self._term.looked_at is None else now - self._term.looked_at
        booting = {worker.id for worker in fleet.workers if worker.phase == "booting"}
        spent = money.added(book.money, running, wall=self._wall(), since_s=since_s)
        return replace(book, limits=limits, intents=fleet.intents, known=frozenset(known & booting), money=spent)

    def _limited(self, decision: Decision, fleet: FleetNow, book: Book, now: float) -> Decision:
        """Return the decision with no more launches than quota, breaker and a fresh start allow."""
        if not decision.launch:
            return decision
        if now < self._term.launches_from:
            reason = (
                f"Launch none yet: {decision.launch} are wanted, and it is not known yet what an earlier scaler has launched."
            )
            return replace(decision, launch=0, kind="adopting", reason=reason)
        waiting = fleet.count("requested", "booting")
        room = book.limits.room(now, live=len(fleet.workers), booting=waiting)
        if decision.launch <= room.launches:
            return decision
        kind: Kind = "breaker" if book.limits.is_broken else "quota"
        wish = f"{decision.launch} more {'is' if decision.launch == 1 else 'are'} wanted"
        said = f"Launch {room.launches or 'none'}: {wish}, and {room.why}."
        return replace(decision, launch=room.launches, kind=kind, reason=said)

    def _rolled(
        self, decision: Decision, seen: Observation, heard: Mapping[str, Heard], fleet: FleetNow, book: Book
    ) -> tuple[Decision, frozenset[str]]:
        """Return the decision with what a new model asks for, and who shall drain for it."""
        live, now = len(fleet.workers), self._clock()
        room, after = (book.limits.room(now, live=number, booting=0).launches for number in (live, live - 1))
        return self._term.rollout.follow(
            decision,
            seen,
            serving={id: said.model for id, said in heard.items() if said.model},
            current=self._current_model(),
            told=self._term.acts.told("drain"),
            # Whether who leaves could be replaced: with it gone the quota has room for another.
            may_launch=after > 0 and held_back(seen, self.plan.policy, now) is None,
            has_failed=bool(fleet.failed),
            cap=min(self.plan.policy.cap, live + room),
        )

    def _priced(self, fleet: FleetNow, instances: list[Instance]) -> tuple[Worker, ...]:
        weights = {one.id: self.plan.prices.weight(one.pair) for one in instances}
        return tuple(replace(worker, price=weights.get(worker.id, 1.0)) for worker in fleet.workers)

    def _next_place(self, book: Book, now: float) -> Pair:
        candidates = self.plan.policy.candidates
        place = next_place(candidates, book.limits.blocked_until(candidates, now), book.serial)
        return place or ANYWHERE

    def _next_kind(self, book: Book, now: float, *, has_pool: bool = False) -> str:
        return kind_of(self._next_place(book, now), pooled=has_pool)

    def _launching(self) -> Launching:
        return Launching(
            fleet=self.plan.fleet,
            candidates=self.plan.policy.candidates or (ANYWHERE,),
            cap=self.plan.policy.cap,
            ec2=self._ec2,
            allowance=self._allowance,
            clock=self._clock,
            may_act=self._lease.is_valid,
            store=self._store,
            forget=self._orders.forget,
        )

    # Steps in which nothing is done

    def _store(self, book: Book) -> bool:
        if not self._lease.write(book):
            return False
        self._book = book
        return True

    def _keep_only_the_lease(self, book: Book, why: str) -> Step:
        if not self.plan.dry:
            self._store(book)
        return self._blind(why)

    def _blind(self, why: str) -> Step:
        now, state = self._clock(), State() if self._book is None else self._book.policy
        return self._step(unseeing(state, now, f"Nothing is done: {why.removesuffix('.')}"), now)

    def _not_leader(self, why: str) -> Step:
        decision = Decision(state=State(), kind="not-leader", reason=f"Nothing is done: {why}.")
        return Step(leads=False, decision=decision, now=self._clock(), ended={})

    def _unsure(self, decision: Decision, now: float) -> Step:
        why = "the decision could not be stored" if self._lease.is_valid() else "another scaler leads, or the lease has run out"
        undone = replace(
            decision, launch=0, retire=frozenset(), cancel=frozenset(), kind="not-leader", reason=f"Nothing is done: {why}."
        )
        return self._step(undone, now)

    def _step(
        self,
        decision: Decision,
        now: float,
        seen: Observation | None = None,
        fleet: FleetNow | None = None,
        book: Book | None = None,
        ended: Mapping[str, str] | None = None,
        launched: int = 0,
    ) -> Step:
        return Step(
            leads=self._lease.is_valid() and not self.plan.dry, decision=decision, now=now, seen=seen, fleet=fleet, book=book,
            launched=launched, ended=ended or {},
        )  # fmt: skip

    def _new_term(self) -> _Term:
        return _Term(Acts(self._ec2, self._orders, self._allowance, may_act=self._lease.is_valid, clock=self._clock))
