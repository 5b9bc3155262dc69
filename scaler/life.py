"""The life of each worker instance, told from three witnesses: EC2, its beats, and what was asked for.

``intent -> requested -> booting -> ready -> retiring -> drained -> terminated``; side exits: a boot that fails, a worker
that falls silent or hangs, a spot notice. Nothing here calls anyone: it says who works and who is to be ended, and why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from irs.records.beat import SILENT_S
from scaler.book import Intent
from scaler.fleet import Instance
from scaler.observation import Boot, Pair, Phase, Worker

#: A boot that takes longer than both has failed; one that nobody remembers asking for gets two boot times.
BOOT_TIMES, BOOT_S, ORPHAN_BOOT_TIMES = 5.0, 300.0, 2.0
#: EC2 may not list what it has just given; what was asked counts so long.
UNSEEN_S = 120.0
#: A call with an unknown outcome is repeated for so long; then the list of instances has the last word.
UNANSWERED_S = 600.0
#: A worker that holds images and finishes none, or says nothing, is ended after so long: its images have come back since.
STUCK_END_S, SILENT_END_S = 300.0, 900.0
#: Why a worker is ended that has said so itself.
DRAINED = "it has drained"
SPOT_END = "Server.SpotInstanceTermination"

_BOOTING = frozenset({"starting", "warming"})
_DONE = frozenset({"drained", "stopped"})
_LEAVING = frozenset({"draining", "interrupted"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What a worker said last.

    Attributes:
        phase: the beat's own word.
        launch: the launch it knows it came of; None where it does not know.
        started_at: when its process began, and ``ready_at`` when it became ready (None before): Unix seconds by its own
            clock.
        silent_s: for how long no new beat was seen, while beats could be read.
        stuck_s: for how long it has held images and finished none; 0 until that is too long.
        model: digest of the model it serves, in hex; "" before it has said so.
    """

    phase: str
    launch: str | None = None
    started_at: float = 0.0
    busy: int = 0
    ready_at: float | None = None
    silent_s: float = 0.0
    stuck_s: float = 0.0
    model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetNow:
    """The fleet at one look.

    Attributes:
        workers: all that count against the cap, what was asked for and is not seen yet included.
        boots: starts that ended well since the last look.
        finish: instances to be ended now, and why; ``failed`` are boots among those ended or gone.
        notices: places whose spot instance is being taken away, once each.
        stopped: ids of the stopped pool, oldest first.
        intents: those still to be counted.
        gone: ids that ended since the last look.
    """

    workers: tuple[Worker, ...] = ()
    boots: tuple[Boot, ...] = ()
    finish: Mapping[str, str] = field(default_factory=dict)
    failed: frozenset[str] = frozenset()
    notices: tuple[Pair, ...] = ()
    stopped: tuple[str, ...] = ()
    intents: tuple[Intent, ...] = ()
    gone: frozenset[str] = frozenset()

    def count(self, *phases: Phase) -> int:
        """Return how many workers are in one of ``phases``."""
        return sum(1 for worker in self.workers if worker.phase in phases)


@dataclass(slots=True)
class _Known:
    """What is remembered of one instance between looks, on the own clock."""

    instance: Instance
    first_seen: float
    last_seen: float
    launched_at: float
    is_restarted: bool = False
    has_booted: bool = False
    has_notice: bool = False
    is_ended: bool = False


@dataclass(slots=True)
class _Look:
    """What one look has found so far."""

    workers: list[Worker] = field(default_factory=list)
    boots: list[tuple[float, Boot]] = field(default_factory=list)
    finish: dict[str, str] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    notices: list[Pair] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)


class Life:
    """Follows the instances of one fleet from look to look; made anew by each leader."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._has_looked = False

    def look(
        self,
        instances: Sequence[Instance],
        heard: Mapping[str, Heard],
        intents: Iterable[Intent],
        *,
        remembered: Collection[str],
        ending: Collection[str] = (),
        now: float,
        wall: float,
        boot_s: float,
    ) -> FleetNow:
        """Return the fleet at ``now`` (own clock); ``wall`` is Unix time, used for ages alone.

        Args:
            remembered: booting instances that came of an intent.
            ending: those that were told to end: no boot of theirs fails by itself.
            boot_s: how long a boot takes.
        """
        self._remember(instances, now, wall)
        found = _Look()
        for id, known in list(self._known.items()):
            is_listed, state = known.last_seen == now, known.instance.state
            known.has_booted = known.has_booted or id in ending
            if state == "terminated" or (not is_listed and now - known.last_seen >= UNSEEN_S):
                self._follow_end(known, _of(known.instance, heard), found)
                if not is_listed:
                    del self._known[id]
            elif state == "stopped":
                known.has_booted = False
                found.stopped.append(id)
            else:
                # One that EC2 does not list for once still counts, by what it says itself.
                limit_s = _boot_limit_s(id in remembered or id in heard, boot_s)
                self._follow_run(known, _of(known.instance, heard), found, now, limit_s)
        counted, requested = _requested(intents, instances, now)
        self._has_looked = True
        return FleetNow(
            workers=(*found.workers, *requested),
            boots=tuple(boot for _, boot in sorted(found.boots, key=lambda one: one[0])),
            finish=found.finish,
            failed=frozenset(found.failed),
            notices=tuple(found.notices),
            stopped=tuple(found.stopped),
            intents=counted,
            gone=frozenset(found.gone),
        )

    def launch_of(self, id: str) -> str:
        """Return the tag ``irs:launch`` of an instance that was seen; "" where it has none."""
        return self._known[id].instance.launch if id in self._known else ""

    def _remember(self, instances: Sequence[Instance], now: float, wall: float) -> None:
        for instance in instances:
            known = self._known.get(instance.id)
            if known is None or (known.instance.launched_at != instance.launched_at and instance.state != "terminated"):
                # Seen first, or started anew. The age is fixed here, so that no jump of the wall clock changes it later.
                launched_at = now - max(0.0, wall - instance.launched_at)
                ended = instance.state == "terminated" and not self._has_looked
                again = known is not None and known.instance.state in ("stopped", "stopping")
                self._known[instance.id] = _Known(instance, now, now, launched_at, is_restarted=again, is_ended=ended)
            else:
                known.instance, known.last_seen = instance, now

    def _follow_end(self, known: _Known, said: Heard | None, found: _Look) -> None:
        if known.is_ended:
            return
        self._note_boot(known, said, found)
        known.is_ended = True
        found.gone.add(known.instance.id)
        if not known.has_booted and known.instance.reason != SPOT_END:
            found.failed.add(known.instance.id)

    def _note_boot(self, known: _Known, said: Heard | None, found: _Look) -> None:
        """A first word of readiness ends the boot, though the worker may be gone again by now."""
        if said is None or said.ready_at is None or known.has_booted:
            return
        known.has_booted = True
        # What was ready before the first look has been measured by an earlier leader.
        if self._has_looked:
            took_s = said.ready_at - known.instance.launched_at
            kind = kind_of(known.instance.pair, pooled=known.is_restarted)
            found.boots.append((said.ready_at, Boot(kind=kind, took_s=took_s, id=known.instance.id)))

    def _follow_run(self, known: _Known, said: Heard | None, found: _Look, now: float, limit_s: float) -> None:
        instance = known.instance
        if instance.state in ("shutting-down", "stopping"):
            # Its end was asked for, or is its own: told of when it is gone.
            known.has_booted = known.has_booted or (said is not None and said.ready_at is not None)
            found.workers.append(_worker(known, "leaving", said))
            return
        phase = "booting" if said is None else phase_of(said)
        why = "" if said is None else _why_end(said, phase)
        self._note_boot(known, said, found)
        # By the time it was watched, not by its age: a wall clock that jumps must end no boot.
        if phase == "booting" and now - known.first_seen > limit_s:
            why = f"it is not ready {now - known.first_seen:.0f} s after it was first seen"
        if why:
            phase = "leaving"
            found.finish[instance.id] = why
            if not known.has_booted:
                # Counted here and now, not again when it is gone.
                known.has_booted = True
                found.failed.add(instance.id)
        if said is not None and said.phase == "interrupted" and not known.has_notice:
            known.has_notice = True
            found.notices.append(instance.pair)
        found.workers.append(_worker(known, phase, said))


def _boot_limit_s(is_known: bool, boot_s: float) -> float:
    return max(BOOT_TIMES * boot_s, BOOT_S) if is_known else ORPHAN_BOOT_TIMES * boot_s


def _why_end(said: Heard, phase: Phase) -> str:
    """Return why a worker is to be ended, by what it said; "" if it is not."""
    if said.phase in _DONE:
        return DRAINED if said.phase == "drained" else "it has stopped"
    if phase == "stuck" and said.stuck_s > STUCK_END_S:
        return f"it has held images for {said.stuck_s:.0f} s and finished none"
    if phase != "booting" and said.silent_s > SILENT_END_S:
        return f"it has said nothing for {said.silent_s:.0f} s"
    return ""


def kind_of(pair: Pair, *, pooled: bool = False) -> str:
    """Return what the boot time of an instance depends on; a stopped one that is started boots sooner."""
    return f"{pair.type} {'stopped' if pooled else 'fresh'}".strip()


def phase_of(said: Heard) -> Phase:
    """Return the phase of a worker that runs, by what it said alone."""
    if said.phase in _BOOTING:
        return "booting"
    if said.phase in _DONE or said.phase in _LEAVING:
        return "leaving"
    if said.silent_s > SILENT_S:
        return "lost"
    # A worker of a later version may say what is not known here: it works, so it is not sent home.
    return "stuck" if said.stuck_s > 0 else "ready"


def _of(instance: Instance, heard: Mapping[str, Heard]) -> Heard | None:
    said = heard.get(instance.id)
    # What an earlier launch of the same name said tells nothing of this one.
    return (
        None
        if said is not None and None not in (said.launch, instance.launch or None) and said.launch != instance.launch
        else said
    )


def _worker(known: _Known, phase: Phase, said: Heard | None) -> Worker:
    return Worker(
        id=known.instance.id,
        phase=phase,
        launched_at=known.launched_at,
        busy=said.busy if said is not None else 0,
        kind=kind_of(known.instance.pair, pooled=known.is_restarted),
    )


def _requested(intents: Iterable[Intent], instances: Sequence[Instance], now: float) -> tuple[tuple[Intent, ...], list[Worker]]:
    """Return the intents that still count, and a worker for each of their instances that EC2 does not show yet."""
    # One of the pool may be listed as stopped for a while after its start.
    seen, launches = {one.id for one in instances if one.state != "stopped"}, Counter(one.launch for one in instances)
    counted: list[Intent] = []
    missing: list[Worker] = []
    for intent in intents:
        if intent.answered_at is not None:
            absent = [id for id in intent.ids if id not in seen]
            if not absent or now - intent.answered_at >= UNSEEN_S:
                continue
        else:
            if now - intent.at >= UNANSWERED_S:
                # Never answered: what EC2 shows under its launch is all that came of it.
                continue
            shown = launches[intent.launch]
            absent = list(intent.ids) if intent.pooled else [f"{intent.launch}#{n}" for n in range(intent.count - shown)]
        counted.append(intent)
        kind = kind_of(intent.pair, pooled=intent.pooled)
        missing += [Worker(id=id, phase="requested", launched_at=intent.at, kind=kind) for id in absent]
    return tuple(counted), missing
