"""Where the time of one image went, read after the fact: its record says all but how long storing it took."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from irs import records
from irs.cloud import Cloud
from irs.errors import BadOptions
from irs.monitoring.cost import WRITES_OF_JOB, cost_of
from irs.monitoring.prices import LIST
from irs.monitoring.status import count_queue, see_workers
from irs.records import BatchFacts, Fault, Record, _Json
from irs.results import RecordStore

#: By name in the record's ``timing``.
STAGES = {"queued": "queued", "fetch": "fetched", "decode": "decoded", "batch": "batched", "model": "inferred"}
_WAITING_FOR_MESSAGES = ("ready", "busy", "retiring")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(_Json):
    """One stage: it began ``at_s`` after the task was sent and took ``took_s``.

    Attributes:
        is_about: told by S3's clock and not the worker's, on AWS to a second: of storing.
    """

    stage: str
    at_s: float
    took_s: float
    is_about: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace(_Json):
    """The story of one image.

    Attributes:
        sent_at: Unix seconds; None where the task carried no time, or was never begun.
        total_s: from sending to the record's storing; None where the record does not tell.
        worker, receive, batch: who answered, at which delivery of the message, in which model call.
        usd: what its requests and its worker's time cost; ``usd_worker`` of it the worker's, None if no price is known.
        summary: all this in a sentence.
    """

    task_id: str
    job: str | None
    number: int | None
    name: str | None
    status: str
    label: str | None
    error: Fault | None
    sent_at: float | None
    total_s: float | None
    steps: tuple[Step, ...]
    worker: str | None
    receive: int
    batch: BatchFacts | None
    is_cached: bool
    model: str | None
    usd: float
    usd_worker: float | None
    price_from: str
    summary: str


def read_id(text: str) -> str:
    """Return the task id that is meant by a task id, or by JOB/NUMBER.

    Raises:
        BadOptions: it names a whole job.
    """
    job, slash, number = text.partition("/")
    if slash and number.isdecimal() and records.split_task_id(records.task_id(job, 0)):
        return records.task_id(job, int(number))
    if records.split_task_id(records.task_id(text, 0)):
        raise BadOptions(f"{text} is a whole job: name one of its images, such as {text}/0")
    return text


def read_trace(cloud: Cloud, task_id: str, *, price: tuple[float | None, str]) -> Trace:
    """Return the story of a task that has a record, or was cancelled.

    Args:
        price: of a worker, as :func:`irs.monitoring.cost.price_of` returns.

    Raises:
        BadOptions: it waits still, or nothing is known of it: in one sentence, with what is known.
        StorageUnavailable: S3 does not answer.
    """
    record = RecordStore(cloud).find_answer(task_id)
    if record is None:
        raise BadOptions(_why_missing(cloud, task_id))
    return trace_of(
        record,
        _stored_at(cloud, task_id),
        price=price,
        input_days=cloud.settings.input_days,
        output_days=cloud.settings.output_days,
    )


def trace_of(
    record: Record, stored_at: float | None, *, price: tuple[float | None, str], input_days: float, output_days: float
) -> Trace:
    """Return the story behind a record that S3 says was stored at ``stored_at`` (Unix seconds). Pure."""
    steps = list(_steps(record))
    sent_at = record.timing.submitted
    total_s = None
    if sent_at is not None and stored_at is not None and steps:
        end_s = steps[-1].at_s + steps[-1].took_s
        is_about = stored_at == int(stored_at)
        # To the second S3 cuts: the record was stored before that second was over.
        total_s = max(end_s, stored_at - sent_at)
        steps.append(Step(stage="stored", at_s=end_s, took_s=round(total_s - end_s, 6), is_about=is_about))
    cost = cost_of(record.job or "", [record], (), price=price, input_days=input_days, output_days=output_days)
    return Trace(
        task_id=record.task_id,
        job=record.job,
        number=record.number,
        name=record.image.name,
        status=record.status,
        label=record.labels[0].label if record.labels else None,
        error=record.error,
        sent_at=sent_at,
        total_s=total_s,
        steps=tuple(steps),
        worker=record.worker,
        receive=record.receives,
        batch=record.batch,
        is_cached=record.cached,
        model=record.model.name if record.model else None,
        # Without what opens and closes the job: that is the job's.
        usd=cost.total_usd - WRITES_OF_JOB * LIST.s3_write,
        usd_worker=cost.usd.work,
        price_from=cost.price_from,
        summary=_summary(record),
    )


def _steps(record: Record) -> Iterable[Step]:
    at_s = 0.0
    for name, stage in STAGES.items():
        took_s = getattr(record.timing, name)
        if took_s is not None:
            yield Step(stage=stage, at_s=round(at_s, 6), took_s=took_s)
            at_s += took_s


def _summary(record: Record) -> str:
    if record.status == "cancelled":
        return "It was cancelled before a worker had answered it."
    if not record.receives:
        return "It was refused when it was handed in: no worker ever had it."
    told = f"at its {_ordinal(record.receives)} receive"
    batch = ""
    if record.batch is not None:
        others = f"with {_counted(record.batch.size - 1, 'other')}" if record.batch.size > 1 else "alone"
        batch = f", in its model call {record.batch.number}, {others}"
    elif record.cached:
        batch = ", from memory: it had answered the same bytes before"
    return f"Answered by {record.worker or 'the janitor'} {told}{batch}."


def _ordinal(number: int) -> str:
    return {1: "first", 2: "second", 3: "third"}.get(number, f"{number}th")


def _stored_at(cloud: Cloud, task_id: str) -> float | None:
    key = records.record_key(task_id)
    return next((one.modified.timestamp() for one in cloud.output.list(key) if one.key == key), None)


def _why_missing(cloud: Cloud, task_id: str) -> str:
    """Return what is known of a task without a record, as a sentence."""
    store, split, days = RecordStore(cloud), records.split_task_id(task_id), cloud.settings.output_days
    if split is None:
        return (
            f"{task_id} has no record: it waits or is in work, or no such task was sent, or it is older than {days} days"
            f" ({_standing(cloud)})"
        )
    job, number = split
    manifest = store.find_manifest(job)
    if manifest is None and store.find_open(job) is None:
        return f"job {job} is not known: check its id; records are kept {days} days"
    if manifest is not None and number >= manifest.count:
        return f"job {job} has no image {number}: it holds {manifest.count}, numbered from 0"
    if manifest is None and number not in store.list_images(job):
        return f"job {job} is still open, and its image {number} has not arrived: hand it in, or check the number"
    return f"image {number} of job {job} has no record yet: it waits or is in work ({_standing(cloud)})"


def _standing(cloud: Cloud) -> str:
    count = count_queue(cloud, cloud.settings.requests_queue)
    workers = sum(one.phase in _WAITING_FOR_MESSAGES for one in see_workers(cloud))
    return (
        f"{_counted(count.visible, 'message')} waiting and {count.in_flight} in work, with {_counted(workers, 'worker')}"
        f"{'; `irs dlq list` names those given up' if workers else ': start one with `irs worker` or `irs up`'}"
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
