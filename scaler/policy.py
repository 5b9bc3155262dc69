"""The policy: what to launch and whom to send home, from what is seen. Pure: no clock, no network, no chance.

Every decision keeps ``instance-seconds + value x image-seconds of waiting`` small; the price ``value`` is all that
``latency``, ``balanced`` and ``eco`` differ in. ``classic`` goes by counts: a worker for every ten waiting images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from scaler import measure, rest, shadow
from scaler import reason as say
from scaler.observation import Observation, Worker
from scaler.payoff import pay_off
from scaler.settings import ScalerSettings
from scaler.state import State

Kind = Literal[
    "backlog", "base", "count", "age", "min-workers", "keep-warm", "idle-zero", "hold", "retire", "steady",
    "roll", "cap", "budget", "capacity-blocked", "quota", "breaker", "adopting", "stale-reading", "blind", "not-leader",
]  # fmt: skip

#: Without a good reading for so long the scaler is blind: an alarm, and still no action.
BLIND_S = 60.0
#: A booting instance is cancelled only once its first minute is all but paid.
CANCEL_AGE_S = 58.0
#: A gap between two decisions is taken for at most so many periods of arrivals.
LONGEST_PERIODS, SHORTEST_PERIODS = 12.0, 0.2
#: Images older than this many boot times, or drain times, ask for a launch whatever the estimates say.
OLD_BOOTS, OLD_DRAINS = 4.0, 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do now, and why.

    Attributes:
        launch: instances to launch.
        retire: ids of all workers that shall retire: go on while there is work, then leave. One told before and not
            named any more is called back.
        cancel: ids of booting instances to end.
        state: the memory for the next decision.
        reason: one sentence with the numbers; ``kind`` for programs, ``numbers`` for metrics.
    """

    launch: int = 0
    retire: frozenset[str] = frozenset()
    cancel: frozenset[str] = frozenset()
    state: State
    kind: Kind
    reason: str
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Need:
    """How many workers are wanted, and what asks for them."""

    workers: int
    kind: Kind
    keeps_one: bool
    reason: str
    backlog_then: float = 0.0
    base: int = 0
    wants_all: bool = False


def decide(seen: Observation, state: State, settings: ScalerSettings, now: float) -> Decision:
    """Return what to do at ``now`` (seconds of one clock that never jumps); the same input gives the same output."""
    backlog = _backlog(seen, settings)
    if backlog is None:
        return _without_reading(seen, state, now)
    if settings.value is not None:
        # Of a place that costs twice as much, an hour must save twice the waiting.
        settings = replace(settings, value=settings.value / seen.next_price)
    elapsed_s = _elapsed_s(state, settings, now)
    known, arrivals = measure.measure(
        seen, backlog, state.of_size(settings.cap, now), settings, elapsed_s, since_s=0.0 if state.at is None else now - state.at
    )
    rate = measure.rate_per_s(known, settings, by_busy_time=seen.busy_total_s is not None)
    boot_s = measure.boot_time_s(known, settings, seen.next_kind)
    known = rest.follow(known, backlog, now=now, period_s=settings.period_s, most_found=rate * boot_s)
    if settings.value is not None:
        queues, charge = shadow.follow(
            known.shadow, known.charge, arrivals,
            settings=settings, value=settings.value, rate=rate, boot_s=boot_s, elapsed_s=elapsed_s,
        )  # fmt: skip
        known = replace(known, shadow=queues, charge=charge)
    known = replace(known, at=now)
    working = seen.of_phase("requested", "booting", "ready")
    need = _need(seen, backlog, known, settings, len(working), rate, boot_s, now)
    needed_at = tuple(now if level < need.workers else at for level, at in enumerate(known.needed_at))
    known = replace(known, needed_at=needed_at)
    numbers = {
        "visible": seen.visible or 0,
        "inflight": seen.inflight or 0,
        "workers": len(working),
        "need": need.workers,
        "base": need.base,
        "rate_per_s": rate,
        "boot_s": boot_s,
        "sustained_per_s": measure.sustained_per_s(known),
        "backlog_then": need.backlog_then,
    }
    if need.workers > len(working):
        decision = _launch(seen, need, known, settings, len(working), now)
    else:
        decision = _stay_or_shrink(seen, need, known, settings, working, now)
    stuck = frozenset(worker.id for worker in seen.of_phase("stuck"))
    return replace(decision, retire=decision.retire | stuck, numbers=numbers)


def _backlog(seen: Observation, settings: ScalerSettings) -> int | None:
    # A count that failed is not 0: taken for 0 it would send all workers home.
    if seen.visible is None or seen.inflight is None or not 0 <= seen.reading_age_s <= settings.stale_s:
        return None
    return seen.visible + seen.inflight if seen.visible >= 0 and seen.inflight >= 0 else None


def _without_reading(seen: Observation, state: State, now: float) -> Decision:
    failed = seen.visible is None or seen.inflight is None
    what = "could not be read" if failed else f"are {say.seconds(seen.reading_age_s)} old"
    return unseeing(state, now, f"Keep {say.workers(len(seen.workers))}: the counts of the queue {what}")


def unseeing(state: State, now: float, why: str) -> Decision:
    """Return the decision to do nothing for want of a good look; ``why`` begins its reason."""
    since_s = math.inf if state.at is None else max(0.0, now - state.at)
    last = "there has been no good look yet" if state.at is None else f"the last good look is {say.seconds(since_s)} old"
    return Decision(state=state, kind="blind" if since_s >= BLIND_S else "stale-reading", reason=f"{why}; {last}.")


def _elapsed_s(state: State, settings: ScalerSettings, now: float) -> float:
    if state.at is None:
        return settings.period_s
    return min(max(now - state.at, SHORTEST_PERIODS * settings.period_s), LONGEST_PERIODS * settings.period_s)


def _need(
    seen: Observation, backlog: int, state: State, settings: ScalerSettings, workers: int, rate: float, boot_s: float, now: float
) -> _Need:
    if settings.value is None:
        return _classic(seen, backlog, settings)
    value = settings.value
    has_one = rest.wants_one(state, settings, value=value, boot_s=boot_s, has_workers=workers > 0, now=now)
    base = shadow.base_workers(state.charge, value)
    booting = sorted(seen.of_phase("requested", "booting"), key=lambda worker: worker.launched_at)
    gain = pay_off(
        backlog,
        ready=workers - len(booting),
        boot_ages_s=[max(0.0, now - worker.launched_at) for worker in booting],
        room=max(0, settings.cap - workers),
        value=value,
        rate=rate,
        sustained=measure.sustained_per_s(state),
        boot_s=boot_s,
        horizon_s=settings.horizon_s,
    )
    asks: list[tuple[int, Kind, str]] = [
        (settings.min_workers, "min-workers", f"{settings.min_workers} shall always stand"),
        (workers + gain.launches if gain.launches else 0, "backlog", say.launch_reason(backlog, workers, rate, boot_s, gain)),
        (
            base if has_one else 0,
            "base",
            f"a fleet of {base} costs least, waiting and instances together, at the arrivals of late",
        ),
        (int(has_one), "keep-warm", say.rest_reason(state, value=value, boot_s=boot_s, period_s=settings.period_s, now=now)),
    ]
    wanted, kind, reason = max(asks, key=lambda ask: ask[0])
    if wanted <= workers and _is_old(seen, backlog, state, value, rate, boot_s, now):
        wanted, kind = workers + 1, "age"
        reason = f"an image had waited {say.seconds(seen.oldest_wait_s or 0.0)}, whatever the measured rate says"
    return _Need(
        workers=min(wanted, settings.cap),
        kind=kind,
        keeps_one=has_one or settings.min_workers > 0,
        reason=reason,
        backlog_then=gain.backlog_then,
        base=base,
    )


def _classic(seen: Observation, backlog: int, settings: ScalerSettings) -> _Need:
    waiting = seen.visible or 0
    workers = max(settings.min_workers, min(math.ceil(waiting / settings.images_per_worker), settings.cap))
    reason = f"{waiting} images wait, at {settings.images_per_worker} a worker and a cap of {settings.cap}"
    # All of them may leave at any time: a worker told to retire goes on while there is work.
    return _Need(workers=workers, kind="count", keeps_one=backlog > 0, reason=reason, wants_all=True)


def _is_old(seen: Observation, backlog: int, state: State, value: float, rate: float, boot_s: float, now: float) -> bool:
    drain_s = math.sqrt(2 * boot_s / (value * rate))
    if not backlog or seen.oldest_wait_s is None or seen.oldest_wait_s <= max(OLD_BOOTS * boot_s, OLD_DRAINS * drain_s):
        return False
    return state.last_age_launch is None or now - state.last_age_launch >= boot_s


def _launch(seen: Observation, need: _Need, state: State, settings: ScalerSettings, working: int, now: float) -> Decision:
    wanted = need.workers - working
    # Whatever is still there counts: what leaves, what is stuck, what is lost until EC2 says that it is gone.
    room = max(0, settings.cap - len(seen.workers))
    count = min(wanted, room)
    wish = f"{wanted} more {'is' if wanted == 1 else 'are'} wanted"
    if count == 0:
        return Decision(
            state=state,
            kind="cap",
            reason=f"Launch none: {wish}, and {len(seen.workers)} instances stand at a cap of {settings.cap}.",
        )
    if held := held_back(seen, settings, now):
        kind, why = held
        return Decision(state=state, kind=kind, reason=f"Launch none: {wish}, and {why}.")
    if need.kind == "age":
        state = replace(state, last_age_launch=now)
    limited = f" (of {wanted} wanted, cap {settings.cap})" if count < wanted else ""
    return Decision(launch=count, state=state, kind=need.kind, reason=f"Launch {count}{limited}: {need.reason}.")


def held_back(seen: Observation, settings: ScalerSettings, now: float) -> tuple[Kind, str] | None:
    """Return what forbids any launch now, and why: a budget that is spent, places that all refused; else None."""
    if 0 < settings.budget_per_day_usd <= seen.spent_today_usd:
        spent = f"${seen.spent_today_usd:.2f} of ${settings.budget_per_day_usd:.2f} a day are spent"
        return "budget", f"{spent}; what runs goes on"
    places = settings.candidates
    if places and all(seen.capacity_blocks.get(place, -math.inf) > now for place in places):
        next_s = min(seen.capacity_blocks[place] for place in places) - now
        return "capacity-blocked", f"EC2 has refused all {len(places)} places; the next one is asked in {say.seconds(next_s)}"
    return None


def _stay_or_shrink(
    seen: Observation, need: _Need, state: State, settings: ScalerSettings, working: list[Worker], now: float
) -> Decision:
    ready = [worker for worker in working if worker.phase == "ready"]
    if need.wants_all:
        leaving = frozenset(worker.id for worker in _by_worth(ready)[: max(0, len(ready) - settings.min_workers)])
        return Decision(retire=leaving, state=state, kind="count", reason=f"Launch none: {need.reason}; workers leave when idle.")
    held = sum(1 for at in state.needed_at[: len(working)] if now - at < settings.hold_s) if need.keeps_one else 0
    surplus = len(working) - min(settings.cap, max(held, need.workers))
    old = [worker for worker in working if now - worker.launched_at >= CANCEL_AGE_S and worker.phase == "booting"]
    cancel = frozenset(worker.id for worker in old[:surplus]) if seen.visible == 0 and need.backlog_then == 0 else frozenset()
    grown = [worker for worker in ready if now - worker.launched_at >= settings.min_age_s]
    retire = frozenset(worker.id for worker in _by_worth(grown)[: surplus - len(cancel)])
    if retire or cancel:
        reason = say.retire_reason(len(retire), len(cancel), len(working), need.workers)
        return Decision(
            retire=retire, cancel=cancel, state=state, kind="retire" if need.keeps_one else "idle-zero", reason=reason
        )
    if len(working) > need.workers:
        why = f"{say.needed(need.workers)}, and a level is given up after {say.seconds(settings.hold_s)}"
        return Decision(state=state, kind="hold", reason=f"Keep {say.workers(len(working))}: {why}.")
    kind: Kind = need.kind if working else "idle-zero"
    why = need.reason if working else "the queue is empty and no worker runs"
    return Decision(state=state, kind=kind, reason=f"Keep {say.workers(len(working))}: {why}.")


def _by_worth(workers: list[Worker]) -> list[Worker]:
    """Sort by what is lost least: idle ones first, then the dearest, then the oldest."""
    return sorted(workers, key=lambda worker: (worker.busy, -worker.price, worker.launched_at, worker.id))
