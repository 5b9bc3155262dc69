"""Records, ids and keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irs import records
from irs.errors import BadOptions, RecognitionFailed
from irs.records import Fault, ImageFacts, Label, Options, Record


def test_a_record_is_the_same_after_its_journey_through_json() -> None:
    record = Record(
        task_id="a",
        status="ok",
        image=ImageFacts(name="x", key="k"),
        labels=(Label(label="cat", wnid=None, confidence=0.5),),
    )

    assert record == Record.from_json(record.to_bytes()) == Record.from_json(record.to_json())


JOB = "01hzxw5x9v8k7n6m5j4h3g2f1e"


def test_a_failed_record_raises_its_code() -> None:
    record = Record(
        task_id="a", status="failed", image=ImageFacts(name="x", key="k"), error=Fault(code="empty", message="no bytes")
    )

    with pytest.raises(RecognitionFailed, match="empty: no bytes"):
        record.or_raise()


@given(st.integers(0, 10**9))
def test_a_task_id_tells_its_job_and_number(number: int) -> None:
    job = records.new_job_id()

    assert (job, number) == records.split_task_id(records.task_id(job, number))


@given(st.text(st.characters()) | st.integers(1, 2000).map("ü".__mul__) | st.integers(1, 5000).map(f"{JOB}.".ljust))
def test_a_record_of_any_task_id_has_a_key_that_s3_takes(task_id: str) -> None:
    key = records.record_key(task_id)

    assert key.isascii()
    assert len(key) <= 1024
    assert key.startswith(("tasks/", "jobs/"))


def test_long_task_ids_that_begin_alike_have_keys_of_their_own() -> None:
    assert records.record_key("a" * 5000) != records.record_key("a" * 5001)


@pytest.mark.parametrize("number", ["0000001", "٠٠٠٠٠١", "9" * 5000, "00001", "-00001"], ids=range(5))
def test_what_is_no_number_of_a_job_is_the_id_of_a_plain_call(number: str) -> None:
    assert records.split_task_id(f"{JOB}.{number}") is None
    assert records.record_key(f"{JOB}.{number}").startswith("tasks/")


@given(st.text())
def test_a_safe_name_is_short_and_holds_no_separator(name: str) -> None:
    safe = records.safe_name(name)

    assert 1 <= len(safe) <= records.MAX_NAME_CHARACTERS
    assert not set(safe) & set("/\\ %")


@pytest.mark.parametrize(
    "values", [{"top_k": 0}, {"top_k": 101}, {"hedge": 2}, {"thumbnail": 5}, {"nonsense": 1}, {"top_k": "x"}]
)
def test_options_out_of_range_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(BadOptions):
        Options.checked(values)
