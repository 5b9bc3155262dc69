"""A worker's life as a process: it starts or says why not, tells how it is, takes messages, drains, ends."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest
from faults import FaultProxy
from waiting import eventually
from workers import IRS, Running, Workers, picture, through, write_model

from irs.cloud import Cloud
from irs.records import Beat


@pytest.fixture
def workers(cloud: Cloud, stack_environment: dict[str, str], tmp_path: Path) -> Iterator[Workers]:
    with Workers(cloud, stack_environment, tmp_path) as made:
        yield made


class Watch:
    """Reads a worker's beats from its start on, as often as it can."""

    def __init__(self, running: Running) -> None:
        self.beats: list[Beat] = []
        self._running, self._ended = running, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._ended.wait(0.02):
            if (beat := self._running.beat()) and beat not in self.beats[-1:]:
                self.beats.append(beat)

    def phases(self) -> list[str]:
        return [phase for phase, _ in groupby(beat.phase for beat in self.beats)]

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


@pytest.fixture
def watched(workers: Workers) -> Iterator[tuple[Running, Watch, FaultProxy]]:
    """A worker behind a slow proxy, so that each phase lasts long enough to be told."""
    with FaultProxy(workers.cloud.settings.endpoint_url, delay_s=0.2) as proxy:
        running = workers.start(is_awaited=False, **through(proxy.endpoint))
        watch = Watch(running)
        yield running, watch, proxy
        watch.end()


def test_a_worker_tells_its_phases_and_counts_what_it_answered(
    workers: Workers, watched: tuple[Running, Watch, FaultProxy]
) -> None:
    running, watch, _ = watched
    eventually(running.is_ready, within_s=60)
    workers.answer(picture(1), picture(2), b"no picture")
    eventually(lambda: watch.phases()[-2:] == ["busy", "ready"])

    running.process.terminate()
    code = running.process.wait(30)
    eventually(lambda: watch.phases()[-1] == "stopped")

    assert 0 == code, running.said
    assert ["warming", "ready", "busy", "ready", "draining", "stopped"] == watch.phases()
    first, last = watch.beats[0], watch.beats[-1]
    assert (2, 1, 0) == (last.completed, last.failed, last.busy_slots)
    assert 0.2 < last.busy_s < last.at - last.started
    assert last.model is not None
    assert "tiny" == last.model.name
    assert last.ready_after_s is not None
    assert 0 < last.ready_after_s <= last.at - last.started
    assert last.queued_s is not None
    assert (running.process.pid, 32, first.boot) == (last.pid, last.slots, last.boot)
    ready = next(beat for beat in watch.beats if beat.phase == "ready")
    busy = next(beat for beat in watch.beats if beat.phase == "busy")
    assert (0, 0, 0) == (ready.completed, ready.failed, ready.busy_slots)
    assert ready.idle_since is not None
    assert 1 <= busy.busy_slots <= 3
    assert busy.idle_since is None


def test_a_worker_ends_with_130_at_ctrl_c_as_every_command_does(workers: Workers) -> None:
    worker = workers.start()

    worker.process.send_signal(signal.SIGINT)

    assert 130 == worker.process.wait(20), worker.said


def test_a_worker_told_to_stop_under_load_ends_in_time_and_the_next_answers_the_rest(workers: Workers) -> None:
    drain_s = 10
    with FaultProxy(workers.cloud.settings.endpoint_url) as proxy:
        # No polls are cut: the proxy would pass one on after its caller has left.
        environment = {"IRS_CUT_POLLS": "0", "IRS_WAIT_SECONDS": "0", "IRS_DRAIN_SECONDS": str(drain_s), "IRS_SLOTS": "2"}
        first = workers.start(**through(proxy.endpoint), **environment)
        # From here on, not at the start. An image takes two seconds, and the end of polling one.
        proxy.delay_s = 1.0
        fetched = proxy.requests["GET"]
        ids = workers.sent(*[picture(seed) for seed in range(12)])
        # Two in work, two waiting for their turn.
        eventually(lambda: workers.depth()[1] >= 4 and proxy.requests["GET"] >= fetched + 2)

        began = time.monotonic()
        first.process.terminate()
        code = first.process.wait(drain_s + 10)
        took_s = time.monotonic() - began

    visible, in_flight = workers.depth()
    answered = sum(record is not None for record in workers.store.find_many(ids))
    assert 0 == code, first.said
    assert took_s < drain_s
    assert visible > 0
    assert (12, 0) == (visible + answered, in_flight)
    second = workers.start()
    found = workers.answered(ids)
    assert answered >= 1
    assert {f"irs@{first.instance}": answered, f"irs@{second.instance}": visible} == Counter(one.worker for one in found)
    assert {"ok"} == {record.status for record in found}
    eventually(workers.is_empty)


def test_a_worker_that_cannot_reach_its_queue_ends_with_3_and_one_sentence(workers: Workers) -> None:
    with FaultProxy(workers.cloud.settings.endpoint_url) as proxy:
        nobody = proxy.endpoint

    ended = run_worker(workers, IRS_MODEL=workers.model, **through(nobody))

    assert 3 == ended.returncode
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"irs: SQS cannot be reached at {nobody}: "), line


def test_a_worker_without_its_queue_ends_with_3_and_says_what_makes_it(workers: Workers) -> None:
    ended = run_worker(workers, IRS_MODEL=workers.model, IRS_REQUESTS_QUEUE="no-such-queue")

    assert 3 == ended.returncode
    assert "irs: Queue no-such-queue is not there: run `irs provision` first.\n" == ended.stderr


def test_a_worker_without_a_model_ends_with_2_and_says_how_to_name_one(workers: Workers) -> None:
    ended = run_worker(workers)

    assert 2 == ended.returncode
    (line,) = ended.stderr.splitlines()
    assert line.startswith("irs: No model is named: say `irs worker --model MODEL`"), line


def test_a_worker_whose_model_is_not_there_ends_with_2_and_one_sentence(workers: Workers, tmp_path: Path) -> None:
    missing = str(tmp_path / "nowhere")

    ended = run_worker(workers, IRS_MODEL=missing)

    assert 2 == ended.returncode
    assert f"There is no model directory {missing}: give one with " in complaint(ended)


def test_a_worker_whose_model_is_broken_ends_with_2_and_one_sentence(workers: Workers, tmp_path: Path) -> None:
    broken = write_model(tmp_path / "broken")
    weights = broken / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])

    ended = run_worker(workers, IRS_MODEL=str(broken), IRS_INSTANCE_ID="broken")

    assert 2 == ended.returncode
    assert f"{weights} is not the file that model.json names (sha256 differs): copy the model again." in complaint(ended)
    assert "stopped" == json.loads(workers.cloud.output.get("workers/broken.json"))["phase"]


def run_worker(workers: Workers, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a worker that is to end by itself."""
    return subprocess.run(
        [IRS, "worker"],
        env={**workers.environment, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def complaint(ended: subprocess.CompletedProcess[str]) -> str:
    """The last line on standard error, which alone is critical."""
    lines = ended.stderr.splitlines()
    assert [lines[-1]] == [line for line in lines if " CRITICAL " in line], ended.stderr
    assert "Traceback" not in ended.stderr
    return lines[-1]
