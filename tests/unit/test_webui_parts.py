"""The page's small parts: runs as event ids, formats at the door, ids that repeat, budgets, exports."""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import anyio
import pytest
from anyio import to_thread
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge
from webpages import record_of

from irs import records
from irs.errors import EmptyImage, NotAnImage, RequestError, UnsupportedFormat
from irs.imaging import formats as worker_formats
from irs.records import Fault, NewsItem, Record
from webui import budget as budgets
from webui import exports, ids, live, openapi, pages
from webui.arrivals import Arrivals, Stored
from webui.budget import ByteBudget, Rate
from webui.formats import FORMATS, check_head, find_format, served_type
from webui.metrics import Metrics
from webui.problems import CODES, Problem
from webui.runs import MOST_CHARACTERS, Runs

NUMBERS = st.sets(st.integers(0, 3000), max_size=300)


# Runs


@given(st.lists(st.integers(0, 200), max_size=200))
def test_runs_hold_the_numbers_that_were_added_in_any_order(numbers: list[int]) -> None:
    runs, seen = Runs(), set[int]()

    for number in numbers:
        assert (number not in seen) == runs.add(number)
        seen.add(number)

    assert len(seen) == len(runs)
    assert seen == {number for number in range(202) if number in runs}
    assert runs.frontier == next(number for number in range(202) if number not in seen)


@given(NUMBERS)
def test_an_id_stands_for_nothing_that_was_not_delivered(numbers: set[int]) -> None:
    text = Runs(numbers).text()

    back = Runs.parse(text)

    assert len(text) <= MOST_CHARACTERS
    assert all(number in numbers for number in range(3002) if number in back)
    assert Runs(numbers).frontier == back.frontier


@given(st.sets(st.integers(0, 40), max_size=40))
def test_an_id_that_is_short_enough_stands_for_all_that_was_delivered(numbers: set[int]) -> None:
    assert numbers == {number for number in range(42) if number in Runs.parse(Runs(numbers).text())}


def test_an_id_is_the_frontier_or_runs_beside_a_straggler() -> None:
    assert "0" == Runs().text()
    assert "961" == Runs(range(961)).text()
    assert "0-6,8-960" == Runs(number for number in range(961) if number != 7).text()
    assert "5-5" == Runs([5]).text()


@given(st.text(max_size=300) | st.from_regex(r"[0-9,-]{0,300}", fullmatch=True))
def test_an_id_from_outside_never_fails_and_never_stands_for_more_than_a_million(text: str) -> None:
    assert len(Runs.parse(text)) <= 1_000_000


# Formats


WORKER_NAMES = {"WEBP": "WebP", "JPEG2000": "JPEG 2000", "HEIF": "HEIC"}


@given(
    st.sampled_from([*worker_formats._READ_BY_START, b"RIFF....WEBP", b"....ftypavif", b"....ftypheic", b"....ftypmif1", b"BM"]),
    st.binary(max_size=40),
)
def test_the_door_refuses_nothing_that_a_worker_reads(start: bytes, rest: bytes) -> None:
    head = start + rest
    found = worker_formats._tell(head)
    if found not in worker_formats._READERS and found != "HEIF":
        return

    check_head(head[:16])

    assert find_format(head[:16]) in FORMATS


@pytest.mark.parametrize(
    ("head", "error"),
    [
        (b"", EmptyImage),
        (b"hello world", NotAnImage),
        (b"<html><script>", NotAnImage),
        (b"%PDF-1.7", UnsupportedFormat),
        (b"<svg xmlns=", UnsupportedFormat),
        (b"\0\0\0\x18ftypmp42", UnsupportedFormat),
    ],
)
def test_the_door_refuses_what_is_no_picture(head: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        check_head(head)


@pytest.mark.parametrize("head", [b"<svg onload=", b"<html>", b"%PDF-1.7", b"BM123", b"II*\0", b"", b"GIF8"])
def test_what_could_hold_a_script_is_never_shown_in_place(head: bytes) -> None:
    assert ("application/octet-stream", False) == served_type(head)


# Ids


@given(st.text(min_size=1, max_size=80), st.integers(86_400, 86_400 * 365 * 80))
def test_a_key_stands_for_the_same_job_until_the_next_days_end(key: str, now: int) -> None:
    yesterday, today = ids.repeatable_ids(key, "secret", now=now)

    assert records.split_task_id(records.task_id(today, 0)) == (today, 0)
    assert today == ids.repeatable_ids(key, "secret", now=now + 86_400)[0]
    assert yesterday != today
    assert today != ids.repeatable_ids(key, "another secret", now=now)[1]


def test_a_job_that_is_not_stored_has_expired_or_never_was_by_the_time_in_its_id() -> None:
    job = ids.repeatable_ids("key", "secret", now=100 * 86_400)[1]

    assert "job_expired" == ids.why_unknown(job, 30, now=131 * 86_400).code
    assert "job_not_found" == ids.why_unknown(job, 30, now=120 * 86_400).code


@pytest.mark.parametrize("job", ["", "x", "../../etc/passwd", "8" * 26, "0" * 25 + "U", "0" * 27])
def test_what_cannot_be_a_job_is_not_asked_for(job: str) -> None:
    with pytest.raises(Problem, match="no such job"):
        ids.check_job_id(job)


# Budgets


def test_a_budget_never_holds_more_than_its_bytes_and_serves_in_turn() -> None:
    most = 0
    served: list[int] = []

    async def run() -> None:
        budget = ByteBudget(100, 50, Gauge("held", "-", registry=CollectorRegistry()))

        async def hold(number: int, size: int) -> None:
            nonlocal most
            async with budget.hold(size):
                served.append(number)
                most = max(most, budget.held_bytes)
                await anyio.sleep(0)

        async with anyio.create_task_group() as tasks:
            for number, size in enumerate([60, 60, 10, 100, 1, 500]):
                tasks.start_soon(hold, number, size)
        assert 0 == budget.held_bytes

    anyio.run(run)

    assert most <= 100
    assert sorted(served) == served


def test_a_budget_that_stays_full_says_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "WAIT_S", 0.05)

    async def run() -> None:
        budget = ByteBudget(10, 5, Gauge("held", "-", registry=CollectorRegistry()))
        async with budget.hold(8):
            with pytest.raises(Problem) as refused:
                async with budget.hold(8):
                    raise AssertionError
            assert "busy" == refused.value.code
            assert {"Retry-After": "5"} == refused.value.headers
        async with budget.hold(10):
            assert 10 == budget.held_bytes

    anyio.run(run)


def test_an_address_is_held_to_its_rate_and_others_are_not() -> None:
    rate = Rate(2, "too_many_jobs", "jobs")
    for at_s in (0.0, 30.0):
        rate.check("a", now_s=at_s)

    with pytest.raises(Problem) as refused:
        rate.check("a", now_s=40.0)

    assert (429, "20") == (refused.value.status, refused.value.headers["Retry-After"])
    rate.check("b", now_s=40.0)
    rate.check("a", now_s=60.1)


# Exports


async def _each(*made: Record) -> AsyncIterator[Record]:
    for record in made:
        yield record


def _csv(*made: Record) -> list[dict[str, str]]:
    async def run() -> str:
        return "".join([part async for part in exports.as_csv(_each(*made), 3)])

    text = anyio.run(run)
    assert text.startswith("\ufefffile,label,confidence,sure,hedged,label_2,confidence_2,label_3,confidence_3,status,error,model")
    return list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))


def test_a_csv_has_one_row_an_image_with_its_labels_or_its_error() -> None:
    failed = record_of("j" * 26, 1, status="failed", labels=(), model=None, error=Fault(code="damaged", message="It ends early."))

    first, second = _csv(record_of("j" * 26, 0), failed)

    assert ["0.jpg", "cat", "0.9000", "yes", "dog", "", "ok", "", "tiny", "ab"] == [
        first[name]
        for name in ("file", "label", "confidence", "sure", "label_2", "label_3", "status", "error", "model", "sha256")
    ]
    assert ["", "", "failed", "damaged"] == [second[name] for name in ("label", "sure", "status", "error")]


@pytest.mark.parametrize("name", ["=1+1", "+cmd", "-2", "@SUM", "\tx"])
def test_a_csv_holds_no_cell_that_a_table_program_would_run(name: str) -> None:
    from irs.records import ImageFacts

    (row,) = _csv(record_of("j" * 26, 0, image=ImageFacts(name=name, key="k")))

    assert f"'{name}" == row["file"]


# The API's description


def test_the_published_description_is_what_the_code_says() -> None:
    """Make it anew with ``python -m webui.openapi``."""
    assert openapi.text() == Path(openapi.FILE).read_text()


def test_every_operation_names_problems_that_are_explained() -> None:
    named = {code for operation in openapi.OPERATIONS for code in operation.problems}

    assert set() == named - set(CODES)


# Images under one number


def test_of_two_images_that_come_at_once_under_one_number_one_is_refused() -> None:
    """Their keys differ: both would be stored, and one of them never answered."""

    class Input:
        stored: ClassVar[list[str]] = []
        both = threading.Barrier(2, timeout=1)

        def put(self, key: str, *_: object, **__: object) -> bool:
            with suppress(threading.BrokenBarrierError):
                self.both.wait()
            self.stored.append(key)
            return True

    arrivals = Arrivals(cast(Any, SimpleNamespace(input=Input())), "job")
    answers: list[bool | str] = []

    async def put(name: str) -> None:
        try:
            answers.append(await arrivals.put(7, name, name.encode(), anyio.CapacityLimiter(4)))
        except Problem as problem:
            answers.append(problem.code)

    async def run() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(put, "cat.jpg")
            tasks.start_soon(put, "dog.jpg")

    anyio.run(run)

    assert [True, "image_taken"] == answers
    assert 1 == len(Input.stored)


def test_a_number_is_kept_for_whoever_waits_and_no_longer() -> None:
    arrivals = Arrivals(cast(Any, SimpleNamespace(input=SimpleNamespace(put=lambda *_, **__: True))), "job")

    async def run() -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(arrivals.put, 7, "cat.jpg", b"cat", anyio.CapacityLimiter(4))

    anyio.run(run)

    assert {} == arrivals._turns


@pytest.mark.parametrize(
    ("stored", "is_sent"),
    [
        (Stored("jobs/J/000001/gr_n.jpg", 3, "grün.jpg"), True),
        (Stored("jobs/J/000001/gr_n.jpg", 3, "grün.jpg", is_published=True), False),
        (Stored("jobs/J/000001/gr_n.jpg", 3, listed_s=99.0), True),
        (Stored("jobs/J/000001/gr_n.jpg", 3, listed_s=101.0), False),
        (Stored("jobs/J/000001/gr_n.jpg", 3, listed_s=99.0, is_published=True), False),
    ],
    ids=["own unsent", "own", "before", "another's", "before, sent"],
)
def test_what_may_be_unsent_is_told_by_who_stored_it_when(stored: Stored, is_sent: bool) -> None:
    arrivals = Arrivals(cast(Any, None), "J")
    arrivals._known[1] = stored

    assert ([(1, stored)] if is_sent else []) == arrivals.perhaps_unsent(before_s=100.0)


# News


def test_the_listener_outlives_whatever_a_poll_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    polls = iter([RuntimeError("a bug"), [], ValueError("another")])
    heard = threading.Event()

    class Reader:
        def __init__(self, _: object) -> None: ...

        def receive(self, *, wait_s: int) -> list[NewsItem]:
            answer = next(polls, None)
            if isinstance(answer, Exception):
                raise answer
            if answer is None:
                heard.set()
            return []

    async def run() -> bool:
        async with live.Live(cast(Any, SimpleNamespace()), Metrics()).running():
            return await to_thread.run_sync(heard.wait, 10)

    monkeypatch.setattr(live, "NewsReader", Reader)
    monkeypatch.setattr(live, "FIRST_PAUSE_S", 0.001)

    assert anyio.run(run)


# Words


def test_whatever_a_record_may_say_is_wrong_has_words_of_the_page_and_what_to_do() -> None:
    codes = {error.code for error in RequestError.__subclasses__()} | {"internal", "poisoned"}

    faults = pages._templates.get_template("words.html").module.faults  # type: ignore[attr-defined]

    assert codes == set(faults)
    assert all(part.endswith(".") for words in faults.values() for part in words)
