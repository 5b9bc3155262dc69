"""When a worker leaves by itself: the order to retire, the scaler's silence, and what EC2 tells of itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from metadata import MetadataService, metadata_service
from waiting import eventually

from irs import broker
from irs.broker import Health, switch
from irs.records import Order, new_job_id, read_tombstone_key, tombstone_key
from irs.worker.metadata import Metadata, find_metadata
from irs.worker.retire import IDLE_S, Retirement
from irs.worker.spot import Spot

ORDER = Order(order="retire", launch="irs-7-1")


@pytest.fixture(autouse=True)
def _relaxed() -> Iterator[None]:
    yield
    broker.relax()


@pytest.fixture
def metadata() -> Iterator[MetadataService]:
    with metadata_service() as service:
        yield service


NOW, ORDERED_AT = 1000.0, 990.0


@pytest.fixture
def retiring() -> Retirement:
    """Under the order for ten seconds."""
    times = iter((ORDERED_AT,))
    made = Retirement(lambda: next(times, NOW))
    made.follow(ORDER)
    return made


def test_a_worker_under_the_order_leaves_when_it_is_idle_and_saw_the_queue_empty_since(retiring: Retirement) -> None:
    assert retiring.is_over(Health(emptied_at=NOW - 0.1), idle_since=NOW - IDLE_S)


@pytest.mark.parametrize(
    ("health", "idle_since"),
    [
        (Health(emptied_at=NOW), None),
        (Health(emptied_at=NOW), NOW - 0.9 * IDLE_S),
        (Health(emptied_at=NOW, held=1), NOW - 5),
        (Health(emptied_at=None), NOW - 5),
        (Health(emptied_at=NOW - 6), NOW - 5),
        (Health(emptied_at=ORDERED_AT - 1), NOW - 60),
    ],
    ids=[
        "at work",
        "idle for too short",
        "a message is held",
        "a message came last",
        "empty before its last work",
        "empty before the order",
    ],
)
def test_a_worker_under_the_order_stays_while_there_may_be_work(
    retiring: Retirement, health: Health, idle_since: float | None
) -> None:
    assert not retiring.is_over(health, idle_since=idle_since)


def test_polls_are_short_under_the_order_alone(retiring: Retirement) -> None:
    assert 1 == switch.poll_wait_s(20)

    retiring.follow(None)

    assert 20 == switch.poll_wait_s(20)
    assert not retiring.is_over(Health(emptied_at=NOW), idle_since=NOW - 60)


@pytest.mark.parametrize(
    ("ordered", "own", "is_meant"),
    [("a", "a", True), ("a", "b", False), (None, "b", True), ("a", None, True)],
)
def test_an_order_is_for_its_own_launch_and_for_whoever_cannot_tell(ordered: str | None, own: str | None, is_meant: bool) -> None:
    assert is_meant == Order(order="retire", launch=ordered).is_for(own)


@given(st.text(min_size=1, max_size=50).filter(lambda text: text.isprintable()))
def test_a_tombstone_names_any_task(id: str) -> None:
    ulid = new_job_id()

    assert (ulid, id) == read_tombstone_key(tombstone_key(ulid, id))


def test_metadata_is_asked_with_a_token_and_again_after_the_service_forgot_it(metadata: MetadataService) -> None:
    client = Metadata(metadata.endpoint)
    metadata.says["meta-data/tags/instance/irs:launch"] = "irs-7-1"

    assert "irs-7-1" == client.find("meta-data/tags/instance/irs:launch")
    assert client.find("meta-data/spot/instance-action") is None
    assert 1 == len(metadata.tokens)

    metadata.tokens.clear()
    assert "irs-7-1" == client.find("meta-data/tags/instance/irs:launch")


def test_metadata_that_does_not_answer_raises_instead_of_saying_there_is_nothing(metadata: MetadataService) -> None:
    nobody = metadata.endpoint.replace(metadata.endpoint.split("/")[2], "127.0.0.1:1")

    with pytest.raises(OSError, match="refused"):
        Metadata(nobody).find("meta-data/spot/instance-action")


@pytest.mark.parametrize(
    ("environment", "vendor", "uuid", "is_there"),
    [
        ({}, "QEMU", "", False),
        ({}, None, "", False),
        ({}, "Amazon EC2\n", "", True),
        ({}, None, "ec2e1916-9099-7caf-fd21-012345abcdef\n", True),
        ({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:9/x/"}, "QEMU", "", True),
        ({"AWS_EC2_METADATA_DISABLED": "true"}, "Amazon EC2", "", False),
    ],
    ids=["laptop", "no firmware", "nitro", "xen", "named", "turned off"],
)
def test_metadata_is_looked_for_in_files_alone(
    tmp_path: Path, environment: dict[str, str], vendor: str | None, uuid: str, is_there: bool
) -> None:
    if vendor is not None:
        (tmp_path / "vendor").write_text(vendor)
    (tmp_path / "uuid").write_text(uuid)

    found = find_metadata(environment, vendor=tmp_path / "vendor", hypervisor=tmp_path / "uuid")

    assert is_there == (found is not None)


@pytest.mark.parametrize("path", ["spot/instance-action", "events/recommendations/rebalance"])
def test_a_notice_is_told_once(metadata: MetadataService, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irs.worker.spot.PERIOD_S", 0.01)
    heard: list[str] = []
    metadata.says["meta-data/tags/instance/irs:launch"] = "irs-7-1"
    running = Spot(Metadata(metadata.endpoint), on_launch=heard.append, on_notice=heard.append)
    eventually(lambda: metadata.asked[f"meta-data/{path}"] >= 2)
    assert ["irs-7-1"] == heard

    metadata.says[f"meta-data/{path}"] = "{}"
    eventually(lambda: len(heard) == 2)
    asked = metadata.asked.total()
    running.end()

    assert ["irs-7-1", f"{path.rpartition('/')[2]}: {{}}"] == heard
    assert asked == metadata.asked.total()


def test_a_notice_is_heard_though_an_answer_before_it_was_cut_off(
    metadata: MetadataService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("irs.worker.spot.PERIOD_S", 0.01)
    heard: list[str] = []
    metadata.says["meta-data/spot/instance-action"] = "{}"
    client = Metadata(metadata.endpoint)
    client.find("meta-data")
    metadata.is_cut = True
    running = Spot(client, on_launch=heard.append, on_notice=heard.append)
    eventually(lambda: metadata.asked["meta-data/spot/instance-action"] >= 1)

    metadata.is_cut = False

    eventually(lambda: heard)
    running.end()
    assert ["instance-action: {}"] == heard
