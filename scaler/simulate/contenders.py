"""Who scales in a simulation: our policies in the real loop, and what others would run."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace

from irs.errors import SetupError
from scaler.settings import ScalerSettings, policy_settings
from scaler.simulate.ours import Ours
from scaler.simulate.world import Assumptions, Controller, Instance, World


class Keda:
    """KEDA's queue scaler with the autoscaler of Kubernetes behind it; replicas are instances.

    Kinder than the real one: no node has to be found, and idle replicas go first.
    """

    period_s, born_retiring, linger_s = 15.0, False, 0.0
    _FIRST_POLL_S, _POLL_S, _COOLDOWN_S, _WINDOW_S, _TOLERANCE = 7.0, 30.0, 300.0, 300.0, 0.1

    def __init__(self, target: int, cap: int) -> None:
        self._target, self._cap = target, cap
        self._next_poll_s, self._last_active_s, self._is_active = self._FIRST_POLL_S, -math.inf, False
        self._wanted: deque[tuple[float, int]] = deque()

    def tick(self, world: World) -> None:
        """Poll when it is time, then scale as the autoscaler does."""
        backlog = sum(world.read())
        if world.now >= self._next_poll_s:
            self._next_poll_s += self._POLL_S
            if backlog:
                self._last_active_s, self._is_active = world.now, True
            elif world.now - self._last_active_s > self._COOLDOWN_S:
                self._is_active = False
        present = _present(world)
        _scale(world, self._replicas(backlog, present, world.now) if self._is_active else 0, present)

    def _replicas(self, backlog: int, present: int, now: float) -> int:
        wanted = math.ceil(backlog / self._target)
        if present and abs(backlog / (present * self._target) - 1) <= self._TOLERANCE:
            wanted = present
        self._wanted.append((now, wanted))
        while self._wanted[0][0] < now - self._WINDOW_S:
            self._wanted.popleft()
        if wanted > present:
            # The activation stands for the first replica.
            base = max(1, present)
            return min(wanted, max(2 * base, base + 4), self._cap)
        return min(max(1, *(number for _, number in self._wanted)), present)


class TargetTracking:
    """EC2 Auto Scaling on the backlog of an instance: points of a minute, seen a minute late."""

    period_s, born_retiring, linger_s = 60.0, False, 0.0
    _OUT_POINTS, _IN_POINTS, _IN_SHARE = 3, 15, 0.9

    def __init__(self, target: int, cap: int, minimum: int = 0) -> None:
        self._target, self._cap, self._minimum = target, cap, minimum
        self._points: deque[tuple[int, int]] = deque(maxlen=self._IN_POINTS)

    def tick(self, world: World) -> None:
        """Act on the points of the minutes before, and add one of the fleet as it was found."""
        present, ready = _present(world), len(world.of_phase("ready"))
        _scale(world, max(self._minimum, self._desired(world, present)), present)
        # With none ready the backlog of one instance is all of it: else the alarm would wait for the first one.
        self._points.append((world.read()[0], max(1, ready)))

    def _desired(self, world: World, present: int) -> int:
        if not self._points:
            return present
        seen, ready = self._points[-1]
        if present == 0:
            # A step policy of its own: with no instance there is no backlog of one.
            return 1 if seen else 0
        values = [waiting / instances for waiting, instances in self._points]
        late = values[-self._OUT_POINTS :]
        if len(late) == self._OUT_POINTS and min(late) > self._target:
            return min(self._cap, max(present, math.ceil(seen / self._target)))
        is_low = len(values) == self._IN_POINTS and max(values) < self._IN_SHARE * self._target
        if is_low and not world.of_phase("booting"):
            return min(present, math.ceil(ready * max(values) / self._target))
        return present


def contender(name: str, assumed: Assumptions, changes: ScalerSettings | None = None) -> Controller:
    """Return a fresh contender by name: a policy, a price of waiting, ``keda:TARGET``, ``target:TARGET[:MINIMUM]``.

    Raises:
        SetupError: no such contender.
    """
    kind, *numbers = name.split(":")
    if numbers and kind in ("keda", "target"):
        try:
            values = [int(number) for number in numbers]
        except ValueError:
            raise SetupError(f"{name!r} must name whole numbers, such as keda:10 or target:20:1.") from None
        if values[0] < 1 or len(values) > (1 if kind == "keda" else 2):
            raise SetupError(f"{name!r} is no contender: say keda:10 or target:20:1.")
        return Keda(values[0], assumed.cap) if kind == "keda" else TargetTracking(values[0], assumed.cap, *values[1:])
    settings = changes or ScalerSettings(slots=assumed.slots, rate_per_s=2.0, cap=assumed.cap)
    return Ours(replace(settings, value=policy_settings(name).value), name)


def _present(world: World) -> int:
    return len(world.instances) - len(world.of_phase("leaving"))


def _scale(world: World, desired: int, present: int) -> None:
    """Launch what is missing within the cap, or let go: those that boot first, then the idle ones."""
    if desired > present:
        world.launch(min(desired - present, world.assumed.cap - len(world.instances)))
        return
    leaving = sorted((one for one in world.instances.values() if not one.draining), key=_worth)[: present - desired]
    for instance in leaving:
        world.drain(instance)


def _worth(instance: Instance) -> tuple[bool, int, float]:
    return instance.ready_at is not None, instance.busy, instance.launched_at
