"""How the service stands: what waits in the queues, what the workers say of themselves, what the scaler decided."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

from irs.cloud import Cloud
from irs.errors import QueueUnavailable
from irs.monitoring.beats import NEWS, read_beats
from irs.monitoring.decisions import ScalerSeen, find_scaler
from irs.records import Beat
from irs.records.beat import SILENT_S

#: The last words of workers that left by themselves: no silence after them.
LEFT = ("drained", "interrupted")

_COUNTS = {
    "visible": "ApproximateNumberOfMessages",
    "in_flight": "ApproximateNumberOfMessagesNotVisible",
    "delayed": "ApproximateNumberOfMessagesDelayed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueCounts:
    """Messages of one queue, by SQS's own count: approximate on AWS, up to a minute late."""

    queue: str
    visible: int
    in_flight: int
    delayed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSeen:
    """One worker by its last beat; ``phase`` is the beat's, or ``silent``; ``age_s`` is the beat's age."""

    phase: str
    age_s: float
    beat: Beat


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The service at one moment: requests, dead letters, responses; workers by name; None where no scaler ever decided."""

    stack: str
    endpoint: str
    queues: tuple[QueueCounts, ...]
    workers: tuple[WorkerSeen, ...]
    scaler: ScalerSeen | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return dataclasses.asdict(self)


def read_status(cloud: Cloud) -> Status:
    """Return how the service stands now.

    Raises:
        MissingResource, Unreachable, QueueUnavailable, StorageUnavailable: as the cloud answers.
    """
    settings = cloud.settings
    names = (settings.requests_queue, settings.requests_dead_queue, settings.responses_queue)
    return Status(
        stack=settings.stack,
        endpoint=settings.endpoint_url or f"AWS {settings.region}",
        queues=tuple(count_queue(cloud, name) for name in names),
        workers=tuple(see_workers(cloud)),
        scaler=find_scaler(cloud),
    )


def count_queue(cloud: Cloud, name: str) -> QueueCounts:
    """Return the counts of one queue; raises as :func:`read_status`."""
    from botocore.exceptions import BotoCoreError, ClientError

    url = cloud.queue_url(name)
    try:
        said = cloud.sqs().get_queue_attributes(QueueUrl=url, AttributeNames=list(_COUNTS.values()))["Attributes"]
    except (BotoCoreError, ClientError) as error:
        raise QueueUnavailable(f"SQS does not count queue {name}: {error}") from None
    return QueueCounts(queue=name, **{field: int(said.get(attribute, 0)) for field, attribute in _COUNTS.items()})


def see_workers(cloud: Cloud, *, now: float | None = None) -> list[WorkerSeen]:
    """Return the workers that have not said ``stopped``, those silent for over an hour left out.

    Who has left by itself is kept for as long as one that says nothing is not called silent.

    Raises:
        MissingResource: there is no output bucket.
        StorageUnavailable: S3 does not answer.
    """
    at = time.time() if now is None else now
    seen = [_seen(beat, at) for beat in read_beats(cloud)]
    kept_s = {"stopped": 0.0, **dict.fromkeys(LEFT, SILENT_S)}
    return [worker for worker in seen if worker.age_s < kept_s.get(worker.beat.phase, NEWS.total_seconds())]


def _seen(beat: Beat, at: float) -> WorkerSeen:
    age_s = max(0.0, at - beat.at)
    is_silent = age_s > SILENT_S and beat.phase not in LEFT
    return WorkerSeen(phase="silent" if is_silent else beat.phase, age_s=round(age_s, 1), beat=beat)
