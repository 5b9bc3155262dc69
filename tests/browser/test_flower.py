"""Flower in a real Chromium, beside real workers that answer images: seen, read, pressed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from browsing import Browsing, Visit
from monitors import FlowerSite, own_queues
from waiting import eventually
from workers import Workers, picture, workers_on_a_stack

from irs.local import EmbeddedCloud
from irs.results import RecordStore

pytest.importorskip("flower", reason="Flower is not installed: pip install 'irs[flower]' brings it, then these tests run.")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

BROKEN = b"no picture at all"


@dataclass
class Watching:
    """Two workers that have answered seven images, one of them broken, and Flower that saw it."""

    workers: Workers
    flower: FlowerSite
    ids: list[str]

    def control(self, *arguments: str) -> None:
        command = [str(Path(sys.executable).with_name("celery")), "-A", "irs.app", "control", "-t", "20", *arguments]
        done = subprocess.run(command, env=self.workers.environment, capture_output=True, text=True, timeout=60, check=False)
        assert 0 == done.returncode, done.stderr + done.stdout


@pytest.fixture(scope="module")
def watching(embedded: EmbeddedCloud, tmp_path_factory: pytest.TempPathFactory, chromium: str) -> Iterator[Watching]:
    folder = tmp_path_factory.mktemp("flower")
    with workers_on_a_stack(embedded, folder, IRS_MONITORING="1") as workers:
        flower = FlowerSite(workers.environment, folder)
        try:
            for name in ("w0", "w1"):
                workers.start(is_awaited=False, IRS_INSTANCE_ID=name)
            for one in workers.started:
                eventually(one.is_ready, within_s=60)
            flower.start()
            eventually(lambda: {"irs@w0", "irs@w1"} <= set(flower.json("/api/workers")), within_s=30, every_s=0.2)
            ids = workers.sent(*(picture(seed) for seed in range(6)), BROKEN)
            workers.answered(ids)
            states = lambda: [flower.tasks().get(id, {}).get("state") for id in ids]  # noqa: E731
            eventually(lambda: states() == ["SUCCESS"] * 6 + ["FAILURE"], within_s=30, every_s=0.2)
            yield Watching(workers, flower, ids)
        finally:
            flower.kill()


def open_page(browsing: Browsing, watching: Watching, path: str) -> Visit:
    return browsing.open(f"{watching.flower.url}{path}")


def test_the_dashboard_shows_both_workers_online_and_what_they_did(browsing: Browsing, watching: Watching) -> None:
    visit = open_page(browsing, watching, "/")

    visit.until(lambda: visit.page.locator("#workers-table tbody tr").count() == 2)
    rows = [" ".join(row.split()) for row in visit.page.locator("#workers-table tbody tr").all_inner_texts()]
    assert {"irs@w0", "irs@w1"} == {row.split()[0] for row in rows}
    assert all("Online" in row for row in rows)


def test_the_list_of_tasks_shows_each_image_by_name_its_state_and_its_fault(browsing: Browsing, watching: Watching) -> None:
    visit = open_page(browsing, watching, "/tasks")

    visit.until(lambda: visit.page.locator("#tasks-table tbody tr").count() == 7)
    rows = {id: " ".join(visit.page.locator("#tasks-table tbody tr", has_text=id).inner_text().split()) for id in watching.ids}
    for number, id in enumerate(watching.ids):
        assert f"{number:06d}/{number}.jpg" in rows[id]
        assert "irs@w" in rows[id]
    assert all("SUCCESS" in rows[id] for id in watching.ids[:6])
    assert "FAILURE" in rows[watching.ids[6]]
    # The code alone: its sentence stands on the page of the task.
    assert " FAILURE not_an_image " in rows[watching.ids[6]]


def test_the_page_of_a_failed_image_tells_its_code(browsing: Browsing, watching: Watching) -> None:
    visit = open_page(browsing, watching, f"/task/{watching.ids[6]}")

    text = visit.text("#task-page")
    assert "FAILURE" in text
    assert "not_an_image" in text
    assert "000006/6.jpg" in text


def test_the_page_of_a_worker_shows_its_pool_queues_and_tasks_and_grows_it(browsing: Browsing, watching: Watching) -> None:
    name = watching.flower.tasks()[watching.ids[0]]["worker"]
    visit = open_page(browsing, watching, f"/worker/{name}")

    assert "worker.pool:Pool" in visit.text("#tab-pool")
    visit.page.click("#worker-tab-queues")
    assert watching.workers.cloud.settings.requests_queue in visit.text("#worker-queues")
    visit.page.click("#worker-tab-tasks")
    # A page shows what is known, and asks anew in the background.
    visit.until(lambda: visit.page.reload() and "irs.recognize" in visit.text("#tab-tasks"))
    visit.page.click("#worker-tab-pool")
    visit.page.click("#worker-pool-grow")
    visit.until(lambda: f"Growing '{name}' worker's pool by 1" in visit.text("#toast-container"))
    visit.page.click("#worker-group")
    visit.page.click("#worker-refresh")
    visit.until(lambda: visit.page.reload() and " 33" in visit.text("#tab-pool"))


def test_the_broker_page_shows_all_queues_of_the_stack(browsing: Browsing, watching: Watching) -> None:
    visit = open_page(browsing, watching, "/broker")

    def rows() -> list[str]:
        visit.page.reload()
        return [" ".join(row.split()) for row in visit.page.locator("#queue-table tbody tr").all_inner_texts()]

    settings = watching.workers.cloud.settings
    names = [settings.requests_queue, settings.requests_dead_queue, settings.responses_queue, settings.drops_queue]
    assert names == [row.split()[0] for row in rows()]
    # Of the requests: nothing waits, and two workers take from it; how long the last one waited their next beat tells.
    visit.until(lambda: re.fullmatch(f"{names[0]} 0 0 0 [0-9.]+ s 0 2", rows()[0]), within_s=30)


def test_an_image_that_is_revoked_by_the_button_is_never_answered(browsing: Browsing, watching: Watching) -> None:
    watching.control("rate_limit", "irs.recognize", "6/m")
    try:
        ids = watching.workers.sent(*(picture(seed) for seed in range(50, 56)))
        waits = eventually(
            lambda: [id for id in ids if watching.flower.tasks().get(id, {}).get("state") == "RECEIVED"], within_s=30
        )[-1]
        visit = open_page(browsing, watching, f"/task/{waits}")

        visit.page.click("#task-revoke")

        eventually(lambda: watching.flower.tasks()[waits]["state"] == "REVOKED", within_s=90, every_s=0.5)
        assert "cancelled" == RecordStore(watching.workers.cloud).get(waits).status
    finally:
        watching.control("rate_limit", "irs.recognize", "0")


def test_a_worker_that_is_shut_down_by_the_button_drains_and_shows_as_offline(browsing: Browsing, watching: Watching) -> None:
    worker = watching.workers.start(IRS_INSTANCE_ID="w9")
    eventually(lambda: watching.flower.json("/api/workers?refresh=1").get("irs@w9"), within_s=30, every_s=0.5)
    visit = open_page(browsing, watching, "/worker/irs@w9")
    visit.page.on("dialog", lambda dialog: dialog.accept())

    visit.page.click("#worker-group")
    visit.page.click("#worker-shutdown")

    assert 0 == worker.process.wait(timeout=40)
    assert "worked" in worker.said
    workers = lambda: {one["hostname"]: one["status"] for one in watching.flower.json("/workers?json=1")["data"]}  # noqa: E731
    eventually(lambda: workers().get("irs@w9") is False, within_s=30, every_s=0.5)
    assert 2 == sum("-pidbox-" in name for name in own_queues(watching.workers.cloud))
