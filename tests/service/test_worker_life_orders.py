"""What a worker reads in the output bucket beside its work: orders, and what was cancelled."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from faults import Fault, FaultProxy
from waiting import eventually

from irs import broker
from irs.cloud import Cloud
from irs.records import Order, new_job_id, order_key, tombstone_key
from irs.settings import read_settings
from irs.worker import directions
from irs.worker.directions import Directions

LAUNCH = "irs-7-1"
Make = Callable[..., Directions]


@pytest.fixture
def read(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Directions of a worker of the launch given, asked for as often as it reminds them."""
    monkeypatch.setattr(directions, "BUSY_S", 0.0)
    monkeypatch.setattr(directions, "IDLE_S", 0.0)
    monkeypatch.setattr(directions, "FIRST_PAUSE_S", 0.05)
    made: list[Directions] = []

    def make(launch: str | None = LAUNCH, *, on: Cloud = cloud) -> Directions:
        made.append(Directions(on, launch=lambda: launch))
        return made[-1]

    yield make
    for one in made:
        one.end()
    broker.relax()


@pytest.fixture
def named(cloud: Cloud) -> Cloud:
    """The same stack for a worker with a name."""
    return Cloud(read_settings(instance_id="w0"))


def put_order(cloud: Cloud, body: bytes | None = None) -> None:
    order = Order(order="retire", launch=LAUNCH, since=time.time(), why="enough workers").to_bytes()
    cloud.output.put(order_key("w0"), body or order, content_type="application/json")


def reminded(one: Directions, check: Callable[[], object], *, is_busy: bool = False) -> None:
    def look() -> object:
        one.remind(is_busy=is_busy)
        return check()

    eventually(look, within_s=30)


def test_an_order_is_followed_and_its_end_too(read: Make, named: Cloud) -> None:
    one = read(on=named)
    one.wait_first(30)
    assert one.retirement.order is None

    put_order(named)
    reminded(one, lambda: one.retirement.order)
    assert one.retirement.order is not None
    assert "enough workers" == one.retirement.order.why

    named.output.delete(order_key("w0"))
    reminded(one, lambda: one.retirement.order is None)


def test_an_order_for_an_earlier_launch_of_the_name_is_not_followed(read: Make, named: Cloud) -> None:
    put_order(named)

    later = read("irs-8-1", on=named)
    later.wait_first(30)
    named.output.put(tombstone_key(new_job_id(), "job"), b"", content_type="application/json")
    # Read after the order.
    reminded(later, lambda: "job" in later.cancelled, is_busy=True)

    assert later.retirement.order is None
    meant = read(LAUNCH, on=named)
    reminded(meant, lambda: meant.retirement.order)


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"order": "explode"}', b"\xff"])
def test_an_order_that_cannot_be_read_changes_nothing(read: Make, named: Cloud, body: bytes) -> None:
    one = read(on=named)
    put_order(named)
    reminded(one, lambda: one.retirement.order)

    put_order(named, body)
    named.output.put(tombstone_key(new_job_id(), "job"), b"", content_type="application/json")
    # Read after the order.
    reminded(one, lambda: "job" in one.cancelled, is_busy=True)

    assert one.retirement.order is not None


def test_tombstones_are_read_at_the_start_and_then_only_while_there_is_work(read: Make, named: Cloud) -> None:
    named.output.put(tombstone_key(new_job_id(), "before"), b"", content_type="application/json")
    with FaultProxy(named.settings.endpoint_url) as proxy:
        one = read(on=Cloud(read_settings(instance_id="w0", endpoint_url=proxy.endpoint)))
        one.wait_first(30)
        assert "before.000001" in one.cancelled
        eventually(lambda: proxy.requests["GET"] >= 2, within_s=30)

        named.output.put(tombstone_key(new_job_id(), "after"), b"", content_type="application/json")
        asked = proxy.requests["GET"]
        reminded(one, lambda: proxy.requests["GET"] >= asked + 5)
        assert "after.000001" not in one.cancelled

        reminded(one, lambda: "after.000001" in one.cancelled, is_busy=True)


def test_a_start_waits_for_the_tombstones_until_s3_answers(read: Make, named: Cloud) -> None:
    named.output.put(tombstone_key(new_job_id(), "before"), b"", content_type="application/json")
    with FaultProxy(named.settings.endpoint_url, Fault("503", frozenset({"GET"}))) as proxy:
        one = read(on=Cloud(read_settings(instance_id="w0", endpoint_url=proxy.endpoint)))
        eventually(lambda: proxy.requests["GET"] >= 4, within_s=30)
        assert "before" not in one.cancelled

        proxy.fault = None
        one.wait_first(30)

        assert "before" in one.cancelled
