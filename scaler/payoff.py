"""The backlog: does one more instance save more waiting than its boot costs?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

#: A boot is never thought nearer to its end than this.
SOONEST_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PayOff:
    """What launches would bring.

    Attributes:
        launches: instances that pay for themselves.
        backlog_then: images still there when a launch of now would be ready.
        saved_image_s, boot_instance_s: the waiting they save and what their boots cost.
    """

    launches: int
    backlog_then: float
    saved_image_s: float
    boot_instance_s: float


def pay_off(
    backlog: float,
    *,
    ready: int,
    boot_ages_s: Iterable[float],
    room: int,
    value: float,
    rate: float,
    sustained: float,
    boot_s: float,
    horizon_s: float,
) -> PayOff:
    """Return the launches that pay: each next one saves more waiting than its own boot costs.

    Args:
        boot_ages_s: ages of the instances that boot, in the order of their launch.
        room: launches at most.
        rate, sustained: images/s of one worker, and of the arrivals that go on.
    """
    ages = list(boot_ages_s)
    if backlog <= 0:
        # From a forecast alone nothing is launched: between two flashes that started 60 instances for nothing.
        return PayOff(launches=0, backlog_then=0.0, saved_image_s=0.0, boot_instance_s=0.0)
    then = backlog_at_ready(backlog, ready=ready, boot_ages_s=ages, rate=rate, sustained=sustained, boot_s=boot_s)
    workers = ready + len(ages)

    def waiting(more: int) -> float:
        return waiting_image_s(then, (workers + more) * rate - sustained, horizon_s)

    launches = 1 if workers == 0 and room > 0 else 0
    while launches < room and value * (waiting(launches) - waiting(launches + 1)) > boot_s:
        launches += 1
    return PayOff(
        launches=launches,
        backlog_then=then,
        saved_image_s=waiting(0) - waiting(launches),
        boot_instance_s=launches * boot_s,
    )


def backlog_at_ready(
    backlog: float, *, ready: int, boot_ages_s: Iterable[float], rate: float, sustained: float, boot_s: float
) -> float:
    """Return the images still there one boot time from now, with the workers that are ready or boot already."""
    left, at_s, working = backlog, 0.0, ready
    for age_s in boot_ages_s:
        ready_in_s = max(at_s, min(max(boot_s - age_s, SOONEST_S), boot_s))
        left = max(0.0, left - (working * rate - sustained) * (ready_in_s - at_s))
        at_s, working = ready_in_s, working + 1
    return max(0.0, left - (working * rate - sustained) * (boot_s - at_s))


def waiting_image_s(backlog: float, spare_per_s: float, horizon_s: float) -> float:
    """Return the image-seconds that a backlog waits while it is worked off at ``spare_per_s``, up to the horizon."""
    end_s = min(horizon_s, backlog / spare_per_s) if spare_per_s > 0 else horizon_s
    return backlog * end_s - spare_per_s * end_s**2 / 2
