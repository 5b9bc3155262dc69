"""EC2's instances: launched, stopped, started, ended, interrupted, each in the steps that AWS takes.

No network, no process, no thread. The clock and the host are given: tests move the one and watch the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from irs.local.ec2 import launch
from irs.local.ec2.faults import Faults, Place, Refused
from irs.local.ec2.instances import BY_FAULT, BY_ITSELF, BY_SPOT, BY_USER, ENDED, Fields, Instance, plain
from irs.local.ec2.templates import Templates
from irs.local.ec2.tokens import Tokens

#: How long a terminated instance stays in lists.
TERMINATED_SECONDS = 3600.0
#: Between a spot instance's notice and its end.
NOTICE_SECONDS = 120.0
_REFUSALS = {
    "InsufficientInstanceCapacity": "There is no capacity in the place asked for: try another zone or type, or wait",
    "VcpuLimitExceeded": "More instances are asked for than the limit of this account allows: wait until some have ended",
}


class Host(Protocol):
    """Where instances run. No call waits; the end of what runs is told by :meth:`Ec2.exited`."""

    def boot(self, id: str, script: bytes) -> None:
        """Run a script as the instance ``id``, which is running from this call on."""

    def halt(self, id: str) -> None:
        """Ask it to end, and see to it that it does; nothing where nothing runs."""

    def running(self, id: str) -> bool:
        """Whether anything of it runs, or is about to."""

    def output(self, id: str) -> bytes:
        """Return the end of what it has said."""


class Ec2:
    """The instances of one region, with launch templates and client tokens.

    Args:
        quota: instances that may live at once, unless a fault says otherwise.

    Attributes:
        faults: what goes wrong on demand; may be replaced at any time.
        has_changed: set by everything that is worth keeping; who keeps it clears it.
    """

    def __init__(
        self, region: str, host: Host, *, quota: int, faults: Faults | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.region, self.host, self.quota, self.clock = region, host, quota, clock
        self.faults = faults or Faults()
        self.instances: dict[str, Instance] = {}
        self.templates, self.tokens = Templates(), Tokens()
        self.has_changed = self._is_closing = False
        self._ordinal = 0

    # Launching and starting

    def place_for(self, order: Fields) -> Place:
        """Return where an order goes: into the zone it names, else into the first that has room."""
        type, market, taken = launch.type_of(order), launch.market_of(order), self._taken()
        named = launch.zone_of(order)
        places = [Place(type, zone, market) for zone in ([named] if named else launch.zones(self.region))]
        return next((place for place in places if self.faults.room(place, taken) > 0), places[0])

    def launch(self, order: Fields) -> list[Instance]:
        """Launch as many as there is room for, between ``MinCount`` and ``MaxCount``; they are ``pending``.

        Raises:
            Refused: the order makes no sense, or there is not room enough.
        """
        launch.check(order, self.region)
        place = self.place_for(order)
        count, refusal = self._fitting([place] * order["MaxCount"])
        if count < order["MinCount"]:
            raise Refused(refusal, _REFUSALS[refusal])
        made = launch.make(order, count=count, zone=place.zone, ordinal=self._ordinal + 1, now=self.clock())
        self._ordinal += count
        self.instances |= {one.id: one for one in made}
        self.has_changed = True
        return made

    def start(self, found: list[Instance]) -> None:
        """Start stopped instances, all or none; what runs already is left alone.

        Raises:
            Refused: one of them cannot be started, or there is not room for all.
        """
        for one in found:
            if one.state not in ("stopped", "pending", "running"):
                raise _wrong_state(one, "started")
        stopped = [one for one in found if one.state == "stopped"]
        count, refusal = self._fitting(one.place for one in stopped)
        if count < len(stopped):
            raise Refused(refusal, _REFUSALS[refusal])
        for one in stopped:
            one.launched = self.clock()
            one.notice = None
            self._move(one, "pending")

    def stop(self, found: list[Instance]) -> None:
        """Stop running instances, all or none; what is stopped already is left alone.

        Raises:
            Refused: one of them cannot be stopped.
        """
        for one in found:
            if one.market == "spot" and not one.is_persistent:
                raise Refused("UnsupportedOperation", f"You can't stop the Spot Instance '{one.id}' of a one-time request.")
            if one.state not in ("running", "stopping", "stopped"):
                raise _wrong_state(one, "stopped")
        for one in found:
            if one.state == "running":
                self._end(one, "stopping", BY_USER)

    def terminate(self, found: list[Instance]) -> None:
        """End instances for good, whatever they do."""
        for one in found:
            if one.state == "stopped":
                # There is nothing to shut down, and it must not take room for it.
                self._move(one, "terminated", BY_USER)
            elif one.state not in ENDED:
                self._end(one, "shutting-down", BY_USER)

    # What happens by itself

    def advance(self) -> None:
        """Take every step whose time has come. Comes before every call, at :meth:`next_step_at`, and after an end."""
        now = self.clock()
        for one in list(self.instances.values()):
            if one.state == "pending" and now >= one.since + self.faults.boot_seconds and not self._is_closing:
                self._move(one, "running")
                if script := launch.script_of(one):
                    self.host.boot(one.id, script)
            elif one.state == "running" and one.notice is not None and now >= one.notice:
                self._end(one, "shutting-down", BY_SPOT)
            if one.state in ("shutting-down", "stopping") and self._is_down(one, now):
                self._move(one, "terminated" if one.state == "shutting-down" else "stopped")
            elif one.state == "terminated" and now >= one.since + TERMINATED_SECONDS:
                del self.instances[one.id]
                self.has_changed = True
        self.tokens.forget(now, self.instances.__contains__)

    def next_step_at(self) -> float | None:
        """Return when the next step is due, on the clock given; None while nothing moves by itself.

        The end of a process comes by :meth:`exited`, not by time.
        """
        return min((at for one in self.instances.values() if (at := self._due(one)) is not None), default=None)

    def exited(self, id: str) -> None:
        """Say that what ran as ``id`` has ended; of a running instance that is the shutdown from inside."""
        one = self.instances.get(id)
        # While closing it is the host that ends them all: they stay on record as running, for the next run to judge.
        if one is not None and one.state == "running" and not self._is_closing:
            self._move(one, "shutting-down" if one.shutdown == "terminate" else "stopping", BY_ITSELF)
        self.advance()

    def interrupt(self, id: str, *, after_s: float = NOTICE_SECONDS) -> None:
        """Give a spot instance its notice: it is taken away ``after_s`` seconds from now.

        Raises:
            Refused: it is not there, not of the spot market, or does not run.
        """
        one = self.instances.get(id)
        if one is None:
            raise Refused("InvalidInstanceID.NotFound", f"The instance ID '{id}' does not exist")
        if one.market != "spot":
            raise Refused("UnsupportedOperation", f"{id} is on demand, and only spot instances are interrupted: kill it instead")
        if one.state not in ("pending", "running"):
            raise _wrong_state(one, "interrupted")
        one.notice = self.clock() + after_s
        self.has_changed = True

    def close(self) -> None:
        """Boot nothing any more: the host is about to end."""
        self._is_closing = True

    # Over a restart

    def dump(self) -> dict[str, Any]:
        """Return all but faults for JSON; what can change is shared, not copied."""
        return {
            "ordinal": self._ordinal,
            "instances": [plain(one) for one in self.instances.values()],
            "templates": [plain(one) for one in self.templates.all.values()],
            "tokens": self.tokens.dump(),
        }

    def load(self, told: dict[str, Any]) -> None:
        """Take up what an earlier run kept. Its processes are gone: what ran is ``terminated``."""
        instances = {one.id: one for one in (Instance(**each) for each in told["instances"])}
        templates, tokens = Templates(told["templates"]), Tokens(told["tokens"])
        self._ordinal, self.instances, self.templates, self.tokens = told["ordinal"], instances, templates, tokens
        for one in self.instances.values():
            if one.state in ("pending", "running"):
                one.move("terminated", self.clock(), BY_FAULT)
            elif one.is_alive:
                one.move("terminated" if one.state == "shutting-down" else "stopped", self.clock())
        self.has_changed = True

    # Inside

    def _taken(self) -> list[Place]:
        return [one.place for one in self.instances.values() if one.is_alive]

    def _fitting(self, places: Iterable[Place]) -> tuple[int, str]:
        """Return how many of ``places`` there is room for, in order, and why not for the next."""
        taken, count = self._taken(), 0
        quota = self.quota if self.faults.quota is None else self.faults.quota
        for place in places:
            if len(taken) >= quota:
                return count, "VcpuLimitExceeded"
            if self.faults.room(place, taken) <= 0:
                return count, "InsufficientInstanceCapacity"
            taken.append(place)
            count += 1
        return count, ""

    def _end(self, one: Instance, state: str, reason: str) -> None:
        self._move(one, state, reason)
        self.host.halt(one.id)

    def _move(self, one: Instance, state: str, reason: str = "") -> None:
        one.move(state, self.clock(), reason)
        self.has_changed = True

    def _is_down(self, one: Instance, now: float) -> bool:
        return now >= one.since + self.faults.stop_seconds and not self.host.running(one.id)

    def _due(self, one: Instance) -> float | None:
        if one.state == "pending":
            return None if self._is_closing else one.since + self.faults.boot_seconds
        if one.state in ("shutting-down", "stopping"):
            return None if self.host.running(one.id) else one.since + self.faults.stop_seconds
        return one.since + TERMINATED_SECONDS if one.state == "terminated" else one.notice if one.state == "running" else None


def _wrong_state(one: Instance, wanted: str) -> Refused:
    message = f"The instance '{one.id}' is {one.state}, which is not a state from which it can be {wanted}."
    return Refused("IncorrectInstanceState", message)
