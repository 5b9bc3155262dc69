"""A thousand images while Flower watches, the end of all processes by SIGKILL, and one run of the janitor."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from monitors import FlowerSite, subscriptions
from waiting import eventually
from workers import IRS, Workers, picture, workers_on_a_stack

from irs.cloud import Cloud
from irs.local import EmbeddedCloud

pytest.importorskip("flower", reason="Flower is not installed: pip install 'irs[flower]' brings it, then these tests run.")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

IMAGES, BROKEN_EVERY = 1000, 50
BROKEN = b"no picture at all"
TYPES = ("task-received", "task-started", "task-succeeded", "task-failed")


def all_queues(cloud: Cloud) -> list[str]:
    """The names of all queues of a stack, of tasks and of processes."""
    found = cloud.sqs().list_queues(QueueNamePrefix=f"{cloud.settings.stack}-").get("QueueUrls", [])
    return sorted(url.rpartition("/")[2] for url in found)


def events_by_type(flower: FlowerSite) -> Counter[str]:
    """The events Flower has counted, of all workers together."""
    counted: Counter[str] = Counter()
    for worker in json.loads(flower.ask("/workers?json=1")[1])["data"]:
        counted.update({kind: worker[kind] for kind in TYPES if kind in worker})
    return counted


def test_a_thousand_images_are_told_once_each_and_what_sigkill_leaves_one_run_of_the_janitor_removes(
    embedded: EmbeddedCloud, tmp_path: Path
) -> None:
    with workers_on_a_stack(embedded, tmp_path, IRS_MONITORING="1") as workers:
        before = all_queues(workers.cloud), subscriptions(workers.cloud)
        flower = FlowerSite(workers.environment, tmp_path)
        try:
            for name in ("w0", "w1"):
                workers.start(is_awaited=False, IRS_INSTANCE_ID=name)
            for one in workers.started:
                eventually(one.is_ready, within_s=60)
            flower.start()
            eventually(lambda: {"irs@w0", "irs@w1"} <= set(flower.json("/api/workers")), within_s=30, every_s=0.2)

            _answer_a_thousand(workers, flower)

            # A queue of commands for each worker, one of events, one of replies.
            during = all_queues(workers.cloud)
            assert len(before[0]) + 4 == len(during)
        finally:
            flower.kill()
        for one in workers.started:
            one.kill()
        assert during == all_queues(workers.cloud)
        swept = _run_the_janitor_once(workers)

        assert sorted(set(during) - set(before[0])) == sorted(swept)
        assert before == (all_queues(workers.cloud), subscriptions(workers.cloud))


def _answer_a_thousand(workers: Workers, flower: FlowerSite) -> None:
    bodies = [picture(seed) for seed in range(40)]
    # The same pictures again and again: what is counted are events, and answers that are remembered come quickest.
    ids = workers.sent(*(BROKEN if n % BROKEN_EVERY == 0 else bodies[n % 40] for n in range(IMAGES)))
    workers.answered(ids, within_s=180)

    def ended() -> bool:
        tasks = flower.json("/api/tasks?limit=5000")
        return all(tasks.get(id, {}).get("state") in ("SUCCESS", "FAILURE") for id in ids)

    eventually(ended, within_s=60, every_s=0.5)
    tasks = {id: task for id, task in flower.json("/api/tasks?limit=5000").items() if id in set(ids)}
    failed = IMAGES // BROKEN_EVERY
    assert Counter(SUCCESS=IMAGES - failed, FAILURE=failed) == Counter(task["state"] for task in tasks.values())
    assert dict(zip(TYPES, (IMAGES, IMAGES, IMAGES - failed, failed), strict=True)) == events_by_type(flower)
    assert all(task["received"] and task["started"] for task in tasks.values())
    assert all("not_an_image" in task["exception"] for task in tasks.values() if task["state"] == "FAILURE")


def _run_the_janitor_once(workers: Workers) -> list[str]:
    """Run it as if the lease were over: owners renew theirs every 300 s, so that three are enough to look dead."""
    environment = {**workers.environment, "IRS_MONITORING_LEASE_SECONDS": "3"}
    done = subprocess.run([IRS, "janitor", "--once"], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert 0 == done.returncode, done.stderr
    return list(json.loads(done.stdout)["queues"])
