"""Sizes, pauses and rules of results, without a cloud."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from celery import states
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import eventually

from irs.app import app
from irs.errors import RecognitionFailed, StorageUnavailable
from irs.records import MAX_NEWS_BYTES, MAX_NEWS_RESULTS, MAX_RECORD_BYTES, Fault, ImageFacts, Label, News, NewsItem, Record
from irs.results import backoff
from irs.results.backend import WINDOW, Backend
from irs.results.backoff import Backoff
from irs.results.news import NewsSender
from irs.results.store import _fitted, ask_all


def a_record(**values: Any) -> Record:
    known: dict[str, Any] = {"task_id": "a", "status": "ok", "image": ImageFacts(name="cat.jpg", key="k")}
    return Record(**known | values)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    made = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(backoff.time, "monotonic", lambda: made.now)
    return made


def test_a_record_of_usual_size_is_stored_whole() -> None:
    record = a_record(
        thumbnail="x" * 32_000, labels=tuple(Label(label=f"label {n}", wnid=None, confidence=0.01) for n in range(100))
    )

    assert record == Record.from_json(_fitted(record))


@settings(deadline=None)
@given(
    name=st.integers(0, 200_000), key=st.integers(0, 200_000), message=st.integers(0, 200_000), thumbnail=st.integers(0, 100_000)
)
def test_a_stored_record_is_never_larger_than_its_bound(name: int, key: int, message: int, thumbnail: int) -> None:
    record = a_record(
        status="failed",
        image=ImageFacts(name="ü" * name, key="k" * key),
        error=Fault(code="not_found", message="m" * message),
        thumbnail="t" * thumbnail,
    )

    body = _fitted(record)

    assert len(body) <= MAX_RECORD_BYTES
    assert "not_found" == Record.from_json(body).error.code  # type: ignore[union-attr]


def test_a_record_too_large_loses_its_thumbnail_before_its_name() -> None:
    record = a_record(image=ImageFacts(name="n" * 2000, key="k"), thumbnail="t" * 70_000)

    assert replace(record, thumbnail=None) == Record.from_json(_fitted(record))


@given(st.floats(0.01, 1), st.floats(1, 10), st.integers(1, 30))
def test_pauses_grow_up_to_their_bound(first_s: float, longest_s: float, count: int) -> None:
    waiting = Backoff(first_s=first_s, longest_s=longest_s)

    pauses = [waiting.pause_s() for _ in range(count)]

    assert first_s == pauses[0]
    assert pauses == sorted(pauses)
    assert max(pauses) <= longest_s


def test_pauses_begin_anew_when_something_came() -> None:
    waiting = Backoff()
    first_s = waiting.pause_s()
    waiting.pause_s()

    waiting.note_answer(is_new=True)

    assert first_s == waiting.pause_s()


def test_pauses_end_with_the_timeout(clock: SimpleNamespace) -> None:
    waiting = Backoff(first_s=1.0, timeout=1.5)
    slept = [waiting.pause_s()]
    clock.now += 1.0
    slept.append(waiting.pause_s())
    before = waiting.is_over

    clock.now += 0.5

    assert [1.0, 0.5] == slept
    assert (False, True, 0.0) == (before, waiting.is_over, waiting.pause_s())


def test_patience_ends_when_storage_has_failed_for_half_a_minute(clock: SimpleNamespace) -> None:
    waiting, error = Backoff(), StorageUnavailable("S3 does not answer")
    waiting.note_failure(error)
    clock.now += 29
    waiting.note_failure(error)
    waiting.note_answer(is_new=False)
    clock.now += 29
    waiting.note_failure(error)
    clock.now += 31

    with pytest.raises(StorageUnavailable):
        waiting.note_failure(error)


def test_what_storage_does_not_answer_for_is_left_out_of_many() -> None:
    def ask(id: str) -> str:
        if id == "b":
            raise StorageUnavailable("S3 does not answer")
        return id.upper()

    assert ["A", None, "C"] == ask_all(ask, ["a", "b", "c"])
    assert [] == ask_all(ask, [])
    for ids in (["b"], ["b", "b"]):
        with pytest.raises(StorageUnavailable):
            ask_all(ask, ids)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids that a backend asked for; only ``700`` of them is done."""
    ids: list[str] = []

    def get_task_meta(self: Backend, task_id: str) -> dict[str, Any]:
        ids.append(task_id)
        return {"status": states.SUCCESS if task_id == "700" else states.PENDING, "result": task_id}

    monkeypatch.setattr(Backend, "get_task_meta", get_task_meta)
    return ids


def test_backend_asks_for_one_window_a_pass_while_a_thousand_tasks_wait(asked: list[str]) -> None:
    found = list(Backend(app).get_many([f"{n}" for n in range(1000, 2000)], max_iterations=1))

    assert [] == found
    assert WINDOW == len(asked)


def test_backend_finds_the_one_that_is_done_behind_tasks_that_never_end(asked: list[str]) -> None:
    id, meta = next(Backend(app).get_many([f"{n}" for n in range(1000)], timeout=30, interval=0.001))

    assert ("700", "700") == (id, meta["result"])
    assert len(asked) <= 1000 + WINDOW


RAN = SimpleNamespace(task="irs.recognize", hostname="irs@a")
NEVER_RAN = SimpleNamespace(task="irs.recognize", hostname=None)
OTHER = SimpleNamespace(task="shop.sum", hostname="irs@a")


@pytest.mark.parametrize(
    ("result", "state", "request_", "is_told"),
    [
        ({}, states.SUCCESS, RAN, True),
        (RecognitionFailed("a", "empty", "…"), states.FAILURE, RAN, True),
        # The message comes back: no final state.
        (ValueError(), states.FAILURE, RAN, True),
        (Exception(), states.RETRY, RAN, True),
        ("revoked", states.REVOKED, RAN, False),
        ({}, states.SUCCESS, OTHER, False),
        (ValueError(), states.FAILURE, None, False),
        # The rest of a chain that failed before it.
        (RecognitionFailed("b", "empty", "…"), states.FAILURE, NEVER_RAN, False),
        (ValueError(), states.FAILURE, NEVER_RAN, False),
    ],
)
def test_backend_stores_only_what_no_record_tells(result: Any, state: str, request_: Any, is_told: bool) -> None:
    assert is_told == Backend._is_told_by_record("a", result, state, request_)


class _Queue:
    """Stands in for SQS: keeps what is sent; as Cloud and as Sqs."""

    def __init__(self, wait_s: float) -> None:
        self.settings = SimpleNamespace(news_seconds=wait_s, responses_queue="q")
        self.bodies: list[str] = []

    def queue_url(self, name: str) -> str:
        return name

    def call(self, action: str, request: dict[str, str]) -> None:
        assert "SendMessage" == action
        self.bodies.append(request["MessageBody"])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 3000), max_size=200))
def test_news_arrive_once_and_in_order_within_the_bounds_of_a_message(name_lengths: list[int]) -> None:
    queue = _Queue(wait_s=0.01)
    records = [a_record(task_id=f"{n}", image=ImageFacts(name="ü" * length, key="k")) for n, length in enumerate(name_lengths)]
    sender = NewsSender(queue, sqs=queue)  # type: ignore[arg-type]
    for record in records:
        sender.add(record)

    sender.close()

    sent = [News.from_json(body).results for body in queue.bodies]
    assert [NewsItem.of(record).task_id for record in records] == [item.task_id for items in sent for item in items]
    assert all(len(body.encode()) <= MAX_NEWS_BYTES for body in queue.bodies)
    assert all(1 <= len(items) <= MAX_NEWS_RESULTS for items in sent)


def test_news_go_at_once_when_no_more_are_coming() -> None:
    queue = _Queue(wait_s=5)
    sender = NewsSender(queue, sqs=queue)  # type: ignore[arg-type]
    for n in range(3):
        sender.add(a_record(task_id=f"{n}"), more_coming=False)
        eventually(lambda n=n: n + 1 == len(queue.bodies), within_s=2)

    sender.close()


def test_news_after_the_first_are_gathered() -> None:
    queue, pace = _Queue(wait_s=5), threading.Event()
    sender = NewsSender(queue, sqs=queue)  # type: ignore[arg-type]
    for n in range(30):
        sender.add(a_record(task_id=f"{n}"))
        pace.wait(0.01)

    sender.close()

    # The first alone, then the others together.
    assert 2 == len(queue.bodies)
    assert 1 == len(News.from_json(queue.bodies[0]).results)
