"""What the scaler reads: counters of workers that come, go and start anew."""

from __future__ import annotations

import boto3
import pytest
from moto import mock_aws

from irs.cloud import Cloud
from irs.records import Beat
from irs.settings import Settings
from scaler.life import phase_of
from scaler.signals import Beats, Counts, Reading, read_counts

WALL = 1_790_000_000.0


def beat(completed: int, *, at: float = 0.0, boot: str = "a", busy: int = 0, **more: object) -> Beat:
    phase = more.pop("phase", "busy" if busy else "ready")
    return Beat(
        instance="i-1", boot=boot, host="h", pid=1, phase=phase, at=WALL + at, started=WALL - 100,  # type: ignore[arg-type]
        slots=2, busy_slots=busy, completed=completed, **more,  # type: ignore[arg-type]
    )  # fmt: skip


def look(beats: Beats, *said: Beat, at: float) -> Reading:
    return beats.observe(said, Counts(0, 0, 0), now=at, wall=WALL + at)


def total(beats: Beats, *said: Beat, at: float) -> float:
    return look(beats, *said, at=at).observation.completed_total


def test_beats_leave_out_what_was_done_before_the_first_look_and_count_what_came_after() -> None:
    beats = Beats()

    totals = [total(beats, beat(1000, at=0), at=0), total(beats, beat(1007, at=5), at=5)]

    assert [0, 7] == totals


def test_beats_count_all_of_a_worker_that_came_later_and_of_one_that_is_gone() -> None:
    beats = Beats()
    look(beats, at=0)
    look(beats, beat(12, at=5), at=5)

    assert 12 == total(beats, at=10)


def test_beats_add_a_counter_that_begins_again_at_zero() -> None:
    beats = Beats()
    look(beats, at=0)
    look(beats, beat(12, at=5), at=5)

    assert 15 == total(beats, beat(3, at=10, boot="b"), at=10)


def test_beats_never_let_the_sum_fall_when_an_old_beat_is_read_again() -> None:
    beats = Beats()
    look(beats, at=0)
    look(beats, beat(12, at=5), at=5)

    assert 12 == total(beats, beat(9, at=3), at=10)


def test_beats_keep_of_workers_long_gone_what_they_did_and_no_more() -> None:
    beats = Beats()
    look(beats, at=0)
    for number in range(100):
        look(beats, beat(12, at=number, boot=str(number), busy_s=1.0), at=number)

    seen = look(beats, at=2 * 86_400).observation

    assert (1200, 100) == (seen.completed_total, seen.busy_total_s)
    assert {} == beats._tallies


def test_beats_carry_a_busy_workers_count_forward_at_its_own_rate_between_beats() -> None:
    beats = Beats()
    look(beats, beat(0, at=0, busy=2), at=0)
    look(beats, beat(10, at=5, busy=2), at=5)

    assert 16 == total(beats, beat(10, at=5, busy=2), at=8)


@pytest.mark.parametrize(
    ("phase", "expected"),
    [("starting", "booting"), ("warming", "booting"), ("ready", "ready"), ("paused", "ready"), ("retiring", "ready"),
     ("draining", "leaving"), ("drained", "leaving"), ("interrupted", "leaving"), ("stopped", "leaving")],
)  # fmt: skip
def test_beats_tell_the_phase_of_a_worker(phase: str, expected: str) -> None:
    assert expected == phase_of(look(Beats(), beat(0, phase=phase), at=0).heard["i-1"])


def test_beats_call_a_worker_stuck_that_holds_images_and_finishes_none_for_two_minutes() -> None:
    beats = Beats()

    phases = [phase_of(look(beats, beat(5, at=at, busy=2), at=at).heard["i-1"]) for at in range(0, 130, 5)]

    assert ["ready"] * 25 + ["stuck"] == phases


@pytest.mark.parametrize("more", [{"busy": 0}, {"busy": 2, "phase": "paused"}])
def test_beats_call_no_worker_stuck_that_is_idle_or_waits_for_s3(more: dict[str, object]) -> None:
    beats = Beats()

    phases = {phase_of(look(beats, beat(5, at=at, **more), at=at).heard["i-1"]) for at in range(0, 1000, 5)}  # type: ignore[arg-type]

    assert {"ready"} == phases


def test_beats_call_a_worker_lost_that_says_nothing_new_for_three_beats() -> None:
    beats = Beats()

    phases = [phase_of(look(beats, beat(5), at=at).heard["i-1"]) for at in range(0, 60, 5)]

    assert ["ready"] * 11 + ["lost"] == phases


def test_beats_call_nobody_silent_or_stuck_for_the_time_in_which_none_could_be_read() -> None:
    beats = Beats()
    look(beats, beat(5, busy=2), at=0)

    assert "ready" == phase_of(look(beats, beat(5, busy=2), at=3600).heard["i-1"])


@pytest.mark.parametrize("skew_s", [-86_400.0, 86_400.0])
def test_beats_are_heard_whatever_the_clock_on_the_wall_says(skew_s: float) -> None:
    beats = Beats()

    for at in range(0, 100, 5):
        read = beats.observe([beat(at, at=at, busy=2)], Counts(0, 0, 0), now=at, wall=WALL + at + skew_s)

    assert "ready" == phase_of(read.heard["i-1"])
    assert 95 <= read.observation.completed_total <= 95 + 10


def test_counts_are_none_and_not_zero_when_the_queue_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    cloud = Cloud(Settings(stack="counts", region="us-east-1", endpoint_url=""))

    with mock_aws():
        absent = read_counts(cloud)
        queue = boto3.client("sqs", region_name="us-east-1").create_queue(QueueName="counts-requests")
        boto3.client("sqs", region_name="us-east-1").send_message(QueueUrl=queue["QueueUrl"], MessageBody="x")
        present = read_counts(cloud)

    assert (Counts(None, None, None), Counts(1, 0, 0)) == (absent, present)


@pytest.mark.parametrize("said", [{}, {"ApproximateNumberOfMessages": "many"}, {"ApproximateNumberOfMessages": "-1"}])
def test_a_count_that_is_missing_or_no_number_is_none(said: dict[str, str]) -> None:
    class Queue:
        def get_queue_attributes(self, **_: object) -> dict[str, object]:
            return {"Attributes": {"ApproximateNumberOfMessagesNotVisible": "3", **said}}

    class OneQueue(Cloud):
        def queue_url(self, name: str) -> str:
            return "https://queue"

        def client(self, service: str, **_: object) -> Queue:
            return Queue()

    assert Counts(None, 3, None) == read_counts(OneQueue(Settings(stack="x")))
