"""What must not end or mislead a worker that listens: a cloud that fails, commands for its predecessor, kills."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import Fault, Mode
from monitors import Commander, Crew, FlowerSite, crew_on_a_stack, own_queues, subscriptions
from waiting import eventually

from irs.cloud import Cloud
from irs.local import EmbeddedCloud
from irs.monitoring.janitor import Janitor

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def own_crew(embedded: EmbeddedCloud, tmp_path: Path) -> Iterator[Crew]:
    """A crew of the test's own, to be killed."""
    with crew_on_a_stack(embedded, tmp_path, IRS_MONITORING_LEASE_SECONDS="4") as made:
        yield made


def kinds(crew: Crew) -> set[str]:
    return {name.partition("-mon-")[2].partition("-")[0] for name in own_queues(crew.cloud)}


@pytest.mark.parametrize("mode", ["500", "503", "400", "403", "hang", "drop", "html"])
def test_worker_lives_through_a_cloud_that_fails_to_answer_its_polls(crew: Crew, mode: Mode) -> None:
    crew.proxy.fault = Fault(mode, frozenset({"ReceiveMessage"}))
    crew.proxy.break_connections()
    before = crew.proxy.requests["ReceiveMessage"]
    try:
        # Each of the two workers polls two queues.
        eventually(lambda: crew.proxy.requests["ReceiveMessage"] >= before + 6, within_s=90)
    finally:
        crew.proxy.fault = None
        crew.proxy.break_connections()

    ids = crew.do("send(4)")
    said = lambda: crew.watched.said("w0") + crew.watched.said("w1")  # noqa: E731
    eventually(lambda: all(f"[{id}] succeeded" in said() for id in ids), within_s=60)
    assert 2 == len(crew.do("control.ping(timeout=30)"))


def test_worker_does_not_obey_what_its_killed_predecessor_was_told(own_crew: Crew) -> None:
    own_crew.watched.kill("w0")
    own_crew.do("control.shutdown(destination=['irs@w0'])")

    born_again = own_crew.watched.start("w0", is_awaited=False)

    eventually(lambda: own_crew.watched.said("w0").count("irs@w0 ready") == 2, within_s=60)
    ready_at = time.monotonic()
    eventually(lambda: time.monotonic() - ready_at > 10, within_s=20, every_s=0.5)
    assert born_again.poll() is None
    assert 2 == len(own_crew.do("control.ping(destination=['irs@w0', 'irs@w1'], timeout=20)"))


def test_after_all_are_killed_one_run_of_the_janitor_leaves_nothing(own_crew: Crew, tmp_path: Path) -> None:
    site = FlowerSite(own_crew.watched.environment, tmp_path)
    site.start()
    own_crew.do("control.ping(timeout=20)")
    eventually(
        lambda: {"pidbox", "reply", "events"} == {name.split("-mon-")[1].split("-")[0] for name in own_queues(own_crew.cloud)}
    )

    site.kill()
    own_crew.watched.kill("w0")
    own_crew.watched.kill("w1")
    own_crew.commander.process.kill()
    left = own_queues(own_crew.cloud)

    # One run, once their leases are over.
    swept = Janitor(own_crew.cloud).sweep(now=time.time() + 2 * own_crew.cloud.settings.monitoring_lease_seconds)

    assert left == sorted(swept.queues)
    assert [] == own_queues(own_crew.cloud) == subscriptions(own_crew.cloud)


def test_janitor_leaves_the_queues_of_the_living(own_crew: Crew) -> None:
    own_crew.do("control.ping(timeout=20)")
    before = own_queues(own_crew.cloud)
    janitor = Janitor(Cloud(own_crew.cloud.settings.model_copy(update={"monitoring_lease_seconds": 4.0})))
    began = time.monotonic()

    swept = []
    eventually(lambda: swept.append(janitor.sweep()) or time.monotonic() - began > 12, within_s=30, every_s=1)

    assert {((), ())} == {(one.queues, one.subscriptions) for one in swept}
    assert before == own_queues(own_crew.cloud)
    assert 2 == len(own_crew.do("control.ping(timeout=20)"))


def test_a_command_while_sns_is_away_ends_in_one_sentence(crew: Crew) -> None:
    crew.proxy.fault = Fault("503", frozenset({"POST"}))
    try:
        with Commander(crew.watched.environment, crew.commander.folder) as other, pytest.raises(AssertionError) as told:
            other.do("control.ping(timeout=2)")
    finally:
        crew.proxy.fault = None

    assert "QueueUnavailable: SNS does not take a broadcast" in str(told.value)
