"""``irs cost``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from irs.cli.options import AsJson, InstanceType, PricePerHour
from irs.cli.outcome import answer

if TYPE_CHECKING:
    from irs.monitoring.cost import Cost


def cost(
    job: Annotated[str, typer.Argument(metavar="JOB", help="Id of the job.", show_default=False)],
    instance_type: InstanceType = "",
    price_per_hour: PricePerHour = None,
    as_json: AsJson = False,
) -> None:
    """Say what a job has cost so far: the time of its workers, its requests, its storage; what they idled apart."""
    from irs.cli.service import find_cloud
    from irs.client import Client
    from irs.monitoring.cost import price_of, read_cost

    cloud = find_cloud()
    price = price_of(cloud, instance_type=instance_type, per_hour=price_per_hour)
    # Tells a missing job from a missing bucket.
    found = read_cost(cloud, Client(cloud.settings).job(job).id, price=price)
    if as_json:
        answer(json.dumps(found.to_json()))
    else:
        show(found)


def show(found: Cost) -> None:
    """Write the parts and their sum, then the workers."""
    from irs.cli.tables import show_table

    price = "unknown" if found.price_per_hour is None else f"${found.price_per_hour:g} an hour"
    requests, usd = found.requests, found.usd
    show_table(
        ("what", "how much", "dollars"),
        [
            ("work", f"{found.work_s:.1f} s of workers", _usd(usd.work)),
            ("idle", f"{found.idle_s:.1f} s of workers, {found.idle_share:.0%} of both", _usd(usd.idle)),
            (
                "requests",
                f"{requests.s3_writes:,} S3 writes, {requests.s3_reads:,} S3 reads, {requests.sqs:,.0f} SQS",
                _usd(usd.requests),
            ),
            ("storage", "until images and records expire", _usd(usd.storage)),
            ("all", f"{found.images:,} images, {found.answered:,} answered by a worker", _usd(found.total_usd)),
            ("a thousand", f"{1000 * found.work_s_per_image:.1f} s of work", _usd(1000 * found.per_image_usd)),
        ],
    )
    answer()
    answer(f"A worker: {price} ({found.price_from}). Requests and storage: list prices of {found.prices_of}, without free tiers.")
    answer()
    rows = [(one.worker, one.images, f"{one.busy_s:.1f} s", f"{one.idle_s:.1f} s") for one in found.workers]
    show_table(("worker", "images", "work", "idle"), rows)


def _usd(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.6f}"
