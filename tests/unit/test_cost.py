"""What a job costs, added up from records and beats; and the table of prices."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irs.errors import BadOptions
from irs.monitoring import prices
from irs.monitoring.cost import Cost, cost_of, price_of
from irs.monitoring.prices import find_price
from irs.records import Beat, ImageFacts, Record, Timing, task_id

JOB = "01jabcdefghjkmnpqrstvwxyz0"
AT = 1_790_000_000.0


def record(number: int, *, at_s: float, took_s: float, worker: str = "w", receives: int = 1, key: str = "") -> Record:
    """An image that a worker had in hand from ``at_s`` on; half of the time it was fetched."""
    return Record(
        task_id=task_id(JOB, number),
        job=JOB,
        number=number,
        status="ok",
        image=ImageFacts(name="a.jpg", key=key or f"jobs/{JOB}/{number:06d}/a.jpg", bytes=2**20),
        timing=Timing(submitted=AT, queued=at_s, fetch=took_s / 2, decode=took_s / 4, model=took_s / 4),
        worker=f"irs@{worker}",
        receives=receives,
    )


def refused(number: int) -> Record:
    """An image that never was a message."""
    image = ImageFacts(name="a.txt", key=f"jobs/{JOB}/{number:06d}/a.txt")
    return Record(task_id=task_id(JOB, number), status="failed", image=image, receives=0, timing=Timing(submitted=AT))


def beat(*, started_s: float, at_s: float, busy_s: float, worker: str = "w") -> Beat:
    return Beat(instance=worker, boot="b", host="h", pid=1, phase="drained", at=AT + at_s, started=AT + started_s, busy_s=busy_s)


def cost(found: list[Record], *beats: Beat, per_hour: float | None = 3.6) -> Cost:
    return cost_of(JOB, found, beats, price=(per_hour, "test"), input_days=7, output_days=30)


def test_time_of_images_that_a_worker_had_at_once_counts_once() -> None:
    found = cost([record(0, at_s=0, took_s=4), record(1, at_s=1, took_s=4), record(2, at_s=1.5, took_s=1)])

    assert (5.0, 0.0) == (found.work_s, found.idle_s)
    assert pytest.approx(5 / 3) == found.work_s_per_image
    assert pytest.approx(5 * 0.001) == found.usd.work


def test_a_pause_between_two_images_is_idle_and_a_short_gap_is_work() -> None:
    found = cost([record(0, at_s=0, took_s=1), record(1, at_s=1.5, took_s=1), record(2, at_s=12.5, took_s=1)])

    assert (3.5, 10.0) == (found.work_s, found.idle_s)
    assert pytest.approx(10 / 13.5, abs=1e-4) == found.idle_share
    assert pytest.approx(10 * 0.001) == found.usd.idle


def test_of_two_workers_each_has_its_own_time() -> None:
    found = cost([record(0, at_s=0, took_s=2, worker="a"), record(1, at_s=0, took_s=3, worker="b")])

    assert [("a", 2.0), ("b", 3.0)] == [(one.worker, one.busy_s) for one in found.workers]
    assert 5.0 == found.work_s


def test_a_job_bears_its_share_of_what_its_workers_idled() -> None:
    """The worker ran 100 s and worked for 20: of its 80 idle seconds a quarter is this job's, which was a quarter of the work."""
    found = cost([record(0, at_s=50, took_s=5)], beat(started_s=0, at_s=100, busy_s=20))

    assert (5.0, 20.0) == (found.work_s, found.idle_s)


def test_a_beat_of_a_later_life_of_the_worker_says_nothing_of_the_job() -> None:
    found = cost([record(0, at_s=0, took_s=5)], beat(started_s=50, at_s=500, busy_s=1))

    assert (5.0, 0.0) == (found.work_s, found.idle_s)


def test_requests_are_those_of_each_image_and_a_second_delivery_costs_again() -> None:
    once, twice = cost([record(0, at_s=0, took_s=1)]), cost([record(0, at_s=0, took_s=1, receives=2)])

    # Image, record, three of the job; one fetch and one reader.
    assert (5, 2, 0.36) == (once.requests.s3_writes, once.requests.s3_reads, round(once.requests.sqs, 2))
    assert (0, 1) == (twice.requests.s3_writes - once.requests.s3_writes, twice.requests.s3_reads - once.requests.s3_reads)
    assert pytest.approx(5 * 5e-6 + 2 * 0.4e-6 + once.requests.sqs * 0.4e-6) == once.usd.requests


def test_an_image_that_stood_in_s3_costs_neither_upload_nor_storage() -> None:
    ours, theirs = (cost([record(0, at_s=0, took_s=1, key=key)]) for key in ("", "s3://photos/a.jpg"))

    assert 1 == ours.requests.s3_writes - theirs.requests.s3_writes
    # A MiB for seven of thirty days.
    assert pytest.approx(0.023 / 1024 * 7 / 30, rel=0.01) == ours.usd.storage - theirs.usd.storage


def test_an_image_that_was_refused_before_it_was_sent_costs_its_record_alone() -> None:
    found = cost([record(0, at_s=0, took_s=1), refused(1)])

    assert (2, 1) == (found.images, found.answered)
    assert (6, 3) == (found.requests.s3_writes, found.requests.s3_reads)
    assert 1.0 == found.work_s_per_image


def test_without_a_price_the_time_is_told_and_no_dollars_of_workers() -> None:
    found = cost([record(0, at_s=0, took_s=1)], per_hour=None)

    assert (None, None, 1.0) == (found.usd.work, found.usd.idle, found.work_s)
    assert pytest.approx(found.usd.requests + found.usd.storage) == found.total_usd
    assert "1e+03 ms of a worker an image, 0% idle" == found.summary


def test_the_summary_tells_a_thousand_images_and_the_idle_share() -> None:
    found = cost([record(0, at_s=0, took_s=0.5), record(1, at_s=2, took_s=0.5)])

    assert f"${1000 * found.per_image_usd:.3g} a thousand; 500 ms of a worker an image, 60% idle" == found.summary


@given(
    st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 50), st.sampled_from("ab"), st.integers(1, 3)), min_size=1, max_size=30),
    st.floats(0, 100),
)
def test_all_is_the_sum_of_its_parts_and_work_is_never_more_than_its_images_took(
    images: list[tuple[float, float, str, int]], per_hour: float
) -> None:
    found = [
        record(number, at_s=at_s, took_s=took_s, worker=worker, receives=receives)
        for number, (at_s, took_s, worker, receives) in enumerate(images)
    ]

    total = cost(found, per_hour=per_hour)

    usd = total.usd
    assert total.total_usd == pytest.approx((usd.work or 0) + (usd.idle or 0) + usd.requests + usd.storage)
    assert total.per_image_usd * len(found) == pytest.approx(total.total_usd)
    # A short gap counts as work.
    assert total.work_s <= sum(took_s for _, took_s, _, _ in images) + len(images)
    assert total.work_s >= max(took_s for _, took_s, _, _ in images) - 0.01
    assert 0 <= total.idle_share <= 1
    assert sum(one.images for one in total.workers) == total.answered == len(found)


@given(st.permutations(range(6)))
def test_the_order_of_records_changes_nothing(order: list[int]) -> None:
    found = [record(number, at_s=2.0 * number, took_s=1 + number / 10) for number in range(6)]

    assert cost(found) == cost([found[number] for number in order])


@pytest.mark.parametrize(
    ("name", "usd"),
    [("c7i.large", 0.08925), ("c7i.xlarge", 0.1785), ("c7i.2xlarge", 0.357), ("g5.xlarge", 1.006), ("c7i.metal", None)],
)
def test_sizes_of_a_family_are_priced_as_multiples(name: str, usd: float | None) -> None:
    found = find_price(name)

    assert usd == (None if found is None else pytest.approx(found))
    assert find_price("x99.large") is find_price("c7i") is None


def cloud(**settings: Any) -> Any:
    return SimpleNamespace(settings=SimpleNamespace(**{"price_per_hour": 0.0, "scaler_types": (), **settings}))


def test_who_says_what_an_hour_costs_is_heard_in_order() -> None:
    assert (0.5, "asked for") == price_of(cloud(price_per_hour=2.0), per_hour=0.5)
    assert (0.08925, "c7i.large on demand, " + prices.DATE) == price_of(cloud(price_per_hour=2.0), instance_type="c7i.large")
    assert (2.0, "IRS_PRICE_PER_HOUR") == price_of(cloud(price_per_hour=2.0, scaler_types=("c7i.large",)))
    assert 0.08925 == price_of(cloud(scaler_types=("c7i.large", "m7i.large")))[0]
    assert (None, "unknown: set IRS_PRICE_PER_HOUR") == price_of(cloud())
    with pytest.raises(BadOptions, match="--price-per-hour"):
        price_of(cloud(), instance_type="z9.large")


def test_the_page_of_costs_holds_the_table_of_prices_with_its_date() -> None:
    """Make it anew with ``python -m irs.monitoring.prices``."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "costs.md").read_text()

    assert prices.table() in text
    assert re.search(r"\d{4}-\d\d", prices.DATE)


def test_a_record_without_times_is_an_image_and_no_time() -> None:
    found = cost([replace(record(0, at_s=0, took_s=1), timing=Timing())])

    assert (1, 0, 0.0) == (found.images, found.answered, found.work_s)
