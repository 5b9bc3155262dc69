"""What the scaler has seen at one moment: the queue, the fleet, and what it measured of them. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Phase = Literal["requested", "booting", "ready", "leaving", "stuck", "lost"]


class Pair(NamedTuple):
    """A place to buy an instance: what EC2 may have none of."""

    type: str
    zone: str
    market: Literal["on-demand", "spot"]


#: What a launch template alone says.
ANYWHERE = Pair("", "", "on-demand")


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One instance of ours, by what EC2 and its beat say.

    Attributes:
        phase: ``requested`` (asked for, not yet seen), ``booting``, ``ready`` (also when told to retire: it goes on
            working and the order can be taken back), ``leaving`` (drained or shutting down), ``stuck`` (holds images
            and finishes none), ``lost`` (no beat for long). All of them count against the cap; the first three work
            now or soon.
        launched_at: when it was launched, on the clock of ``now``; used for its age only.
        busy: images it has in hand.
        kind: what its boot time depends on, such as ``c7g.large fresh``.
        price: of its hour, by that of the first place.
    """

    id: str
    phase: Phase
    launched_at: float
    busy: int = 0
    kind: str = ""
    price: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """One measured start: seconds from the launch to the first ready beat, and whose it was."""

    kind: str
    took_s: float
    id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What is known now. A count that could not be read is None, never 0.

    Attributes:
        visible, inflight, delayed: messages of the request queue, by SQS's own approximate count. Delayed ones are
            not work until they are visible.
        reading_age_s: how old the counts are.
        completed_total: images finished by all workers, those that are gone included; never falls in one process.
        busy_total_s: seconds of all workers with at least one image in hand; None where the workers do not say.
        boots: starts measured since the last observation.
        next_kind: the kind that the next launch would be; ``next_price`` that of its hour, by that of the first place.
        capacity_blocks: places that EC2 refused, and until when (on the clock of ``now``) they are not asked.
        oldest_wait_s: how long the image received last had waited; None when unknown.
        spent_today_usd: what the fleet has cost since midnight UTC.
    """

    visible: int | None
    inflight: int | None
    delayed: int | None = 0
    reading_age_s: float = 0.0
    workers: tuple[Worker, ...] = ()
    completed_total: float = 0.0
    busy_total_s: float | None = None
    boots: tuple[Boot, ...] = ()
    next_kind: str = ""
    next_price: float = 1.0
    capacity_blocks: Mapping[Pair, float] = field(default_factory=dict)
    oldest_wait_s: float | None = None
    spent_today_usd: float = 0.0

    def of_phase(self, *phases: Phase) -> list[Worker]:
        """Return the workers in one of ``phases``, in their own order."""
        return [worker for worker in self.workers if worker.phase in phases]
