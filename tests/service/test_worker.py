"""A worker's life as a process: it starts or says why not, tells how it is, takes messages, drains, ends."""

from __future__ import annotations

import json
import subprocess
import threading
import time
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


def test_a_worker_told_to_stop_under_load_ends_in_time_and_holds_nothing_back(workers: Workers) -> None:
    drain_s = 10
    with FaultProxy(workers.cloud.settings.endpoint_url) as proxy:
        running = workers.start(**through(proxy.endpoint), IRS_DRAIN_SECONDS=str(drain_s), IRS_SLOTS="4", IRS_CACHE_ENTRIES="0")
        # From here on, not at the start. Long enough that of those in hand some are not begun when it ends.
        proxy.delay_s = 0.5
        ids = workers.sent(*[picture(seed) for seed in range(40)])
        eventually(lambda: sum(record is not None for record in workers.store.find_many(ids)) >= 8)

        began = time.monotonic()
        running.process.terminate()
        code = running.process.wait(drain_s + 10)
        took_s = time.monotonic() - began

    visible, in_flight = workers.depth()
    answered = [record for record in workers.store.find_many(ids) if record is not None]
    assert 0 == code, running.said
    assert took_s < drain_s
    assert visible > 0
    assert (40, 0) == (visible + len(answered), in_flight)
    assert {"ok"} == {record.status for record in answered}


def test_what_a_stopped_worker_handed_back_is_answered_by_the_next(workers: Workers) -> None:
    with FaultProxy(workers.cloud.settings.endpoint_url) as proxy:
        first = workers.start(**through(proxy.endpoint), IRS_SLOTS="2")
        proxy.delay_s = 0.5
        ids = workers.sent(*[picture(seed) for seed in range(12)])
        eventually(lambda: any(workers.store.find_many(ids)))
        first.process.terminate()
        first.process.wait(30)
    second = workers.start()

    # Soon: well before a lease of 30 s would have ended by itself.
    found = workers.answered(ids, within_s=10)

    assert {f"irs@{first.instance}", f"irs@{second.instance}"} == {record.worker for record in found}
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
