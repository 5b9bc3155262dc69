"""Flower on SQS, by its pages and its API: what it shows, what it does, and for whom."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from monitors import Crew, FlowerSite, own_queues
from waiting import eventually

from irs.cloud import Cloud

pytest.importorskip("flower", reason="Flower is not installed: pip install 'irs[flower]' brings it, then these tests run.")

PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def site(crew: Crew, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlowerSite]:
    """Flower that knows both workers of the crew."""
    made = FlowerSite(crew.watched.environment, tmp_path_factory.mktemp("flower"))
    try:
        made.start()
        eventually(lambda: {"irs@w0", "irs@w1"} <= set(made.json("/api/workers")), within_s=30, every_s=0.2)
        yield made
    finally:
        made.kill()


@pytest.mark.parametrize("page", ["/", "/workers", "/worker/irs@w0", "/tasks", "/broker", "/api/workers", "/metrics"])
def test_flower_has_every_page(site: FlowerSite, page: str) -> None:
    status, text = site.ask(page)

    assert 200 == status, text


def test_flower_shows_tasks_with_their_image_state_and_worker(site: FlowerSite, crew: Crew) -> None:
    (good,), (bad,) = crew.do("send(1)"), crew.do("send_failing(1)")

    eventually(lambda: {"SUCCESS", "FAILURE"} == {site.tasks().get(id, {}).get("state") for id in (good, bad)}, within_s=30)
    tasks = site.tasks()
    assert "['image-0', 0.0]" == tasks[good]["args"]
    assert tasks[good]["runtime"] >= 0
    assert tasks[good]["worker"] in {"irs@w0", "irs@w1"}
    assert "not_an_image: bad-0" in tasks[bad]["exception"]
    assert 200 == site.ask(f"/task/{bad}")[0]


def test_the_broker_page_counts_all_queues_of_the_stack(site: FlowerSite, crew: Crew) -> None:
    settings = crew.cloud.settings
    url = crew.cloud.queue_url(settings.requests_dead_queue)
    for body in ("a", "b"):
        crew.cloud.sqs().send_message(QueueUrl=url, MessageBody=body)
    names = [settings.requests_queue, settings.requests_dead_queue, settings.responses_queue, settings.drops_queue]
    try:
        counts = eventually(
            lambda: (found := site.json("/api/queues/length")["active_queues"])[1]["messages_ready"] == 2 and found,
            within_s=20,
            every_s=0.5,
        )
    finally:
        crew.cloud.sqs().purge_queue(QueueUrl=url)

    assert names == [queue["name"] for queue in counts]
    assert (0, 2, 2) == (counts[0]["messages"], counts[0]["dead_letters"], counts[1]["messages"])
    page = site.ask("/broker")[1]
    assert all(title in page for title in ("Visible", "In flight", "Delayed", "Oldest waited", "Dead letters", *names))


def test_flowers_buttons_reach_the_worker(site: FlowerSite, crew: Crew) -> None:
    status, text = site.ask("/api/worker/pool/grow/irs@w0?n=1", method="POST")
    grown = crew.do("inspect('stats', destination=['irs@w0'])")["irs@w0"]["pool"]["max-concurrency"]
    site.ask("/api/worker/pool/shrink/irs@w0?n=1", method="POST")

    assert 200 == status, text
    assert 5 == grown


def test_what_flower_revokes_is_stored_for_workers_born_later(site: FlowerSite, crew: Crew) -> None:
    status, _ = site.ask("/api/task/revoke/00000000-aaaa-bbbb-cccc-000000000002", method="POST")

    assert 200 == status
    assert any(one.key.endswith("000000000002") for one in crew.cloud.output.list("cancelled/"))
    eventually(lambda: "00000000-aaaa-bbbb-cccc-000000000002" in crew.do("inspect('revoked')")["irs@w0"], within_s=20)


@pytest.mark.parametrize(
    "headers",
    [{"Sec_Fetch_Site": "cross-site"}, {"Origin": "https://evil.example"}, {"Host": "evil.example"}],
    ids=["fetch metadata", "origin", "rebound name"],
)
def test_no_other_page_presses_flowers_buttons(site: FlowerSite, headers: dict[str, str]) -> None:
    status, _ = site.ask("/api/worker/shutdown/irs@w0", method="POST", **headers)

    assert 403 == status


@pytest.mark.parametrize("page", ["/", "/tasks", "/api/tasks", "/metrics", "/broker"])
def test_a_foreign_name_that_leads_here_shows_nothing(site: FlowerSite, page: str) -> None:
    assert 403 == site.ask(page, Host="evil.example")[0]


def test_flower_lets_no_other_page_read_it(site: FlowerSite) -> None:
    import urllib.request

    with urllib.request.urlopen(f"{site.url}/tasks", timeout=30) as answer:
        assert answer.headers["Access-Control-Allow-Origin"] is None


@pytest.mark.parametrize("command", [("irs", "flower"), ("celery", "-A", "irs.app", "flower", "--address=0.0.0.0")])
def test_flower_refuses_to_be_open_to_others_without_a_password(
    cloud: Cloud, stack_environment: dict[str, str], command: tuple[str, ...]
) -> None:
    environment = {**stack_environment, "IRS_MONITORING": "1", "IRS_FLOWER_HOST": "0.0.0.0", "IRS_FLOWER_PORT": "0"}
    program = str(Path(sys.executable).with_name(command[0]))

    done = subprocess.run([program, *command[1:]], env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert 2 == done.returncode, done.stderr
    assert "set IRS_FLOWER_PASSWORD" in done.stderr
    assert [] == own_queues(cloud)


@pytest.mark.slow
def test_flower_with_a_password_shows_nothing_without_it(crew: Crew, tmp_path: Path) -> None:
    site = FlowerSite(crew.watched.environment, tmp_path)
    try:
        site.start(IRS_FLOWER_PASSWORD=PASSWORD, IRS_FLOWER_HOST="0.0.0.0")
        pages = ("/", "/tasks", "/broker", "/metrics", "/api/tasks", "/api/workers")

        assert {401} == {site.ask(page)[0] for page in pages}
        assert {401} == {site.ask(page, password="wrong")[0] for page in pages}
        assert {200} == {site.ask(page, password=PASSWORD)[0] for page in pages}
        # Behind a password it may be asked for by any name.
        assert 200 == site.ask("/tasks", password=PASSWORD, Host="flower.example.org")[0]
    finally:
        site.kill()


@pytest.mark.slow
@pytest.mark.parametrize("command", [("irs", "flower"), ("celery", "-A", "irs.app", "flower")], ids=["irs", "celery"])
def test_flower_remembers_over_a_restart_and_leaves_no_queue(crew: Crew, tmp_path: Path, command: tuple[str, ...]) -> None:
    before = own_queues(crew.cloud)
    environment = {**crew.watched.environment, "IRS_HOME": str(tmp_path / "home")}
    site = FlowerSite(environment, tmp_path, command)
    try:
        site.start()
        eventually(lambda: {"irs@w0", "irs@w1"} <= set(site.json("/api/workers")), within_s=30, every_s=0.2)
        ids = set(crew.do("send(10)"))
        eventually(lambda: ids <= {id for id, task in site.tasks().items() if task["state"] == "SUCCESS"}, within_s=40)

        code = site.stop()
        left = own_queues(crew.cloud)
        site.start()

        assert (0, before) == (code, left)
        assert ids <= set(site.tasks())
    finally:
        site.kill()
