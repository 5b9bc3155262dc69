"""The world of the simulator: images, instances and the queue's counts, on a clock of events.

At equal times images arrive first, then work and boots end, then the controller looks.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Literal, Protocol

import numpy as np

from scaler.trace import Trace

_ENDS, _TICK = 1, 2
#: What ends if it is no image.
_BOOT, _LEAVE = -1, -2
#: Boot times drawn at the start; a run that launches more goes through them again.
BOOTS_DRAWN = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """What the world is like.

    Attributes:
        slots: images an instance works on at once.
        service_s, service_cv: mean and coefficient of variation of one image's time (lognormal).
        boot_s, boot_sigma: median and sigma of the boot time (lognormal).
        lag_s, noise: counts are up to so old (uniform), and off by a normal factor of this sigma.
        min_bill_s: what an instance costs at least.
        tail_s: how long the world goes on after the horizon of the trace.
    """

    slots: int = 2
    service_s: float = 1.0
    service_cv: float = 0.5
    boot_s: float = 60.0
    boot_sigma: float = 0.3
    lag_s: float = 5.0
    noise: float = 0.02
    min_bill_s: float = 60.0
    tail_s: float = 1800.0
    cap: int = 19


class Controller(Protocol):
    """Something that scales: looks every ``period_s`` and gives orders to the world.

    ``born_retiring``: its instances end by themselves as soon as they are idle with an empty queue for ``linger_s``.
    """

    period_s: float
    born_retiring: bool
    linger_s: float

    def tick(self, world: World) -> None:
        """Look and act; called at 0, ``period_s``, …"""


class Instance:
    """One instance: booting, ready, or gone. ``draining``: takes no more; ``retiring``: leaves when idle."""

    __slots__ = ("busy", "draining", "id", "idle_from", "is_gone", "launched_at", "ready_at", "retiring")

    def __init__(self, id: str, launched_at: float, *, retiring: bool) -> None:
        self.id, self.launched_at, self.retiring = id, launched_at, retiring
        self.ready_at: float | None = None
        self.idle_from = 0.0
        self.busy = 0
        self.draining = self.is_gone = False

    @property
    def phase(self) -> Literal["booting", "ready", "leaving"]:
        """As the fleet would say."""
        if self.draining:
            return "leaving"
        return "booting" if self.ready_at is None else "ready"


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What one run came to; ``timeline`` rows are (second, waiting and in work, ready, booting)."""

    sojourns_s: list[float]
    billed_s: float
    launches: int
    cap_violations: int
    unfinished: int
    timeline: list[tuple[float, int, int, int]]
    launch_reasons: list[tuple[float, str]] = field(default_factory=list)


class World:
    """Images come, wait, are worked on and leave; instances boot, work and end."""

    def __init__(self, trace: Trace, assumed: Assumptions, controller: Controller, seed: int) -> None:
        self.assumed, self.now = assumed, 0.0
        self.instances: dict[str, Instance] = {}
        self.completed, self.launches, self.cap_violations, self.billed_s = 0, 0, 0, 0.0
        self.ended: list[Instance] = []
        self.launch_reasons: list[tuple[float, str]] = []
        self._controller = controller
        self._trace = trace
        self._came: list[int] = []
        self._waiting: deque[int] = deque()
        self._free: deque[Instance] = deque()
        self._in_work = 0
        self._sojourns: list[float] = []
        self._events: list[tuple[float, int, int, Instance | None, int]] = []
        self._serial = 0
        self._history: tuple[list[float], list[int], list[int]] = ([-math.inf], [0], [0])
        self._timeline: list[tuple[float, int, int, int]] = []
        self._service_s = _service_times(trace.images, assumed, seed)
        shape = np.random.default_rng(seed + 1000).standard_normal(BOOTS_DRAWN)
        self._boot_s = (assumed.boot_s * np.exp(assumed.boot_sigma * shape)).tolist()
        self._noise = np.random.default_rng(seed + 2000)

    def run(self) -> Outcome:
        """Play the trace to its end and ``tail_s`` beyond."""
        end_s = self._trace.horizon_s + self.assumed.tail_s
        arrivals = list(zip(self._trace.seconds, self._trace.arrivals, strict=True))
        next_batch = 0
        self._push(0.0, _TICK, None)
        while self._events:
            if next_batch < len(arrivals) and arrivals[next_batch][0] <= self._events[0][0]:
                second, count = arrivals[next_batch]
                next_batch += 1
                self.now = float(second)
                self._arrive(second, count)
                continue
            self.now, order, _, instance, image = heappop(self._events)
            if self.now > end_s:
                break
            if order == _TICK:
                self._look()
            elif instance is not None:
                self._end_of(instance, image)
            self._note()
        self.now = end_s
        for instance in list(self.instances.values()):
            self.end(instance)
        return Outcome(
            sojourns_s=self._sojourns,
            billed_s=self.billed_s,
            launches=self.launches,
            cap_violations=self.cap_violations,
            unfinished=self._trace.images - self.completed,
            timeline=self._timeline,
            launch_reasons=self.launch_reasons,
        )

    # What a controller may do

    def read(self) -> tuple[int, int]:
        """Return visible and in flight as SQS would say: a little old, a little off."""
        lag, off = self._noise.random(), self._noise.standard_normal()
        times, visible, in_work = self._history
        at = bisect_right(times, self.now - self.assumed.lag_s * lag) - 1
        factor = 1 + self.assumed.noise * off
        return max(0, round(visible[at] * factor)), max(0, round(in_work[at] * factor))

    def of_phase(self, phase: str) -> list[Instance]:
        """Return the instances of one phase, oldest first."""
        return [instance for instance in self.instances.values() if instance.phase == phase]

    def launch(self, count: int, reason: str = "") -> list[str]:
        """Launch instances and return their ids; they are ready a boot time later."""
        ids = []
        if count > 0:
            self.launch_reasons.append((self.now, reason))
        for _ in range(count):
            self.cap_violations += len(self.instances) >= self.assumed.cap
            instance = Instance(f"i{self.launches}", self.now, retiring=self._controller.born_retiring)
            self._push(self.now + self._boot_s[self.launches % BOOTS_DRAWN], _ENDS, instance, image=_BOOT)
            self.launches += 1
            self.instances[instance.id] = instance
            ids.append(instance.id)
        return ids

    def retire(self, ids: frozenset[str]) -> None:
        """Tell these to leave once they are idle, and call back all others."""
        for instance in list(self.instances.values()):
            if instance.id in ids and not instance.retiring:
                instance.retiring = True
                self._leave_later(instance)
            elif instance.id not in ids:
                instance.retiring = False

    def drain(self, instance: Instance) -> None:
        """Let an instance finish what it has, take no more, and end."""
        instance.draining = True
        if not instance.busy:
            self.end(instance)

    def end(self, instance: Instance) -> None:
        """End an instance now; a boot is broken off."""
        if not instance.is_gone:
            instance.is_gone = True
            self.billed_s += max(self.assumed.min_bill_s, self.now - instance.launched_at)
            del self.instances[instance.id]
            self.ended.append(instance)

    # What happens by itself

    def _arrive(self, second: int, count: int) -> None:
        for image in range(len(self._came), len(self._came) + count):
            self._came.append(second)
            self._waiting.append(image)
        self._hand_out()
        self._note()

    def _hand_out(self) -> None:
        while self._waiting and self._free:
            instance = self._free.popleft()
            if instance.is_gone or instance.draining:
                continue
            image = self._waiting.popleft()
            instance.busy += 1
            self._in_work += 1
            self._push(self.now + self._service_s[image], _ENDS, instance, image=image)

    def _end_of(self, instance: Instance, image: int) -> None:
        if instance.is_gone:
            return
        if image == _LEAVE:
            if instance.retiring and not instance.busy and self.now >= instance.idle_from + self._controller.linger_s:
                self.end(instance)
            return
        if image == _BOOT:
            instance.ready_at = self.now
            self._free.extend([instance] * self.assumed.slots)
        else:
            self._sojourns.append(self.now - self._came[image])
            self.completed += 1
            self._in_work -= 1
            instance.busy -= 1
            self._free.append(instance)
        self._hand_out()
        if not instance.busy:
            instance.idle_from = self.now
            if instance.draining:
                self.end(instance)
            elif instance.retiring:
                self._leave_later(instance)

    def _leave_later(self, instance: Instance) -> None:
        if instance.ready_at is None or instance.busy:
            return
        at = max(self.now, instance.idle_from + self._controller.linger_s)
        if at == self.now:
            self.end(instance)
        else:
            self._push(at, _ENDS, instance, image=_LEAVE)

    def _look(self) -> None:
        self._controller.tick(self)
        self._timeline.append(
            (self.now, len(self._waiting) + self._in_work, len(self.of_phase("ready")), len(self.of_phase("booting")))
        )
        self._push(self.now + self._controller.period_s, _TICK, None)

    def _push(self, at: float, order: int, instance: Instance | None, *, image: int = 0) -> None:
        self._serial += 1
        heappush(self._events, (at, order, self._serial, instance, image))

    def _note(self) -> None:
        times, visible, in_work = self._history
        if visible[-1] != len(self._waiting) or in_work[-1] != self._in_work:
            times.append(self.now)
            visible.append(len(self._waiting))
            in_work.append(self._in_work)


def _service_times(images: int, assumed: Assumptions, seed: int) -> list[float]:
    # By order of arrival: the same image costs the same under every policy.
    variance = math.log(1 + assumed.service_cv**2)
    drawn = np.random.default_rng(seed).lognormal(-variance / 2, math.sqrt(variance), images)
    times: list[float] = (assumed.service_s * drawn).tolist()
    return times
