"""Measured, not configured: arrivals, the rate of a worker, its boot time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from scaler.observation import Boot, Observation
from scaler.settings import ScalerSettings
from scaler.state import BOOT_KINDS, BOOTS, WINDOW, State

#: Work of the last half hour tells the rate; what is older fades.
RATE_MEMORY_S = 1800.0
#: The prior of the rate counts as much as 50 images, that of the boot time as much as 2 boots.
PRIOR_IMAGES, PRIOR_BOOTS = 50.0, 2
#: A few counts below the images known to be there are noise; they are believed a tenth at a time.
NOISE_SHARE = 0.1
#: The largest arrivals of the window are a burst: backlog, not a rate.
TRIMMED, ENOUGH = 3, 7
#: No measurement moves an estimate further than this from its prior.
FURTHEST = 100.0
#: A counter beyond this is broken: no fleet ever finished so many images.
MOST = 1e12
#: Counters come in lumps: a worker may say in one beat what it did in this long.
LUMP_S = 30.0


def measure(
    seen: Observation, backlog: float, state: State, settings: ScalerSettings, elapsed_s: float, *, since_s: float
) -> tuple[State, float]:
    """Return the memory with this observation in it, and the images that arrived since the last one.

    Args:
        elapsed_s: the time that is learned from, within some periods; ``since_s`` is all of it.
    """
    completed = seen.completed_total if _is_count(seen.completed_total) else state.completed
    done = completed - state.completed
    # A counter that falls was restarted, one that leaps is broken: neither is work that was done, nor images that came.
    most = FURTHEST * settings.rate_per_s * settings.cap * (max(elapsed_s, since_s) + LUMP_S)
    arrived = state.arrived
    if not 0 <= done <= most:
        arrived, done = arrived + done, 0.0
    present = backlog + completed
    arrivals = max(0.0, present - arrived)
    arrived = present if present > arrived else arrived - NOISE_SHARE * (arrived - present)
    fade = math.exp(-elapsed_s / RATE_MEMORY_S)
    measured = replace(
        state,
        arrived=arrived,
        completed=completed,
        busy_s=state.busy_s if seen.busy_total_s is not None and not _is_count(seen.busy_total_s) else seen.busy_total_s,
        done=state.done * fade + done,
        held_s=state.held_s * fade + _held(seen, state, elapsed_s),
        boots=_with_boots(state.boots, seen.boots, settings),
        arrivals_per_s=(*state.arrivals_per_s, arrivals / elapsed_s)[-WINDOW:],
    )
    return measured, arrivals


def rate_per_s(state: State, settings: ScalerSettings, *, by_busy_time: bool) -> float:
    """Return images/s of one worker at full load: by its busy seconds where it tells them, else by Little's law."""
    prior = settings.rate_per_s
    slots = 1 if by_busy_time else settings.slots
    rate = slots * (state.done + PRIOR_IMAGES) / (state.held_s + PRIOR_IMAGES * slots / prior)
    return _near(rate, prior)


def boot_time_s(state: State, settings: ScalerSettings, kind: str = "") -> float:
    """Return seconds from launch to ready of one kind of instance: the mean of the last ones and the prior."""
    measured = state.boots.get(kind, ())
    return _near((PRIOR_BOOTS * settings.boot_s + sum(measured)) / (PRIOR_BOOTS + len(measured)), settings.boot_s)


def sustained_per_s(state: State) -> float:
    """Return the images/s that keep coming, bursts left out; 0 until seven periods were seen."""
    rates = state.arrivals_per_s
    if len(rates) < ENOUGH:
        return 0.0
    kept = sorted(rates)[:-TRIMMED]
    return sum(kept) / len(kept)


def _held(seen: Observation, state: State, elapsed_s: float) -> float:
    if seen.busy_total_s is None:
        return float(seen.inflight or 0) * elapsed_s
    if state.busy_s is None or not _is_count(seen.busy_total_s):
        return 0.0
    return max(0.0, seen.busy_total_s - state.busy_s)


def _with_boots(known: object, boots: Iterable[Boot], settings: ScalerSettings) -> dict[str, tuple[float, ...]]:
    kinds = dict(known)  # type: ignore[call-overload]
    for boot in boots:
        if _is_count(boot.took_s):
            took_s = _near(boot.took_s, settings.boot_s)
            # The kind used last stands last, so that the oldest one is forgotten.
            kinds[boot.kind] = (*kinds.pop(boot.kind, ()), took_s)[-BOOTS:]
    return dict(list(kinds.items())[-BOOT_KINDS:])


def _near(value: float, prior: float) -> float:
    return min(max(value, prior / FURTHEST), prior * FURTHEST)


def _is_count(value: float) -> bool:
    """Return whether a counter can say this: neither NaN nor below 0 nor beyond all bounds."""
    return 0 <= value < MOST
