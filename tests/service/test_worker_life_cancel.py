"""Cancelled means not done: by workers that run, by workers that start later, and for every reader."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import FaultProxy
from waiting import eventually
from workers import IRS, Workers, news_of, picture, through

from irs import records
from irs.cloud import Cloud
from irs.errors import BadOptions, Cancelled
from irs.models import open_model
from irs.records import Options, ulid_at
from irs.settings import read_settings
from irs.worker.cancelled import OVERLAP_S, CancelledIds
from irs.worker.engine import Engine, Work

STATES = """
import json, sys
from irs.app import app
print(json.dumps([app.AsyncResult(id).state for id in sys.argv[1:]]))
"""


@pytest.fixture
def workers(cloud: Cloud, stack_environment: dict[str, str], tmp_path: Path) -> Iterator[Workers]:
    with Workers(cloud, stack_environment, tmp_path) as made:
        yield made


def handed_in(workers: Workers, count: int) -> str:
    """Hand in a job of ``count`` images and return its id."""
    return workers.client.recognize([(f"{seed}.jpg", picture(seed)) for seed in range(count)]).id


def test_a_worker_born_after_a_cancel_answers_what_is_left_and_asks_for_no_cancelled_image(workers: Workers) -> None:
    count = 40
    cancelled, wanted = handed_in(workers, count), handed_in(workers, 3)
    assert workers.client.cancel(cancelled)
    assert workers.client.cancel(f"{wanted}.000001")

    with FaultProxy(workers.cloud.settings.endpoint_url) as proxy:
        running = workers.start(**through(proxy.endpoint), IRS_CUT_POLLS="0")
        found = workers.client.job(wanted).wait(timeout=60)
        eventually(workers.is_empty, within_s=30)
        asked = proxy.requests["GET"] + proxy.requests["PUT"]
        running.process.terminate()
        assert 0 == running.process.wait(60), running.said

    assert ["ok", "cancelled", "ok"] == [record.status for record in found]
    assert () == workers.store.list_job(cancelled).numbers
    # Two images, beats, orders and tombstones: far from one an image.
    assert asked < count
    assert f"completed=2 failed=0 dropped={count + 1}" in running.said
    assert (0, 0) == workers.depth(is_dead=True)
    # What has its record stays as it is.
    assert not workers.client.cancel(wanted)
    assert not workers.client.cancel(f"{wanted}.000000")
    assert "ok" == workers.client.job(wanted).get_record(0).status


@pytest.mark.slow
def test_images_that_a_worker_holds_are_dropped_once_their_job_is_cancelled(workers: Workers) -> None:
    with FaultProxy(workers.cloud.settings.endpoint_url) as proxy:
        running = workers.start(**through(proxy.endpoint), IRS_CUT_POLLS="0", IRS_WAIT_SECONDS="1", IRS_SLOTS="2")
        # An image takes more than a second.
        proxy.delay_s = 0.5
        job = handed_in(workers, 30)
        eventually(lambda: workers.store.list_job(job).numbers, within_s=30)

        assert workers.client.cancel(job)
        eventually(workers.is_empty, within_s=60)
        proxy.delay_s = 0.0

    numbers = workers.store.list_job(job).numbers
    assert 0 < len(numbers) < 30
    found = workers.client.job(job).wait(timeout=30)
    assert list(range(30)) == [record.number for record in found]
    assert set(numbers) == {record.number for record in found if record.status == "ok"}
    told = news_of(workers.cloud, [record.task_id for record in found])
    assert {records.task_id(job, number) for number in numbers} == set(told)
    assert running.process.poll() is None, running.said


class From:
    """Holds every task from the time on that it is asked for the ``n``-th time."""

    def __init__(self, n: int) -> None:
        self.left = n

    def __contains__(self, task_id: object) -> bool:
        self.left -= 1
        return self.left <= 0


@pytest.mark.parametrize(("n", "fetches", "model_calls"), [(1, 0, 0), (2, 1, 0), (3, 1, 1)], ids=["fetch", "batch", "store"])
def test_an_image_is_dropped_without_a_record_at_each_stage_it_is_cancelled_before(
    workers: Workers, n: int, fetches: int, model_calls: int
) -> None:
    (id,) = workers.sent(picture(1))
    key = workers.store.list_images(id.partition(".")[0])[0]
    with FaultProxy(workers.cloud.settings.endpoint_url) as proxy:
        engine = Engine(Cloud(read_settings(endpoint_url=proxy.endpoint)), open_model(workers.model), cancelled=From(n))

        with pytest.raises(Cancelled):
            engine.recognise(Work(task_id=id, image=key))

        assert (fetches, 0) == (proxy.requests["GET"], proxy.requests["PUT"])
        assert model_calls == bool(engine.mean_batch)
        assert (1, 0, 0) == (engine.dropped, engine.completed, engine.failed)
        assert workers.store.find(id) is None
        engine.close()


def test_readers_say_cancelled_of_each_image_of_a_cancelled_job_that_has_no_record(workers: Workers) -> None:
    job = workers.client.job(handed_in(workers, 3))
    failed = records.cancelled_record(records.task_id(job.id, 1))
    workers.store.put(failed)
    ids = [records.task_id(job.id, number) for number in range(3)]
    assert ["PENDING", "REVOKED", "PENDING"] == workers.ran(STATES, *ids)

    assert job.cancel()

    assert ["cancelled"] * 3 == [record.status for record in job.wait(timeout=10)]
    assert ["0.jpg", None, "2.jpg"] == [record.image.name for record in job.in_order(timeout=10)]
    assert (3, 3) == (job.progress().done, job.progress().count)
    record = job.get_record(2)
    assert ("cancelled", "cancelled", 2) == (record.status, record.error and record.error.code, record.number)
    assert ["REVOKED"] * 3 == workers.ran(STATES, *ids)


def test_a_cancelled_job_that_was_never_closed_ends_for_its_readers(workers: Workers) -> None:
    opened = workers.client.open(expected=5)
    workers.client.send([workers.client.upload(opened.job, number, "a.jpg", picture(number)) for number in (0, 1)], Options())

    assert workers.client.cancel(opened.job)

    assert [(0, "cancelled"), (1, "cancelled")] == [
        (record.number, record.status) for record in workers.client.job(opened.job).wait(timeout=10)
    ]
    with pytest.raises(BadOptions, match="was cancelled: hand the images in as a new one"):
        workers.client.recognize([picture(1)], job=opened.job)


def test_irs_cancel_says_what_it_did_and_refuses_what_is_not_there(workers: Workers) -> None:
    job = handed_in(workers, 1)

    def cancel(id: str) -> tuple[int, str, str]:
        ran = subprocess.run(
            [IRS, "cancel", id], env=workers.environment, capture_output=True, text=True, timeout=60, check=False
        )
        return ran.returncode, ran.stdout, ran.stderr

    assert (0, f"{job} is cancelled.\n", "") == cancel(job)
    unknown = records.new_job_id()
    code, said, complaint = cancel(unknown)
    assert (2, "") == (code, said)
    assert f"job {unknown} is not known: check its id" in complaint
    code, said, complaint = cancel(f"{job}.000007")
    assert (2, "") == (code, said)
    assert f"job {job} has no image 7: it holds 1, numbered from 0" in complaint


def test_tombstones_of_clocks_that_are_wrong_are_found_all_the_same(cloud: Cloud) -> None:
    now, known = time.time(), CancelledIds(cloud)

    def put(at: float, id: str) -> None:
        cloud.output.put(records.tombstone_key(ulid_at(at), id), b"", content_type="application/json")

    put(now, "first")
    put(now + 86_400, "of-a-clock-that-is-ahead")
    known.refresh()
    assert 2 == len(known)

    put(now - 0.9 * OVERLAP_S, "of-a-clock-that-is-behind")
    put(now + 5, "job")
    known.refresh()

    ids = ("first", "of-a-clock-that-is-ahead", "of-a-clock-that-is-behind", "job", "job.000003")
    assert [True] * 5 == [id in known for id in ids]
    assert "jo" not in known
    assert "other.000003" not in known


def test_what_was_cancelled_long_ago_is_learned_at_the_start_and_not_listed_again(cloud: Cloud) -> None:
    now, known = time.time(), CancelledIds(cloud)

    def put(at: float, id: str) -> None:
        cloud.output.put(records.tombstone_key(ulid_at(at), id), b"", content_type="application/json")

    put(now - 5 * OVERLAP_S, "long-ago")
    put(now, "new")
    known.refresh()
    # No clock is so wrong: it stands for all that need not be read again.
    put(now - 5 * OVERLAP_S, "unlisted")
    known.refresh()

    assert [True, True, False] == [id in known for id in ("long-ago", "new", "unlisted")]
    newborn = CancelledIds(cloud)
    newborn.refresh()
    assert "unlisted" in newborn
