"""Byte budget, answer cache and the gate to S3."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import eventually

from irs.errors import Forbidden, RequestError, StageTimeout, StorageUnavailable
from irs.worker import gate
from irs.worker.budget import ByteBudget
from irs.worker.cache import AnswerCache, Answered
from irs.worker.gate import StorageGate

LIMIT_S = 10

_CHOOSES = """
import os
os.sched_setscheduler(0, os.{before}, os.sched_param(0))
from irs.worker.process import favour_throughput
favour_throughput()
print(os.sched_getscheduler(0))
"""


@given(st.lists(st.integers(0, 150), max_size=30))
def test_the_budget_is_exceeded_only_by_one_image_alone(sizes: list[int]) -> None:
    budget, held = ByteBudget(100), []

    for size in sizes:
        if budget.try_take(size):
            held.append(size)
        assert budget.held == sum(held)
        assert budget.held <= 100 or len([one for one in held if one]) == 1


def test_who_finds_no_room_waits_until_another_gives_back() -> None:
    budget, came = ByteBudget(100), threading.Event()
    budget.take(80, within_s=0)
    waiting = threading.Thread(target=lambda: (budget.take(50, within_s=LIMIT_S), came.set()))
    waiting.start()

    assert not came.is_set()
    budget.give_back(80)

    assert came.wait(LIMIT_S)
    assert 50 == budget.held


def test_a_wait_for_room_has_an_end() -> None:
    budget = ByteBudget(100)
    budget.take(80, within_s=0)

    with pytest.raises(StageTimeout, match="no room for 50 bytes"):
        budget.take(50, within_s=0.01)


def answered(value: float) -> Answered:
    return Answered("JPEG", 4, 3, np.array([value, 1 - value], np.float32))


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="Linux alone has scheduling policies")
@pytest.mark.parametrize(("before", "after"), [("SCHED_OTHER", "SCHED_BATCH"), ("SCHED_IDLE", "SCHED_IDLE")])
def test_a_policy_that_somebody_chose_stays(before: str, after: str) -> None:
    # In a process of its own, for threads inherit it.
    chooses = [sys.executable, "-c", _CHOOSES.format(before=before)]
    ran = subprocess.run(chooses, capture_output=True, text=True, check=True, timeout=120)

    assert f"{getattr(os, after)}" == ran.stdout.strip()


def test_the_cache_forgets_what_was_unused_for_longest() -> None:
    cache = AnswerCache(2)
    cache.keep("a", answered(0.25))
    cache.keep("b", answered(0.5))
    assert cache.find("a")
    cache.keep("c", answered(0.75))

    assert cache.find("b") is None
    assert [0.25, 0.75] == list(cache.find("a").probabilities)  # type: ignore[union-attr]
    assert cache.find("c")


def test_a_cache_of_no_entries_keeps_nothing() -> None:
    cache = AnswerCache(0)
    cache.keep("a", answered(0.5))

    assert cache.find("a") is None


class Storage:
    """S3 that is away until it is told to come back."""

    def __init__(self) -> None:
        self.is_away, self.probed, self.told = False, threading.Event(), []  # type: ignore[var-annotated]
        self.refusal: RequestError | None = None
        self.gate = StorageGate(self.probe, on_shut=lambda _: self.told.append("shut"), on_open=lambda: self.told.append("open"))

    def probe(self) -> None:
        if self.refusal:
            raise self.refusal
        self.ask()

    def ask(self) -> str:
        if self.is_away:
            self.probed.set()
            raise StorageUnavailable("503")
        return "there"

    def call(self, *, is_read: bool = False) -> str:
        return self.gate.call(self.ask, until=time.monotonic() + LIMIT_S, is_read=is_read)


def answers_after_an_outage(storage: Storage) -> list[str]:
    answers: list[str] = []
    storage.is_away = True
    caller = threading.Thread(target=lambda: answers.append(storage.call()))
    caller.start()
    assert storage.probed.wait(LIMIT_S)
    storage.is_away = False
    caller.join(LIMIT_S)
    return answers


def test_a_call_that_an_outage_broke_is_made_again_when_storage_answers() -> None:
    storage = Storage()

    assert ["there"] == answers_after_an_outage(storage)
    assert ["shut", "open"] == storage.told
    assert storage.gate.is_open


def test_a_stopping_worker_waits_for_storage_no_longer() -> None:
    storage, raised = Storage(), threading.Event()
    storage.is_away = True

    def call() -> None:
        with pytest.raises(StorageUnavailable):
            storage.call()
        raised.set()

    caller = threading.Thread(target=call)
    caller.start()
    assert storage.probed.wait(LIMIT_S)
    storage.gate.close()

    assert raised.wait(LIMIT_S)


def test_a_probe_that_is_refused_opens_the_gate_again_since_storage_answers() -> None:
    storage = Storage()
    storage.refusal = Forbidden("s3://output/workers/")

    assert ["there"] == answers_after_an_outage(storage)
    eventually(lambda: storage.gate.is_open)


def test_a_read_that_alone_is_refused_goes_back_while_others_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "FIRST_PROBE_S", 0.001)
    storage = Storage()
    storage.is_away, storage.refusal = True, Forbidden("s3://output/workers/")

    with pytest.raises(StorageUnavailable):
        storage.call(is_read=True)
    storage.is_away = False

    assert "there" == storage.call()
