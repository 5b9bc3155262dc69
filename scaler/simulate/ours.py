"""Our policies in the simulator: the production loop, on the simulator's clock, EC2, queue and beats."""

# The loop's doors take more than a simulated world needs to know.
# ruff: noqa: ARG002

from __future__ import annotations

from dataclasses import replace

from scaler.book import Book, Intent
from scaler.fleet import Ec2State
from scaler.fleet import Instance as Ec2Instance
from scaler.lease import Lease
from scaler.life import Heard
from scaler.loop import Loop, Plan
from scaler.observation import ANYWHERE, Observation
from scaler.settings import ScalerSettings
from scaler.signals import Reading
from scaler.simulate.world import Instance, World
from scaler.store import Conflict, Stored

#: Renewed at each tick, whatever the period.
LEASE_S = 3600.0


class Ours:
    """One of our policies as a controller of a simulated world: a scaler that finds the book of an earlier one."""

    def __init__(self, settings: ScalerSettings, name: str = "") -> None:
        self.settings, self._name = replace(settings, candidates=(ANYWHERE,)), name
        self.period_s = settings.period_s
        # The rule of counts ends an instance at once; ours after an empty receive of one second.
        self.born_retiring = settings.value is None
        self.linger_s = 0.0 if settings.value is None else 1.0
        self._loop: Loop | None = None

    def tick(self, world: World) -> None:
        """Look, decide, act."""
        if self._loop is None:
            self._loop = self._made(world)
        self._loop.step()

    def _made(self, world: World) -> Loop:
        def clock() -> float:
            return world.now

        return Loop(
            Plan(policy=self.settings, policy_name=self._name, fleet="sim"),
            lease=Lease(OneBook(), holder="sim", ttl_s=LEASE_S, nonce=lambda: "sim", clock=clock),
            ec2=WorldEc2(world),
            signals=WorldSignals(world),
            orders=WorldOrders(world, are_heard=not self.born_retiring),
            clock=clock,
            wall=clock,
        )


class OneBook:
    """The store of the simulator: one book that an earlier scaler has left, kept as it is."""

    def __init__(self) -> None:
        self._stored = Stored(Book(), "0")

    def read(self, now: float) -> Stored | None:
        """As :meth:`scaler.store.Store.read`."""
        return self._stored

    def write(self, book: Book, etag: str | None, now: float) -> str:
        """As :meth:`scaler.store.Store.write`."""
        if etag != self._stored.etag:
            raise Conflict("another write came first")
        self._stored = Stored(book, str(int(etag) + 1))
        return self._stored.etag


class WorldEc2:
    """EC2 of a simulated world: it has room for all, and answers at once."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._launches: dict[str, str] = {}

    def describe(self) -> list[Ec2Instance]:
        """As :meth:`scaler.fleet.Ec2.describe`; what ended is told once."""
        gone = [self._told(one, "terminated") for one in self._world.ended]
        return gone + [self._told(one, "running") for one in self._world.instances.values()]

    def _told(self, one: Instance, state: Ec2State) -> Ec2Instance:
        launch = self._launches[one.id] if state == "running" else self._launches.pop(one.id)
        return Ec2Instance(id=one.id, state=state, pair=ANYWHERE, launched_at=one.launched_at, launch=launch)

    def run(self, intent: Intent) -> list[str]:
        """As :meth:`scaler.fleet.Ec2.run`."""
        ids = self._world.launch(intent.count, intent.why)
        self._launches |= dict.fromkeys(ids, intent.launch)
        return ids

    def start(self, intent: Intent) -> list[str]:
        """As :meth:`scaler.fleet.Ec2.start`; nothing is ever stopped here, so none of them is there."""
        return []

    def end(self, id: str, *, keep: bool) -> None:
        """As :meth:`scaler.fleet.Ec2.end`."""
        self._world.end(self._world.instances[id])

    def console(self, id: str) -> str:
        """Nothing is written."""
        return ""


class WorldSignals:
    """Counts as SQS would say them, a little old and a little off; what workers say is exact."""

    def __init__(self, world: World) -> None:
        self._world = world

    def read(self, *, now: float, wall: float, stuck_after_s: float) -> Reading:
        """As :meth:`scaler.signals.Signals.read`."""
        visible, inflight = self._world.read()
        ended, self._world.ended = self._world.ended, []
        heard = {
            one.id: Heard(phase="busy" if one.busy else "ready", busy=one.busy, ready_at=one.ready_at)
            for one in (*ended, *self._world.instances.values())
            if one.ready_at is not None
        }
        seen = Observation(visible=visible, inflight=inflight, completed_total=self._world.completed)
        return Reading(observation=seen, heard=heard)


class WorldOrders:
    """Orders that are heard at once; an instance that leaves is gone with its last image."""

    def __init__(self, world: World, *, are_heard: bool) -> None:
        self._world, self._are_heard = world, are_heard
        self._standing: set[str] = set()

    def standing(self) -> set[str]:
        """As :meth:`scaler.orders.Orders.standing`."""
        return set(self._standing)

    def retire(self, id: str, *, launch: str, why: str) -> None:
        """As :meth:`scaler.orders.Orders.retire`."""
        self._standing.add(id)
        self._tell()

    def drain(self, id: str, *, launch: str, why: str) -> None:
        """Nobody rolls a model here."""

    def revoke(self, id: str) -> None:
        """As :meth:`scaler.orders.Orders.revoke`."""
        self._standing.discard(id)
        self._tell()

    def forget(self, id: str) -> None:
        """As :meth:`scaler.orders.Orders.forget`."""
        self._standing.discard(id)

    def _tell(self) -> None:
        if self._are_heard:
            self._world.retire(frozenset(self._standing))
