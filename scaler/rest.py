"""Zero or one: how long the last worker is kept, learned from the rests of the queue."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from itertools import accumulate

from scaler.settings import ScalerSettings
from scaler.state import GAPS, State

#: Rests taken for granted before any was seen, in costs of a restart: so the rule is the ski-rental one at first.
PSEUDO_GAPS = (0.5, 0.9, 3.0)
#: How quickly the backlog that a rest ends with is learned.
FOUND_STEP = 0.1
#: No rest is waited out for longer, whatever a restart costs: an hour without images ends at zero.
LONGEST_KEPT_S = 3540.0
#: One empty reading may be the count's own lag.
EMPTY_READINGS = 2


def follow(state: State, backlog: int, *, now: float, period_s: float, most_found: float) -> State:
    """Return the memory after one reading of the queue: a rest begins, goes on, or ends and is learned from."""
    if backlog == 0:
        return replace(
            state,
            idle_from=now if state.idle_from is None else state.idle_from,
            empty_readings=min(state.empty_readings + 1, EMPTY_READINGS),
        )
    ended = replace(state, idle_from=None, empty_readings=0)
    gap_s = 0.0 if state.idle_from is None else now - state.idle_from
    if gap_s <= 2 * period_s:
        return ended
    return replace(
        ended,
        gaps_s=(*state.gaps_s, gap_s)[-GAPS:],
        found=state.found + FOUND_STEP * (min(backlog, most_found) - state.found),
    )


def keep_s(state: State, *, value: float, boot_s: float, period_s: float) -> float:
    """Return how long the last worker is worth keeping once the queue is empty.

    Of all rests remembered it is the time that would have cost least, in idle seconds and restarts.
    """
    restart = boot_s + value * state.found * boot_s
    gaps = sorted((*state.gaps_s, *(share * restart for share in PSEUDO_GAPS)))
    waited_s = [0.0, *accumulate(gaps)]
    costs = []
    for tried_s in (0.0, *(gap_s + 0.01 for gap_s in gaps if gap_s < LONGEST_KEPT_S)):
        # Rests up to the tried time are waited out; each longer one costs that time and a restart.
        out = bisect_right(gaps, tried_s)
        costs.append((waited_s[out] + (len(gaps) - out) * (tried_s + restart), tried_s))
    kept_s = min(costs)[1]
    return kept_s + 2 * period_s if kept_s > 0 else 0.0


def wants_one(state: State, settings: ScalerSettings, *, value: float, boot_s: float, has_workers: bool, now: float) -> bool:
    """Return whether one worker must stand: there is work, or the rest is too young to give the last one up."""
    if state.idle_from is None:
        return True
    if not has_workers:
        return False
    if state.empty_readings < EMPTY_READINGS:
        return True
    return now - state.idle_from < keep_s(state, value=value, boot_s=boot_s, period_s=settings.period_s)
