"""What monitoring costs in requests, counted at the cloud's door: off nothing, on next to nothing.

``pytest -m "" -n0 -s`` shows the counts that docs/monitoring.md tells.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from monitors import Commander, Crew, crew_on_a_stack, own_queues, subscriptions, watched_on_a_stack
from waiting import eventually

from irs.local import EmbeddedCloud

IMAGES = 1000
#: What tasks themselves need.
TASKS = {"GetQueueUrl", "ReceiveMessage", "DeleteMessageBatch", "SendMessage", "ChangeMessageVisibilityBatch"}


def extra(counts: Counter[str]) -> Counter[str]:
    """The requests that would not be there without monitoring."""
    return Counter({told: n for told, n in counts.items() if told.split()[0] not in TASKS or not told.endswith(" requests")})


def told(state: str, counts: Counter[str], began: float) -> None:
    """Tell what an image costs, without and with monitoring."""
    of_it, took_s = extra(counts), time.monotonic() - began
    shares = (
        f"{(counts.total() - of_it.total()) / IMAGES:.3f} an image for the tasks, {of_it.total() / IMAGES:.4f} for monitoring"
    )
    sys.stdout.write(f"{state}: {shares}; in {took_s:.1f} s: {dict(sorted(of_it.items()))}\n")


def answered(crew: Crew, count: int) -> None:
    ids = crew.do(f"send({count})")
    said = lambda: crew.watched.said("w0") + crew.watched.said("w1")  # noqa: E731
    eventually(lambda: all(f"[{id}] succeeded" in said() for id in ids), within_s=90, every_s=0.2)


def test_without_monitoring_nothing_of_it_is_loaded() -> None:
    program = (
        "import sys, json, irs.app, irs.tasks; irs.app.app.finalize(); irs.app.app.connection_for_write().transport;"
        "of_it = ('irs.monitoring', 'irs.broker.fan', 'irs.broker.eph', 'irs.broker.listen', 'flower');"
        "print(json.dumps([name for name in sys.modules if name.startswith(of_it)]))"
    )
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}

    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)

    assert [] == json.loads(done.stdout)


def test_remote_control_that_is_off_says_how_to_turn_it_on(stack_environment: dict[str, str]) -> None:
    program = "from irs.app import app; app.control.ping()"

    done = subprocess.run([sys.executable, "-c", program], env=stack_environment, capture_output=True, text=True, check=False)

    assert "Remote control is off: set IRS_MONITORING=1" in done.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_off_costs_no_request_at_all(embedded: EmbeddedCloud, tmp_path: Path) -> None:
    with crew_on_a_stack(embedded, tmp_path, IRS_MONITORING="0") as crew:
        began = time.monotonic()
        answered(crew, IMAGES)

        told("off", crew.proxy.counts, began)
        assert Counter() == extra(crew.proxy.counts)
        assert [] == own_queues(crew.cloud)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_on_costs_two_requests_a_worker_and_nothing_an_image_while_nobody_watches(
    embedded: EmbeddedCloud, tmp_path: Path
) -> None:
    with crew_on_a_stack(embedded, tmp_path) as crew:
        begun = extra(crew.proxy.counts)
        crew.proxy.counts.clear()
        began_s = time.monotonic()

        answered(crew, IMAGES)

        told("on, nobody watches", crew.proxy.counts, began_s)
        assert (2, 2) == (begun["CreateQueue pidbox"], begun["Subscribe control"])
        assert {"CreateQueue pidbox", "Subscribe control", "ReceiveMessage pidbox", "Publish events"} == set(begun)
        # Heartbeats of half a minute, long polls of 20 s: of time, not of images.
        assert extra(crew.proxy.counts).total() <= 12


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_watched_costs_a_publish_a_worker_and_two_seconds(embedded: EmbeddedCloud, tmp_path: Path) -> None:
    with crew_on_a_stack(embedded, tmp_path) as crew:
        crew.do("watch()")
        eventually(lambda: crew.do("seen('worker-heartbeat')"), within_s=40)
        crew.proxy.counts.clear()
        began = time.monotonic()

        answered(crew, IMAGES)
        eventually(lambda: len(crew.do("seen('task-succeeded')")) == IMAGES, within_s=40)

        told("watched", crew.proxy.counts, began)
        costs = extra(crew.proxy.counts)
        # Publishes, and their receives and deletes at the one watcher; stock Celery makes 0.35 to 0.66 publishes a task.
        assert costs["Publish events"] / IMAGES < 0.1
        assert costs.total() / IMAGES < 0.3


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_starting_workers_costs_as_much_each_however_many_there_are(embedded: EmbeddedCloud, tmp_path: Path) -> None:
    totals: dict[int, Counter[str]] = {}
    for count in (2, 4, 8):
        folder = tmp_path / str(count)
        folder.mkdir()
        with watched_on_a_stack(embedded, folder) as (cloud, proxy, watched):
            for number in range(count):
                watched.start(f"w{number}", is_awaited=False)
            for number in range(count):
                eventually(lambda number=number: watched.is_ready(f"w{number}"), within_s=120, every_s=0.2)
            # All at once, and none took another's queue or subscription for one that is left over.
            assert count == len(own_queues(cloud))
            assert own_queues(cloud) == subscriptions(cloud)
            with Commander(watched.environment, folder) as commander:
                assert count == len(commander.do("control.ping(timeout=30)"))
            totals[count] = proxy.counts

    for count, counts in totals.items():
        assert (count, count) == (counts["CreateQueue pidbox"], counts["Subscribe control"])
        assert (0, 0) == (counts["ListQueues"], counts["CreateTopic"])
        # Asked once, by who commands.
        assert counts["ListSubscriptionsByTopic control"] == 1
