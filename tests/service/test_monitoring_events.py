"""Events over SNS: each once, in few requests, from a thread of their own, and of tasks only while somebody watches."""

from __future__ import annotations

import re
import time
from collections import Counter

import pytest
from faults import Fault
from monitors import Crew
from waiting import eventually

TASK_TYPES = ("task-received", "task-started", "task-succeeded", "task-failed")


@pytest.fixture
def watching(crew: Crew) -> Crew:
    """The crew while its commander watches."""
    if not crew.do("is_watching()"):
        crew.do("watch()")
    eventually(lambda: crew.do("seen('worker-heartbeat') or control.heartbeat()"), within_s=40, every_s=0.5)
    crew.do("forget()")
    return crew


def counted(crew: Crew, ids: list[str]) -> Counter[str]:
    wanted = set(ids)
    return Counter(event["type"] for event in crew.do(f"seen(*{TASK_TYPES})") if event["uuid"] in wanted)


def done(crew: Crew, ids: list[str]) -> bool:
    said = crew.watched.said("w0") + crew.watched.said("w1")
    return all(f"[{id}] succeeded" in said for id in ids)


def test_a_watcher_sees_each_step_of_two_hundred_tasks_once(watching: Crew) -> None:
    watching.proxy.counts.clear()
    began = time.monotonic()

    good, bad = watching.do("send(180)"), watching.do("send_failing(20)")

    expected = Counter({"task-received": 200, "task-started": 200, "task-succeeded": 180, "task-failed": 20})
    eventually(lambda: counted(watching, good + bad).total() >= expected.total(), within_s=40, every_s=0.2)
    took_s = time.monotonic() - began
    assert expected == counted(watching, good + bad)
    # One publish a worker and interval of 2 s, and the heartbeats: not one an event.
    assert watching.proxy.counts["Publish events"] <= 2 * (took_s / 2 + 2) + 2
    events = watching.do("seen('task-received', 'task-failed')")
    assert "['image-0', 0.0]" in {event.get("args") for event in events}
    assert {"ValueError('not_an_image: bad-0')"} <= {event.get("exception") for event in events}
    assert {"irs@w0", "irs@w1"} >= {event["hostname"] for event in events}


def test_no_event_is_published_by_the_event_loop_or_a_task(watching: Crew) -> None:
    watching.do("send(5)")

    eventually(lambda: watching.do("seen('task-succeeded')"), within_s=30)
    threads = {thread for name in ("w0", "w1") for thread in re.findall(r"publish in (\S+)", watching.watched.said(name))}
    assert {"irs-events"} == threads


def test_a_batch_that_is_delivered_twice_counts_once(watching: Crew) -> None:
    twice = [{"type": "task-custom", "hostname": "irs@x", "uuid": "u", "clock": 1, "pid": 1, "timestamp": 1.0, "utcoffset": 0}]

    watching.do(f"publish_twice('celeryev', {twice!r})")

    eventually(lambda: watching.do("seen('task-custom')"), within_s=20)
    watching.do("publish_raw('celeryev', [{**seen('task-custom')[0], 'type': 'task-last'}])")
    eventually(lambda: watching.do("seen('task-last')"), within_s=20)
    assert 1 == len(watching.do("seen('task-custom')"))


def test_a_poll_for_events_lasts_no_longer_than_its_caller_waits(crew: Crew) -> None:
    assert 0.9 < crew.do("drain_on_an_empty_queue(1)") < 3


def test_tasks_go_on_while_sns_is_away_and_their_events_come_afterwards(watching: Crew) -> None:
    watching.proxy.fault = Fault("503", frozenset({"POST"}))
    try:
        ids = watching.do("send(40)")
        eventually(lambda: watching.watched.said("w0").count("events_held") > 0, within_s=40)
        eventually(lambda: done(watching, ids), within_s=40)
    finally:
        watching.proxy.fault = None

    eventually(lambda: counted(watching, ids)["task-succeeded"] >= 40, within_s=60, every_s=0.2)
    assert Counter({"task-received": 40, "task-started": 40, "task-succeeded": 40}) == counted(watching, ids)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nobody_watching_for_a_minute_ends_events_of_tasks_and_not_the_heartbeat(crew: Crew) -> None:
    crew.do("watch(is_renewing=False)")
    crew.do("control.enable_events(reply=True, timeout=20)")
    enabled_at = time.monotonic()
    crew.do("send(2)")
    eventually(lambda: crew.do("seen('task-succeeded')"), within_s=20)

    eventually(lambda: time.monotonic() - enabled_at > 62, within_s=80, every_s=1)
    crew.do("forget()")
    ids = crew.do("send(4)")
    eventually(lambda: crew.do("seen('worker-heartbeat')"), within_s=60, every_s=0.5)

    assert Counter() == counted(crew, ids)
