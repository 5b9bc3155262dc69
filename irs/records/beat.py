"""What a worker says of itself, and what it is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from irs.records._json import _Json
from irs.records.record import VERSION, ModelFacts

#: ``retiring`` goes on working while there are images. ``drained`` (sent home) and ``stopped`` (by a signal) are the
#: last that is heard; ``interrupted`` is said from the notice of a spot instance to the end.
Phase = Literal["starting", "warming", "ready", "busy", "paused", "retiring", "draining", "drained", "interrupted", "stopped"]


#: Idle workers beat every 15 s: after three beats missed one is called silent.
SILENT_S = 50.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat(_Json):
    """``workers/{instance}.json``: a worker says how it is (every change of phase, 5 s busy, 15 s idle).

    Attributes:
        boot: differs at each start of the same instance, so that counters are not compared across restarts.
        launch: the scaler's id of the launch that made the instance; None for a worker that no scaler started.
        at, started, idle_since: Unix seconds.
        slots: images it works on at once; ``busy_slots`` of them are taken.
        completed, failed: records stored since ``started``.
        busy_s: seconds with at least one image in hand since ``started``.
        queued_s: how long the last received message had waited.
    """

    version: int = VERSION
    instance: str
    boot: str
    host: str
    pid: int
    phase: Phase
    at: float
    started: float
    launch: str | None = None
    ready_after_s: float | None = None
    model: ModelFacts | None = None
    slots: int = 0
    busy_slots: int = 0
    completed: int = 0
    failed: int = 0
    busy_s: float = 0.0
    idle_since: float | None = None
    queued_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(_Json):
    """``desired/{instance}``: the scaler sends a worker home; it is revoked by removing the object.

    Attributes:
        order: ``retire``: go on while there are images, then leave; ``drain``: leave with those in hand.
        launch: the launch it is meant for; None or one the worker does not know of its own: whoever has the name.
        since: Unix seconds.
        why: the reason in words.
    """

    order: Literal["retire", "drain"]
    launch: str | None = None
    since: float | None = None
    why: str = ""

    def is_for(self, launch: str | None) -> bool:
        """Whether it is meant for the worker of ``launch``, and not for an earlier one of the same name."""
        return None in (self.launch, launch) or self.launch == launch
