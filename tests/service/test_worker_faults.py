"""The fault table of the design, with real workers: whose fault it was decides on record and message."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import Fault, FaultProxy, Mode
from PIL import Image
from waiting import eventually
from workers import Workers, news_of, picture, through

from irs.cloud import Cloud
from irs.provision import provision
from irs.settings import read_settings

#: Put into a worker as its sitecustomize: faults of ours that no image and no setting can bring about.
CRASHES = """
from threading import Event

from irs.models import Forward
from irs.worker.engine import Engine

answer, probabilities = Engine._answer, Forward.probabilities
raised = {"bug": RuntimeError, "memory": MemoryError, "exit": SystemExit}

def crash_in_answer(self, work, draft):
    if work.name == "hang":
        Event().wait()
    if work.name in raised:
        raise raised[work.name]("as asked")
    return answer(self, work, draft)

def crash_in_model(self, pixels):
    if any((one >= 250).all() for one in pixels):
        print("pictures with the poisoned one:", len(pixels), flush=True)
        raise RuntimeError("as asked")
    return probabilities(self, pixels)

Engine._answer, Forward.probabilities = crash_in_answer, crash_in_model
"""


@pytest.fixture
def workers(cloud: Cloud, stack_environment: dict[str, str], tmp_path: Path) -> Iterator[Workers]:
    with Workers(cloud, stack_environment, tmp_path) as made:
        yield made


@pytest.fixture
def proxy(cloud: Cloud) -> Iterator[FaultProxy]:
    with FaultProxy(cloud.settings.endpoint_url) as made:
        yield made


def test_an_outage_of_s3_costs_no_image_and_at_most_one_more_receive(workers: Workers, proxy: FaultProxy) -> None:
    running = workers.start(**through(proxy.endpoint), IRS_HEALTH_PORT="0", IRS_VISIBILITY_SECONDS="3")
    assert (200, "ok") == running.readyz()
    # Its beats go through.
    proxy.fault = Fault("503", frozenset({"GET"}))

    ids = workers.sent(*[picture(seed) for seed in range(3)])
    eventually(lambda: running.readyz() == (503, "S3 does not answer"))
    eventually(lambda: (beat := running.beat()) and beat.phase == "paused")
    renewals = proxy.requests["ChangeMessageVisibilityBatch"]
    # Longer than the visibility timeout: held by renewed leases alone.
    eventually(lambda: proxy.requests["ChangeMessageVisibilityBatch"] >= renewals + 3, within_s=15)
    assert [None] * 3 == workers.store.find_many(ids)
    assert (503, "S3 does not answer") == running.readyz()
    proxy.fault = None

    found = workers.answered(ids)
    assert {"ok"} == {record.status for record in found}
    assert max(record.receives for record in found) <= 2
    eventually(lambda: running.readyz() == (200, "ok"))
    eventually(lambda: (beat := running.beat()) and beat.phase == "ready")
    eventually(workers.is_empty)
    assert (0, 0) == workers.depth(is_dead=True)


@pytest.mark.slow
def test_a_worker_that_cannot_write_records_is_unready_and_asks_ever_more_slowly(workers: Workers, proxy: FaultProxy) -> None:
    running = workers.start(**through(proxy.endpoint), IRS_HEALTH_PORT="0", IRS_VISIBILITY_SECONDS="3")
    proxy.fault = Fault("503", frozenset({"PUT"}))
    ids = workers.sent(*[picture(seed) for seed in range(6)])
    eventually(lambda: running.readyz() == (503, "S3 does not answer"))
    tries, said = proxy.requests["PUT"], set()

    def is_renewed() -> bool:
        said.add(running.readyz())
        return proxy.requests["ChangeMessageVisibilityBatch"] >= 3

    eventually(is_renewed, within_s=15)
    tries = proxy.requests["PUT"] - tries
    proxy.fault = None

    found = workers.answered(ids)
    assert {(503, "S3 does not answer")} == said
    # Five rounds an image within the 5 s at most, each of up to three tries, and some beats.
    assert tries <= 6 * 5 * 3 + 15
    assert {("ok", 1)} == {(record.status, record.receives) for record in found}
    eventually(lambda: running.readyz() == (200, "ok"))
    eventually(workers.is_empty)


def test_a_message_goes_only_once_its_record_is_there_whatever_s3_said_of_the_write(workers: Workers, proxy: FaultProxy) -> None:
    workers.start(**through(proxy.endpoint))
    # Another write of the key is under way, which may fail; a record stood, and is removed before it is read.
    modes: tuple[Mode, ...] = ("409", "412")
    for seed, mode in enumerate(modes):
        before = proxy.requests["PUT"]
        proxy.fault = Fault(mode, frozenset({"PUT"}))
        ids = workers.sent(picture(seed))
        eventually(lambda before=before: proxy.requests["PUT"] >= before + 2)
        proxy.fault = None

        assert [("ok", 1)] == [(record.status, record.receives) for record in workers.answered(ids)], mode
    eventually(workers.is_empty)


def test_an_image_of_a_worker_killed_before_its_record_is_answered_by_the_next(workers: Workers, proxy: FaultProxy) -> None:
    doomed = workers.start(**through(proxy.endpoint), IRS_VISIBILITY_SECONDS="2")
    before = proxy.requests["GET"]
    proxy.fault = Fault("hang", frozenset({"GET"}))
    ids = workers.sent(picture(1))
    eventually(lambda: proxy.requests["GET"] > before)

    doomed.kill()
    assert (0, 1) == workers.depth()
    following = workers.start(IRS_VISIBILITY_SECONDS="2")

    (record,) = workers.answered(ids)
    assert ("ok", 2, f"irs@{following.instance}") == (record.status, record.receives, record.worker)
    eventually(workers.is_empty)
    assert 1 == len(workers.store.list_job(record.job or "").numbers)
    assert [record.task_id] == news_of(workers.cloud, ids)


@pytest.mark.slow
def test_an_image_of_a_worker_killed_before_its_acknowledgement_keeps_its_record(workers: Workers, proxy: FaultProxy) -> None:
    doomed = workers.start(**through(proxy.endpoint), IRS_VISIBILITY_SECONDS="2")
    proxy.fault = Fault("hang", frozenset({"DeleteMessageBatch"}))
    ids = workers.sent(picture(1))
    (first,) = workers.answered(ids)
    eventually(lambda: proxy.requests["DeleteMessageBatch"])

    doomed.kill()
    assert (0, 1) == workers.depth()
    workers.start(IRS_VISIBILITY_SECONDS="2")

    eventually(workers.is_empty)
    assert [first] == workers.answered(ids)
    assert ("ok", 1, f"irs@{doomed.instance}") == (first.status, first.receives, first.worker)
    assert (0, 0) == workers.depth(is_dead=True)


def test_an_unexpected_fault_is_tried_again_then_recorded_and_its_message_kept(workers: Workers, tmp_path: Path) -> None:
    receives = 2
    settings = read_settings(stack=workers.cloud.settings.stack, max_receives=receives)
    provision(Cloud(settings))
    running = workers.start(PYTHONPATH=crashing(tmp_path), IRS_MAX_RECEIVES=str(receives), IRS_VISIBILITY_SECONDS="2")

    ids = workers.sent(picture(1), picture(2), picture(3), picture(4), names=("bug", "memory", "exit", "fine.jpg"))
    *failed, fine = workers.answered(ids)

    assert ("ok", 1) == (fine.status, fine.receives)
    assert {("failed", receives, "internal")} == {(one.status, one.receives, one.error and one.error.code) for one in failed}
    eventually(lambda: workers.depth(is_dead=True) == (3, 0), within_s=20)
    assert workers.is_empty()
    assert running.process.poll() is None


def test_a_picture_that_the_model_fails_on_spoils_none_of_its_batch(workers: Workers, tmp_path: Path) -> None:
    # One batch: filled within a long wait by one receive of eight.
    running = workers.start(
        PYTHONPATH=crashing(tmp_path), IRS_MAX_RECEIVES="1", IRS_BATCH_WAIT_SECONDS="0.5", IRS_COMPUTE_THREADS="1"
    )
    white = white_picture()

    ids = workers.sent(*[picture(seed) for seed in range(4)], white, *[picture(seed) for seed in range(4, 7)])
    found = workers.answered(ids)

    assert "pictures with the poisoned one: 8" in running.said
    assert ["ok"] * 4 + ["failed"] + ["ok"] * 3 == [record.status for record in found]
    assert found[4].error is not None
    assert "internal" == found[4].error.code
    assert {1} == {record.receives for record in found}


def test_a_worker_whose_task_hangs_answers_the_rest_and_ends_for_a_fresh_one(workers: Workers, tmp_path: Path) -> None:
    limits = {"IRS_MAX_LEASE_SECONDS": "3", "IRS_VISIBILITY_SECONDS": "2", "IRS_DRAIN_SECONDS": "1"}
    running = workers.start(PYTHONPATH=crashing(tmp_path), **limits)

    hung, fine = workers.sent(picture(1), picture(2), names=("hang", "fine.jpg"))

    assert "ok" == workers.answered([fine])[0].status
    # The code by which a supervisor starts another one.
    assert os.EX_SOFTWARE == running.process.wait(30)
    assert workers.store.find(hung) is None
    eventually(lambda: workers.depth() == (1, 0))


def crashing(folder: Path) -> str:
    """A PYTHONPATH that makes a worker crash as :data:`CRASHES` says."""
    (folder / "sitecustomize.py").write_text(CRASHES)
    return os.pathsep.join((str(folder), *filter(None, [os.environ.get("PYTHONPATH")])))


def white_picture() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (96, 72), "white").save(stream, "PNG")
    return stream.getvalue()
