"""Who cancels tells workers at once. These know nothing of the marks in the output bucket: only a broadcast reaches them."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from faults import Fault, Mode
from monitors import Crew
from waiting import eventually
from webpages import WebPages
from workers import IRS

from irs.client import Client
from irs.client.broadcast import WAIT_S


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
