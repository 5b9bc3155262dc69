"""Who cancels tells workers at once, and it lasts: also for a worker born later, by whichever of the four ways.

The workers of the crew know nothing of the marks in the output bucket: only a broadcast reaches them.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from faults import Fault, Mode
from monitors import Crew, FlowerSite
from waiting import eventually
from webpages import WebPages
from workers import IRS, Workers, picture

from irs import records
from irs.client import Client
from irs.client.broadcast import WAIT_S
from irs.cloud import Cloud


def revoked(crew: Crew) -> list[set[str]]:
    """What each worker knows to be cancelled."""
    return [set(ids) for ids in crew.do("inspect('revoked')").values()]


def cancel(crew: Crew, id: str, **environment: str) -> None:
    done = subprocess.run(
        [IRS, "cancel", id],
        env={**crew.watched.environment, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert 0 == done.returncode, done.stderr


def test_irs_cancel_tells_all_workers_of_a_job_and_of_an_image(crew: Crew) -> None:
    client = Client(crew.cloud.settings)
    job, other = client.open().job, client.open().job
    image = f"{other}.000003"

    cancel(crew, job)
    cancel(crew, image)

    eventually(lambda: all({job, image} <= ids for ids in revoked(crew)) and len(revoked(crew)) == 2, within_s=20, every_s=0.2)
    # The mark that lasts stands too, once: the broadcast stores none of its own.
    assert 1 == sum(one.key.endswith(job) for one in crew.cloud.output.list("cancelled/"))


def test_without_monitoring_a_cancel_is_stored_and_told_to_nobody(crew: Crew) -> None:
    client = Client(crew.cloud.settings)
    silent, told = client.open().job, client.open().job

    cancel(crew, silent, IRS_MONITORING="0")
    cancel(crew, told)

    eventually(lambda: all(told in ids for ids in revoked(crew)), within_s=20, every_s=0.2)
    assert not any(silent in ids for ids in revoked(crew))
    assert client.job(silent).progress().done == 0
    assert 1 == sum(one.key.endswith(silent) for one in crew.cloud.output.list("cancelled/"))


def test_the_pages_cancel_tells_all_workers(crew: Crew, tmp_path: Path) -> None:
    with WebPages(crew.cloud, crew.watched.environment, tmp_path) as pages:
        page = pages.start()
        job = page.open_job(expected=2)

        assert 202 == page.ask("DELETE", f"/api/jobs/{job}").status

        eventually(lambda: all(job in ids for ids in revoked(crew)), within_s=20, every_s=0.2)


@pytest.mark.parametrize("mode", ["503", "hang"])
def test_a_cancel_holds_also_while_sns_is_away_and_waits_for_it_two_seconds(crew: Crew, mode: Mode) -> None:
    client = Client(crew.cloud.settings)
    first, job = client.open().job, client.open().job
    began = time.monotonic()
    cancel(crew, first)
    told_s = time.monotonic() - began

    # SNS alone is spoken to by POST without a target.
    crew.proxy.fault = Fault(mode, frozenset({"POST"}))
    try:
        began = time.monotonic()
        cancel(crew, job)
        untold_s = time.monotonic() - began
    finally:
        crew.proxy.fault = None
        crew.proxy.break_connections()

    assert untold_s < told_s + WAIT_S + 3
    assert 1 == sum(one.key.endswith(job) for one in crew.cloud.output.list("cancelled/"))
    assert not any(job in ids for ids in revoked(crew))


def test_what_is_cancelled_by_any_of_the_four_ways_is_answered_by_no_worker_born_later(
    cloud: Cloud, stack_environment: dict[str, str], tmp_path: Path
) -> None:
    pytest.importorskip("flower", reason="Flower is not installed: pip install 'irs[flower]' brings it, then this test runs.")
    environment = {**stack_environment, "IRS_MONITORING": "1"}
    flower, count = FlowerSite(environment, tmp_path), 4
    with Workers(cloud, environment, tmp_path) as workers, WebPages(cloud, environment, tmp_path) as pages:
        by_command, by_page, by_control, by_flower, wanted = (
            workers.client.recognize([(f"{n}.jpg", picture(10 * job + n)) for n in range(count)]) for job in range(5)
        )
        images = [records.task_id(by_flower.id, n) for n in range(1, count)]
        try:
            flower.start()
            ran = [
                subprocess.run([IRS, "cancel", by_command.id], env=environment, timeout=60, capture_output=True, check=False),
                # It has stored the marks when it finds that nobody listens.
                subprocess.run(
                    [Path(IRS).with_name("celery"), "-A", "irs", "control", "revoke", by_control.id],
                    env=environment,
                    timeout=60,
                    capture_output=True,
                    check=False,
                ),
            ]
            assert 202 == pages.start().ask("DELETE", f"/api/jobs/{by_page.id}").status
            # Its button is on the page of one task.
            assert {200} == {flower.ask(f"/api/task/revoke/{id}", method="POST")[0] for id in images}
        finally:
            flower.kill()
        assert [0, os.EX_UNAVAILABLE] == [one.returncode for one in ran], ran

        running = workers.start()
        eventually(workers.is_empty, within_s=60)

        assert ["ok"] * count == [record.status for record in wanted.in_order(timeout=30)]
        for job in (by_command, by_page, by_control):
            assert ["cancelled"] * count == [record.status for record in job.in_order(timeout=30)]
            # Told by the job's mark: none of its images was begun.
            assert () == workers.store.list_job(job.id).numbers
        assert ["ok"] + ["cancelled"] * (count - 1) == [record.status for record in by_flower.in_order(timeout=30)]
        running.process.terminate()
        assert 0 == running.process.wait(60), running.said
        assert f"completed={count + 1} failed=0 dropped={4 * count - 1}" in running.said
