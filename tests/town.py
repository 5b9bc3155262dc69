"""A small world for the scaler: images, a queue, workers on machines, and an EC2 that does what EC2 does on bad days.

Seconds go by one at a time, on a clock of its own. Everything that must not happen is written down in ``harm``.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from irs.records import Beat, ModelFacts
from scaler.book import Intent
from scaler.fleet import Instance, Refused, Throttled, Unanswered
from scaler.observation import Pair

WALL = 1_790_000_000.0
FLEET = "town"
#: A killed worker's images are back after this long, as leases end.
LEASE_S = 30
DRAINED_END_S, OUTLIVE_S = 60, 900
#: An image received more often lies in the dead-letter queue.
MAX_RECEIVES = 5
SPOT, ON_DEMAND = Pair("c7g.large", "a", "spot"), Pair("c7g.large", "a", "on-demand")


@dataclass
class Faults:
    """Chances of what goes wrong, 0 to 1, and how it does."""

    boot_s: tuple[int, int] = (20, 60)
    failed_boot: float = 0.0
    unseen_s: int = 0
    unseen: float = 0.0
    no_capacity: float = 0.0
    lost_answer: float = 0.0
    throttled: float = 0.0
    lost_reading: float = 0.0
    uncounted: float = 0.0
    unstored: float = 0.0
    spot_end_per_hour: float = 0.0
    freeze_per_hour: float = 0.0


@dataclass
class Machine:
    """One instance, and the worker on it."""

    id: str
    pair: Pair
    launch: str
    tags: dict[str, str]
    launched_at: int
    boot_s: int
    fails: bool = False
    unseen_until: int = 0
    state: str = "running"
    reason: str = ""
    boot: int = 0
    phase: str = "starting"
    model: str = ""
    ready_at: int | None = None
    held: list[tuple[str, int]] = field(default_factory=list)
    completed: int = 0
    busy_s: int = 0
    idle_at: int = 0
    retires: bool = False
    drained_at: int | None = None
    is_frozen: bool = False
    is_silent: bool = False
    ends_at: int | None = None
    clock_off_s: int = 0
    beat: Beat | None = None

    @property
    def is_ours(self) -> bool:
        return self.tags.get("irs:fleet") == FLEET and self.tags.get("irs:role") == "worker"

    @property
    def lives(self) -> bool:
        return self.state in ("pending", "running", "stopping")


class Town:
    """The world. ``t`` are its seconds; ``cap`` and ``faults`` may change at any time."""

    def __init__(self, *, seed: int = 0, cap: int = 5, slots: int = 2, service_s: int = 1, faults: Faults | None = None) -> None:
        self.t, self.cap, self.slots, self.service_s = 0, cap, slots, service_s
        self.faults, self.chance = faults or Faults(), random.Random(seed)
        self.machines: dict[str, Machine] = {}
        self.waiting: deque[str] = deque()
        self.hidden: list[tuple[int, str]] = []
        self.handed_in, self.records, self.redelivered = 0, Counter[str](), 0
        #: Images that nobody can see yet, and those that kill whoever takes them.
        self.delayed, self.poison, self.receives, self.dead = 0, set[str](), Counter[str](), list[str]()
        self.orders: dict[str, str] = {}
        #: Of those ordered to leave, the ones that do not wait for an empty queue.
        self.drains = set[str]()
        #: Digest of the model that the workers' address stands for; boots with a broken one fail.
        self.model, self.broken_models = "aaaa", set[str]()
        self.harm: list[str] = []
        self.tokens: dict[str, list[str]] = {}
        self.asked: dict[str, int] = {}
        self.calls: list[tuple[int, str]] = []
        self.quota: int | None = None
        #: Places that have nothing to give.
        self.refused = set[Pair]()
        self.before_call: Callable[[str], None] = lambda _: None
        self.sign_of_life_at = 0

    # Images

    def hand_in(self, count: int) -> None:
        self.waiting.extend(str(self.handed_in + number) for number in range(count))
        self.handed_in += count

    @property
    def is_done(self) -> bool:
        return len(self.records) + len(self.dead) == self.handed_in

    @property
    def visible(self) -> int:
        return len(self.waiting)

    @property
    def inflight(self) -> int:
        return len(self.hidden) + sum(len(one.held) for one in self.machines.values())

    @property
    def live(self) -> list[Machine]:
        return [one for one in self.machines.values() if one.lives and one.is_ours]

    # Time

    def pass_s(self, seconds: int = 1) -> None:
        for _ in range(seconds):
            self.t += 1
            while self.hidden and self.hidden[0][0] <= self.t:
                self.waiting.append(self.hidden.pop(0)[1])
                self.redelivered += 1
            for machine in list(self.machines.values()):
                if machine.state == "running" and machine.is_ours:
                    self._live(machine)
                elif machine.state == "terminated" and self.t - machine.launched_at > 7200:
                    del self.machines[machine.id]
            if len(self.live) > self.cap:
                self.harm.append(f"{self.t} s: {len(self.live)} live at a cap of {self.cap}")

    def _live(self, machine: Machine) -> None:
        chance, faults = self.chance.random, self.faults
        if machine.ends_at is not None and self.t >= machine.ends_at:
            self.kill(machine, "Server.SpotInstanceTermination")
            return
        if machine.phase == "starting":
            if self.t - machine.launched_at >= machine.boot_s:
                if machine.fails or self.model in self.broken_models:
                    if machine.boot_s % 2:
                        self.kill(machine, "Client.InstanceInitiatedShutdown")
                    return
                machine.phase, machine.ready_at, machine.idle_at, machine.model = "ready", self.t, self.t, self.model
            # Its process begins some time after its machine.
            if self.t - machine.launched_at >= machine.boot_s // 2:
                self._beat(machine)
            return
        if machine.is_silent:
            return
        if machine.pair.market == "spot" and machine.ends_at is None and chance() < faults.spot_end_per_hour / 3600:
            # Half of them with notice, half without.
            machine.ends_at = self.t + (120 if chance() < 0.5 else 0)
            if machine.ends_at > self.t:
                self.give_back(machine)
                machine.phase = "interrupted"
        if machine.phase in ("ready", "busy", "retiring") and chance() < faults.freeze_per_hour / 3600:
            machine.is_frozen = True
        self._work(machine)
        self._beat(machine)

    def _work(self, machine: Machine) -> None:
        if machine.phase in ("interrupted", "drained"):
            if machine.drained_at is not None and self.t - max(machine.drained_at, self.sign_of_life_at) > DRAINED_END_S:
                self.kill(machine, "Client.InstanceInitiatedShutdown")
            return
        machine.retires = machine.id in self.orders
        if not machine.is_frozen:
            for image, done_at in list(machine.held):
                if done_at <= self.t:
                    machine.held.remove((image, done_at))
                    machine.completed += 1
                    self.records[image] += 1
        while self.waiting and len(machine.held) < self.slots and machine.id not in self.drains:
            image = self.waiting.popleft()
            self.receives[image] += 1
            if self.receives[image] > MAX_RECEIVES:
                self.dead.append(image)
                continue
            machine.held.append((image, self.t + self.service_s))
        if any(image in self.poison for image, _ in machine.held):
            # What it holds beside goes down with it: that is received once more.
            self.kill(machine, "Client.InstanceInitiatedShutdown")
            return
        machine.busy_s += bool(machine.held)
        if machine.held:
            machine.idle_at = self.t
        machine.phase = "retiring" if machine.retires else "busy" if machine.held else "ready"
        if machine.retires and (self.t - machine.idle_at >= 1 or (machine.id in self.drains and not machine.held)):
            machine.phase, machine.drained_at = "drained", self.t
        elif self.t - max(machine.idle_at, self.sign_of_life_at) > OUTLIVE_S:
            self.kill(machine, "Client.InstanceInitiatedShutdown")

    def _beat(self, machine: Machine) -> None:
        last, busy = machine.beat, len(machine.held)
        if (
            last is not None
            and last.phase == machine.phase
            and 0 <= self.t + machine.clock_off_s - (last.at - WALL) < (5 if busy else 15)
        ):
            return
        ready_after_s = None if machine.ready_at is None else float(machine.ready_at - machine.launched_at - 1)
        at = WALL + self.t + machine.clock_off_s
        machine.beat = Beat(
            instance=machine.id, boot=str(machine.boot), host="h", pid=1, phase=machine.phase, at=at,  # type: ignore[arg-type]
            started=WALL + machine.launched_at + 1, launch=machine.launch, ready_after_s=ready_after_s, slots=self.slots,
            busy_slots=busy, completed=machine.completed, busy_s=machine.busy_s,
            model=ModelFacts(name="m", digest=f"sha256:{machine.model}") if machine.model else None,
        )  # fmt: skip

    def give_back(self, machine: Machine) -> None:
        self.waiting.extend(image for image, _ in machine.held)
        machine.held.clear()

    def kill(self, machine: Machine, reason: str) -> None:
        """End a machine: what it held comes back when its leases end."""
        self.hidden += [(self.t + LEASE_S, image) for image, _ in machine.held]
        machine.held.clear()
        machine.state, machine.reason, machine.phase = "terminated", reason, "gone"

    def add_machine(self, pair: Pair = ON_DEMAND, *, launch: str = "", tags: dict[str, str] | None = None) -> Machine:
        """Put a machine there as if somebody had launched it."""
        faults = self.faults
        ours = {"irs:fleet": FLEET, "irs:role": "worker"}
        machine = Machine(
            id=f"i-{len(self.tokens)}-{len(self.machines)}-{self.t}",
            pair=pair,
            launch=launch,
            tags=ours if tags is None else tags,
            launched_at=self.t,
            boot_s=self.chance.randint(*faults.boot_s),
            fails=self.chance.random() < faults.failed_boot,
            unseen_until=self.t + faults.unseen_s if self.chance.random() < faults.unseen else 0,
        )
        self.machines[machine.id] = machine
        return machine


class TownEc2:
    """EC2 of the town, as one scaler sees it."""

    def __init__(self, town: Town) -> None:
        self._town = town

    def _strike(self, action: str) -> None:
        town = self._town
        town.before_call(action)
        town.calls.append((town.t, action))
        if town.chance.random() < town.faults.throttled:
            raise Throttled("RequestLimitExceeded")

    def describe(self) -> list[Instance]:
        self._strike("describe")
        town = self._town
        if town.chance.random() < town.faults.lost_reading:
            raise Unanswered("no answer")
        return [
            Instance(
                id=one.id, state=one.state, pair=one.pair, launched_at=WALL + one.launched_at,  # type: ignore[arg-type]
                launch=one.launch, reason=one.reason,
            )
            for one in town.machines.values()
            if one.is_ours and town.t >= one.unseen_until
        ]  # fmt: skip

    def run(self, intent: Intent) -> list[str]:
        self._strike("run")
        town = self._town
        if intent.token in town.tokens:
            ids = town.tokens[intent.token]
            if all(id not in town.machines or town.machines[id].state == "terminated" for id in ids):
                raise Refused("IdempotentInstanceTerminated", intent.launch)
            return ids
        if town.quota is not None and len(town.live) >= town.quota:
            raise Refused("VcpuLimitExceeded", "no more")
        if intent.pair in town.refused or town.chance.random() < town.faults.no_capacity:
            raise Refused("InsufficientInstanceCapacity", "none here")
        room = intent.count if town.quota is None else min(intent.count, town.quota - len(town.live))
        ids = [town.add_machine(intent.pair, launch=intent.launch).id for _ in range(room)]
        town.tokens[intent.token] = ids
        town.asked[intent.launch] = town.asked.get(intent.launch, 0) + len(ids)
        if town.asked[intent.launch] > intent.count:
            town.harm.append(
                f"{town.t} s: {town.asked[intent.launch]} launched for {intent.launch}, which asked for {intent.count}"
            )
        if town.chance.random() < town.faults.lost_answer:
            raise Unanswered("the answer was lost")
        town.before_call("run answered")
        return ids

    def start(self, intent: Intent) -> list[str]:
        self._strike("start")
        town = self._town
        for id in intent.ids:
            machine = town.machines[id]
            if machine.state == "stopped":
                machine.state, machine.phase, machine.launched_at, machine.ready_at = "running", "starting", town.t, None
                machine.boot, machine.drained_at, machine.retires = machine.boot + 1, None, False
                machine.completed, machine.busy_s = 0, 0
        if town.chance.random() < town.faults.lost_answer:
            raise Unanswered("the answer was lost")
        return list(intent.ids)

    def end(self, id: str, *, keep: bool) -> None:
        self._strike("end")
        town = self._town
        machine = town.machines[id]
        if not machine.is_ours:
            return
        if machine.held and not (machine.is_frozen or machine.is_silent):
            town.harm.append(f"{town.t} s: {id} was ended with {len(machine.held)} images in hand")
        town.kill(machine, "Client.UserInitiatedShutdown")
        if keep:
            machine.state = "stopped"
        if town.chance.random() < town.faults.lost_answer:
            raise Unanswered("the answer was lost")

    def console(self, id: str) -> str:
        return f"{id}: kernel panic" if self._town.machines[id].fails else ""
