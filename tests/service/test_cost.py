"""What a job has cost, by the command and by the API, after real workers answered it."""

from __future__ import annotations

import json
import subprocess
import urllib.error
from collections.abc import Iterator

import pytest
from serving import Site, site_on_a_stack
from workers import IRS, picture

from irs.local import EmbeddedCloud
from irs.records import new_job_id

PRICE = {"IRS_PRICE_PER_HOUR": "3.6"}


@pytest.fixture(scope="module")
def site(embedded: EmbeddedCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The page, one worker, and a price for an hour of it."""
    with site_on_a_stack(embedded, tmp_path_factory.mktemp("cost"), **PRICE) as made:
        made.workers.start()
        yield made


@pytest.fixture(scope="module")
def job(site: Site) -> str:
    done = site.workers.client.recognize([*(picture(seed) for seed in range(12)), b""])
    done.wait(timeout=60)
    return done.id


def test_the_command_tells_work_idle_requests_and_storage_of_a_job(site: Site, job: str) -> None:
    told, shown = (
        subprocess.run(
            [IRS, "cost", job, *more],
            env={**site.workers.environment, **PRICE},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        for more in (["--json"], ["--type", "c7i.large"])
    )

    found = json.loads(told)
    assert (13, 12) == (found["images"], found["answered"])
    assert [("w0", 12)] == [(one["worker"], one["images"]) for one in found["workers"]]
    # Dollars of a second at this price are thousandths.
    assert found["work_s"] > 0
    assert pytest.approx(found["work_s"] / 1000, abs=1e-6) == found["usd"]["work"]
    # The empty one never was uploaded: images, records, and three of the job.
    assert 12 + 13 + 3 == found["requests"]["s3_writes"]
    assert "c7i.large on demand" in shown


def test_the_api_tells_the_same_and_a_job_without_results_has_no_cost(site: Site, job: str) -> None:
    found = site.ask("GET", f"/api/jobs/{job}/cost")
    empty = site.ask("POST", "/api/jobs", {})["id"]

    assert (13, 12, "IRS_PRICE_PER_HOUR") == (found["images"], found["answered"], found["price_from"])
    assert found["summary"].startswith("$")
    for unknown in (empty, new_job_id()):
        with pytest.raises(urllib.error.HTTPError) as told:
            site.ask("GET", f"/api/jobs/{unknown}/cost")
        assert 404 == told.value.code
        told.value.close()
