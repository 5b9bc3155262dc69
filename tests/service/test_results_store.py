"""Records and job objects in a real bucket."""

from __future__ import annotations

from dataclasses import replace

import pytest

from irs import records
from irs.cloud import Cloud
from irs.errors import InternalError, NotFound
from irs.records import Fault, ImageFacts, JobOpen, Manifest, Options, Record
from irs.results import RecordStore


def a_record(task_id: str, name: str = "cat.jpg") -> Record:
    job, number = records.split_task_id(task_id) or (None, None)
    return Record(task_id=task_id, job=job, number=number, status="ok", image=ImageFacts(name=name, key="k"))


def test_store_keeps_the_first_record_of_a_task(cloud: Cloud) -> None:
    store = RecordStore(cloud)
    first, second = a_record("a"), replace(a_record("a"), receives=2)

    stored = [store.put(first), store.put(second)]

    assert [True, False] == stored
    assert first == store.get("a")


@pytest.mark.parametrize("task_id", ["a/../b", "..", "ü", "a b%2F", "x" * 300])
def test_store_finds_the_record_of_whatever_id_a_caller_chose(cloud: Cloud, task_id: str) -> None:
    store = RecordStore(cloud)

    store.put(a_record(task_id))

    assert a_record(task_id) == store.find(task_id)


def test_store_takes_a_new_record_after_the_old_one_was_deleted(cloud: Cloud) -> None:
    store = RecordStore(cloud)
    store.put(a_record("a"))

    store.delete("a")
    store.delete("a")

    assert store.find("a") is None
    with pytest.raises(NotFound):
        store.get("a")
    assert store.put(replace(a_record("a"), receives=2))


def test_store_reads_many_records_in_the_order_asked_for(cloud: Cloud) -> None:
    store = RecordStore(cloud)
    for n in range(40):
        store.put(a_record(f"t{n}"))
    ids = [f"t{n}" for n in range(50)]

    found = store.find_many(ids)

    assert [*(a_record(id) for id in ids[:40]), *[None] * 10] == found


def test_store_lists_only_the_records_above_a_number_and_tells_that_the_job_is_closed(cloud: Cloud) -> None:
    store, job = RecordStore(cloud), records.new_job_id()
    store.open_job(JobOpen(job=job, created=1.0))
    for n in (0, 1, 2, 11):
        store.put(a_record(records.task_id(job, n)))
    before = store.list_job(job)
    store.close_job(Manifest(job=job, count=12, closed=2.0))

    after = store.list_job(job, after=1)

    assert ((0, 1, 2, 11), False) == (before.numbers, before.is_closed)
    assert ((2, 11), True) == (after.numbers, after.is_closed)


def test_store_lists_more_records_than_one_request_returns(cloud: Cloud) -> None:
    store, job = RecordStore(cloud), records.new_job_id()
    for n in range(1003):
        cloud.output.put(records.record_key(records.task_id(job, n)), b"{}", content_type="application/json")

    listing = store.list_job(job, after=0)

    assert tuple(range(1, 1003)) == listing.numbers


def test_store_opens_a_job_once_and_keeps_its_options(cloud: Cloud) -> None:
    store, job = RecordStore(cloud), records.new_job_id()
    first = JobOpen(job=job, options=Options(top_k=1), created=1.0)

    opened = [store.open_job(first), store.open_job(JobOpen(job=job, created=2.0))]

    assert [True, False] == opened
    assert first == store.find_open(job)
    assert store.find_manifest(job) is None


@pytest.mark.parametrize(
    ("body", "said"),
    [(b"no json", "holds no Record"), (a_record("b").to_bytes(), "holds the record of b")],
    ids=["no record", "another record"],
)
def test_store_says_which_object_is_not_the_record_and_readers_get_a_failed_one(cloud: Cloud, body: bytes, said: str) -> None:
    cloud.output.put(records.record_key("a"), body, content_type="application/json")
    store = RecordStore(cloud)

    with pytest.raises(InternalError, match=rf"tasks/a\.json {said}") as raised:
        store.get("a")

    found = store.find("a")
    assert found is not None
    assert ("a", "failed", None) == (found.task_id, found.status, found.number)
    assert Fault(code="internal", message=str(raised.value)) == found.error
