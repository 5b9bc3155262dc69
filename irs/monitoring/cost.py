"""What a job costs: the time of its workers, its requests, its storage; what its workers idled is told apart.

All is read from the records and the workers' beats. Time at work is what the records show: from an image's receipt to
the end of its last stage, overlaps counted once. Requests are counted by what each image needs (the table of
docs/costs.md, measured by `irs bench`), not from a bill.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from irs import records
from irs.cloud import Cloud
from irs.errors import BadOptions, NotFound, StorageUnavailable
from irs.monitoring.prices import DATE, LIST, find_price
from irs.records import Beat, Record, _Json
from irs.results import RecordStore

#: Between two images of one worker less than this is work that their records do not show: storing, batch mates.
GAP_S = 1.0
#: SQS requests of a worker an image under load: receives, deletes, renewals and news (bench/README.md). Of its sender a tenth.
SQS_AT_WORKER, SQS_AT_SENDER = 0.265, 0.1
#: What opens, closes and lists a job of up to a thousand images.
WRITES_OF_JOB = 3
READ_AT_ONCE = 500
_GIB, _MONTH_DAYS, _HOUR_S = 2**30, 30.0, 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerShare(_Json):
    """What one worker did for the job: ``busy_s`` at work on it, ``idle_s`` its share of the time without work."""

    worker: str
    images: int
    busy_s: float
    idle_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests(_Json):
    """Requests of the whole way: caller, worker, one reader of each record."""

    s3_writes: int
    s3_reads: int
    sqs: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Dollars(_Json):
    """Dollars by what they are for; ``work`` and ``idle`` are None where nobody said what an hour costs."""

    work: float | None
    idle: float | None
    requests: float
    storage: float

    @property
    def total(self) -> float:
        """All that is known of."""
        return (self.work or 0.0) + (self.idle or 0.0) + self.requests + self.storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost(_Json):
    """What one job has cost so far.

    Attributes:
        images: with a record, whatever it says; ``answered`` of them by a worker.
        work_s, idle_s: seconds of workers; ``idle_share`` is idle of both, 0 to 1.
        per_image_usd: the whole by ``images``, idle included; ``work_s_per_image`` by those answered.
        price_per_hour: dollars for an hour of a worker, None if unknown; ``price_from`` says who knows.
        prices_of: the month of the prices of requests and storage.
        summary: all this in a few words.
    """

    job: str
    images: int
    answered: int
    work_s: float
    idle_s: float
    idle_share: float
    work_s_per_image: float
    requests: Requests
    usd: Dollars
    total_usd: float
    per_image_usd: float
    price_per_hour: float | None
    price_from: str
    prices_of: str
    summary: str
    workers: tuple[WorkerShare, ...]


def price_of(cloud: Cloud, *, instance_type: str = "", per_hour: float | None = None) -> tuple[float | None, str]:
    """Return dollars for an hour of a worker, and who says so: the caller, a type in the table, or the settings.

    Raises:
        BadOptions: the type is not in the table.
    """
    if per_hour is not None:
        return per_hour, "asked for"
    settings = cloud.settings
    if not instance_type and settings.price_per_hour:
        return settings.price_per_hour, "IRS_PRICE_PER_HOUR"
    named = instance_type or next(iter(settings.scaler_types), "")
    if not named:
        return None, "unknown: set IRS_PRICE_PER_HOUR"
    found = find_price(named)
    if found is None and instance_type:
        raise BadOptions(f"no price of {instance_type} is known: say what an hour costs with --price-per-hour")
    return found, f"{named} on demand, {DATE}" if found is not None else "unknown: set IRS_PRICE_PER_HOUR"


def read_cost(cloud: Cloud, job: str, *, price: tuple[float | None, str]) -> Cost:
    """Return what a job has cost so far: a GET for each record and each of its workers.

    Args:
        price: as :func:`price_of` returns.

    Raises:
        BadOptions: the job has no record.
        StorageUnavailable: S3 does not answer.
    """
    store = RecordStore(cloud)
    ids = [records.task_id(job, number) for number in store.list_job(job).numbers]
    if not ids:
        raise BadOptions(f"job {job} has no record: check its id; records are kept {cloud.settings.output_days} days")
    found = list(_read(store, ids))
    beats = [beat for name in sorted({_instance(one) for one in found if one.worker}) if (beat := _beat(cloud, name))]
    return cost_of(job, found, beats, price=price, input_days=cloud.settings.input_days, output_days=cloud.settings.output_days)


def cost_of(
    job: str,
    found: Sequence[Record],
    beats: Iterable[Beat],
    *,
    price: tuple[float | None, str],
    input_days: float,
    output_days: float,
) -> Cost:
    """Return the cost behind records and the beats of their workers. Pure."""
    shares = tuple(_shares(found, {beat.instance: beat for beat in beats}))
    work_s, idle_s = sum(one.busy_s for one in shares), sum(one.idle_s for one in shares)
    answered = sum(one.images for one in shares)
    per_hour, price_from = price
    requests = _requests(job, found)
    usd = Dollars(
        work=None if per_hour is None else work_s / _HOUR_S * per_hour,
        idle=None if per_hour is None else idle_s / _HOUR_S * per_hour,
        requests=requests.s3_writes * LIST.s3_write + requests.s3_reads * LIST.s3_read + requests.sqs * LIST.sqs_request,
        storage=_storage_usd(job, found, input_days, output_days),
    )
    idle_share = idle_s / (work_s + idle_s) if work_s + idle_s else 0.0
    work_s_per_image = work_s / answered if answered else 0.0
    per_image_usd = usd.total / len(found) if found else 0.0
    worker = f"{1000 * work_s_per_image:.3g} ms of a worker an image, {idle_share:.0%} idle"
    return Cost(
        job=job,
        images=len(found),
        answered=answered,
        work_s=round(work_s, 3),
        idle_s=round(idle_s, 3),
        idle_share=round(idle_share, 4),
        work_s_per_image=work_s_per_image,
        requests=requests,
        usd=usd,
        total_usd=usd.total,
        per_image_usd=per_image_usd,
        price_per_hour=per_hour,
        price_from=price_from,
        prices_of=DATE,
        summary=worker if per_hour is None else f"${1000 * per_image_usd:.3g} a thousand; {worker}",
        workers=shares,
    )


def _shares(found: Sequence[Record], beats: dict[str, Beat]) -> Iterable[WorkerShare]:
    spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for record in found:
        if record.worker and (span := _span(record)):
            spans[_instance(record)].append(span)
    for name, of_worker in sorted(spans.items()):
        busy_s = _covered_s(of_worker)
        first, last = min(begin for begin, _ in of_worker), max(end for _, end in of_worker)
        beat = beats.get(name)
        idle_s = last - first - busy_s
        # A beat of this life of the worker tells what it idled in all: this job bears it by its share of the work.
        if beat is not None and beat.started <= first and beat.at >= first:
            life_s, at_work_s = max(beat.at, last) - beat.started, max(beat.busy_s, busy_s)
            if at_work_s > 0:
                idle_s = max(0.0, life_s - at_work_s) * busy_s / at_work_s
        yield WorkerShare(worker=name, images=len(of_worker), busy_s=round(busy_s, 3), idle_s=round(max(0.0, idle_s), 3))


def _span(record: Record) -> tuple[float, float] | None:
    """Return when a worker had the image in hand, in Unix seconds; None where the record does not tell."""
    timing = record.timing
    if timing.submitted is None or not record.receives:
        return None
    begin = timing.submitted + (timing.queued or 0.0)
    return begin, begin + sum(part or 0.0 for part in (timing.fetch, timing.decode, timing.batch, timing.model, timing.store))


def _covered_s(spans: Sequence[tuple[float, float]]) -> float:
    """Return how long at least one of the spans runs; gaps under a second count as well."""
    total_s, until = 0.0, float("-inf")
    for begin, end in sorted(spans):
        if begin > until + GAP_S:
            total_s, until = total_s + end - begin, end
        elif end > until:
            total_s, until = total_s + end - until, end
    return total_s


def _requests(job: str, found: Sequence[Record]) -> Requests:
    sent = [record for record in found if record.receives]
    uploaded = sum(_is_ours(job, record) for record in sent)
    receives = sum(record.receives for record in sent)
    return Requests(
        # Images, records, and the job itself; a LIST for each thousand.
        s3_writes=uploaded + len(found) + WRITES_OF_JOB + len(found) // 1000,
        # Each delivery fetches; somebody reads each record once.
        s3_reads=receives + len(found),
        sqs=round(SQS_AT_SENDER * len(sent) + SQS_AT_WORKER * receives, 2),
    )


def _storage_usd(job: str, found: Sequence[Record], input_days: float, output_days: float) -> float:
    image_bytes = sum(record.image.bytes or 0 for record in found if _is_ours(job, record))
    record_bytes = sum(len(record.to_bytes()) for record in found)
    gib_months = (image_bytes * input_days + record_bytes * output_days) / _GIB / _MONTH_DAYS
    return gib_months * LIST.s3_gib_month


def _is_ours(job: str, record: Record) -> bool:
    """Whether the image was stored for the job, and is no object that stood somewhere already."""
    return record.image.key.startswith(records.job_prefix(job))


def _read(store: RecordStore, ids: Sequence[str]) -> Iterable[Record]:
    for start in range(0, len(ids), READ_AT_ONCE):
        window = ids[start : start + READ_AT_ONCE]
        for id, record in zip(window, store.find_many(window), strict=True):
            if record is None:
                # Not answered for at first, or removed meanwhile: of one that is missing a bill would be wrong.
                raise StorageUnavailable(f"The record of {id} could not be read: try again.")
            yield record


def _instance(record: Record) -> str:
    return (record.worker or "").removeprefix("irs@")


def _beat(cloud: Cloud, instance: str) -> Beat | None:
    try:
        return Beat.from_json(cloud.output.get(records.beat_key(instance)))
    except (NotFound, ValueError):
        return None
