"""What the policy decides on, read: the queue's counts from SQS, the workers and what they did from their beats."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from irs.cloud import Cloud
from irs.errors import IrsError
from irs.monitoring.beats import read_beats
from irs.records import Beat
from scaler.life import Heard
from scaler.observation import Observation

log = logging.getLogger(__name__)

_COUNTS = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)
#: A worker that holds images and finished none for so long is stuck.
STUCK_S = 120.0
#: A busy worker beats every 5 s; for longer than two beats its rate is not thought on.
CARRY_S = 10.0
#: Between two looks no more silence is counted than this: in an outage of ours nobody fell silent.
LONGEST_GAP_S = 15.0
#: A worker beats at least so often; its busy seconds grow no faster than time does.
BEAT_S = 15.0
#: Who has said nothing for so long does not come back: of its counters the sums alone are kept.
SETTLED_S = 86_400.0
#: A counter beyond this is broken: no worker ever finished so many images.
MOST = 1e12
#: An answer that takes longer would cost the lease.
WITHIN_S = 3.0


@dataclass(frozen=True, slots=True)
class Counts:
    """Messages of the request queue; None is a count that SQS did not give, never 0."""

    visible: int | None = None
    inflight: int | None = None
    delayed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One look: ``observation`` has no workers yet, ``heard`` is what each worker said, by instance."""

    observation: Observation
    heard: Mapping[str, Heard] = field(default_factory=dict)


class Signals(Protocol):
    """Where the loop looks."""

    def read(self, *, now: float, wall: float, stuck_after_s: float) -> Reading:
        """Look once; ``now`` is the scaler's clock, ``wall`` the beats' (Unix seconds).

        Raises:
            StorageUnavailable: the beats cannot be read. Counts that cannot be read are None.
        """


class LiveSignals:
    """The queue and the beats of one stack."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud, self._beats = cloud, Beats()

    def read(self, *, now: float, wall: float, stuck_after_s: float) -> Reading:
        """As :meth:`Signals.read`."""
        counts = read_counts(self._cloud)
        return self._beats.observe(read_beats(self._cloud), counts, now=now, wall=wall, stuck_after_s=stuck_after_s)


def read_counts(cloud: Cloud) -> Counts:
    """Return the counts of the request queue; a failure is three times None, and a line in the log."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        url = cloud.queue_url(cloud.settings.requests_queue)
        sqs = cloud.client("sqs", read_seconds=WITHIN_S, attempts=1)
        said = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(_COUNTS)).get("Attributes", {})
    except (IrsError, BotoCoreError, ClientError) as error:
        log.warning("queue not counted", extra={"error": str(error)})
        return Counts()
    return Counts(*(_count(said.get(name)) for name in _COUNTS))


def _count(said: object) -> int | None:
    text = str(said)
    return int(text) if text.isascii() and text.isdigit() else None


@dataclass(slots=True)
class _Tally:
    """One start of one worker: what it said last, and what is counted of it since it is followed.

    Attributes:
        said, said_busy_s, said_at: counters and time of its last beat; ``heard_at`` is when that came, on the own clock.
        exact: images finished by its last beat; ``counted`` has those since then too, by its own rate.
        silent_s, idle_s: time without a new beat, and without an image finished, while beats could be read.
    """

    said: int
    said_busy_s: float
    said_at: float
    heard_at: float
    exact: int = 0
    counted: float = 0.0
    busy_s: float = 0.0
    rate_per_s: float = 0.0
    silent_s: float = 0.0
    idle_s: float = 0.0

    def hear(self, beat: Beat, said: int, now: float) -> None:
        """Take in what a new beat counts: nothing of it that cannot be."""
        done, grown_s = said - self.said, beat.busy_s - self.said_busy_s
        self.rate_per_s = max(0, done) / (beat.at - self.said_at) if beat.at > self.said_at else 0.0
        # A counter that falls is broken, or the beat is an old one.
        if done >= 0 or beat.at > self.said_at:
            self.exact += max(0, done)
            self.said = said
        # NaN is in no range; nobody is busy for longer than time goes by.
        if 0 <= grown_s <= now - self.heard_at + BEAT_S:
            self.busy_s += grown_s
        self.said_busy_s, self.said_at, self.heard_at, self.silent_s = beat.busy_s, beat.at, now, 0.0


class Beats:
    """Sums the counters of all workers, those that are gone included: one for each scaler, fed with each look.

    Counters are told apart by instance and start, so one that begins again at 0 adds to the sum. What was done before
    the first look is left out. Silence is counted on the own clock: no worker's clock is trusted for it.
    """

    def __init__(self) -> None:
        self._tallies: dict[tuple[str, str], _Tally] = {}
        self._settled, self._settled_busy_s = 0.0, 0.0
        self._looked_at: float | None = None

    def observe(
        self, beats: Iterable[Beat], counts: Counts, *, now: float, wall: float, stuck_after_s: float = STUCK_S
    ) -> Reading:
        """Return what this look says; ``now`` is the scaler's clock, ``wall`` the beats' (Unix seconds)."""
        gap_s = 0.0 if self._looked_at is None else min(max(0.0, now - self._looked_at), LONGEST_GAP_S)
        heard: dict[str, Heard] = {}
        waits_s: list[float] = []
        silent = set(self._tallies)
        for beat in beats:
            silent.discard((beat.instance, beat.boot))
            tally = self._follow(beat, gap_s, now, wall)
            is_stuck = beat.busy_slots > 0 and tally.idle_s > stuck_after_s
            heard[beat.instance] = Heard(
                phase=beat.phase,
                launch=beat.launch,
                started_at=beat.started,
                busy=beat.busy_slots,
                ready_at=None if beat.ready_after_s is None else beat.started + beat.ready_after_s,
                silent_s=tally.silent_s,
                stuck_s=tally.idle_s if is_stuck else 0.0,
                model=beat.model.digest.removeprefix("sha256:") if beat.model else "",
            )
            if beat.queued_s is not None and 0 <= beat.queued_s < math.inf and tally.silent_s <= CARRY_S:
                waits_s.append(beat.queued_s)
        self._looked_at = now
        for key in silent:
            self._settle(key, now)
        observation = Observation(
            visible=counts.visible,
            inflight=counts.inflight,
            delayed=counts.delayed,
            completed_total=self._settled + sum(tally.counted for tally in self._tallies.values()),
            busy_total_s=self._settled_busy_s + sum(tally.busy_s for tally in self._tallies.values()),
            oldest_wait_s=max(waits_s, default=None),
        )
        return Reading(observation=observation, heard=heard)

    def _settle(self, key: tuple[str, str], now: float) -> None:
        if now - self._tallies[key].heard_at >= SETTLED_S:
            tally = self._tallies.pop(key)
            self._settled += tally.counted
            self._settled_busy_s += tally.busy_s

    def _follow(self, beat: Beat, gap_s: float, now: float, wall: float) -> _Tally:
        key, counted = (beat.instance, beat.boot), beat.completed + beat.failed
        tally = self._tallies.get(key)
        if tally is None:
            # One that came since the last look has done all of it since then.
            before = (counted, beat.busy_s, -math.inf, now) if self._looked_at is None else (0, 0.0, -math.inf, self._looked_at)
            tally = self._tallies[key] = _Tally(*before)
        said = counted if 0 <= counted < MOST else tally.said
        # A worker that waits for S3 is not stuck: it goes on by itself.
        has_moved = said > tally.said or not beat.busy_slots or beat.phase == "paused"
        tally.idle_s = 0.0 if has_moved else tally.idle_s + gap_s
        # Told by another time, not by a later one: a worker whose clock was set back still speaks.
        if beat.at != tally.said_at:
            tally.hear(beat, said, now)
        else:
            tally.silent_s += gap_s
        # Images finished since the beat: left out they would look like ones that never came, and then come anew.
        age_s = min(max(0.0, wall - beat.at), CARRY_S)
        carried = tally.rate_per_s * age_s if beat.phase in ("busy", "retiring") and tally.silent_s <= CARRY_S else 0.0
        tally.counted = max(tally.counted, tally.exact + carried)
        return tally
