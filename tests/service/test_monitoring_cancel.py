"""Who cancels tells workers at once. These know nothing of the marks in the output bucket: only a broadcast reaches them."""

from __future__ import annotations

import logging
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from monitors import Crew
from waiting import eventually
from webpages import WebPages
from workers import IRS

from irs.client import Client
from irs.client.broadcast import WAIT_S, tell_workers
from irs.cloud import Cloud
from irs.settings import read_settings


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


def test_a_cancel_holds_also_while_sns_is_away_and_waits_no_longer_than_two_seconds(
    stack: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing listens at that address, and no app of this process was made for it: both end in a line of the log."""
    from irs.client import broadcast

    monkeypatch.setenv("IRS_MONITORING", "1")
    monkeypatch.setenv("IRS_ENDPOINT_URL", "http://127.0.0.1:1")
    settings = read_settings()
    monkeypatch.setattr(broadcast, "get_settings", lambda: settings)
    caplog.set_level(logging.WARNING)
    began = time.monotonic()

    tell_workers(Cloud(settings), "some-task")

    assert time.monotonic() - began < WAIT_S + 5
    line: Any = eventually(lambda: [one for one in caplog.records if one.message == "workers_untold"], within_s=30)[0]
    assert "some-task" == line.id
