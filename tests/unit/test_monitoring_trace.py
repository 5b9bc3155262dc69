"""The story of one image, from its record alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from irs import records
from irs.cli.trace import BAR_CHARACTERS, lines_of
from irs.errors import BadOptions
from irs.monitoring.trace import Trace, read_id, trace_of
from irs.records import BatchFacts, Fault, ImageFacts, Label, ModelFacts, Record, Timing

JOB = "01k5r0z6d4x8q2m7v3n9b1c5hf"
SENT = 1_790_000_000.25
PRICE = (0.36, "asked for")
DONE = Record(
    task_id=records.task_id(JOB, 7),
    job=JOB,
    number=7,
    status="ok",
    image=ImageFacts(name="Bär.jpg", key=f"jobs/{JOB}/000007/B_r.jpg", bytes=1000),
    labels=(Label(label="bear", wnid=None, confidence=0.9),),
    model=ModelFacts(name="resnet18", digest="sha256:0"),
    timing=Timing(submitted=SENT, queued=2.0, fetch=0.5, decode=0.25, batch=0.125, model=0.125),
    worker="irs@i-1",
    receives=2,
    batch=BatchFacts(number=17, size=8),
)


def told(record: Record = DONE, stored_at: float | None = SENT + 4.0, price: tuple[float | None, str] = PRICE) -> Trace:
    return trace_of(record, stored_at, price=price, input_days=7, output_days=30)


def test_each_stage_follows_the_one_before_and_storing_ends_when_s3_says() -> None:
    steps = [(step.stage, step.at_s, step.took_s) for step in told().steps]

    assert [
        ("queued", 0.0, 2.0),
        ("fetched", 2.0, 0.5),
        ("decoded", 2.5, 0.25),
        ("batched", 2.75, 0.125),
        ("inferred", 2.875, 0.125),
        ("stored", 3.0, 1.0),
    ] == steps
    assert 4.0 == told().total_s


def test_it_tells_worker_receive_and_batch() -> None:
    assert "Answered by irs@i-1 at its second receive, in its model call 17, with 7 others." == told().summary


def test_a_clock_that_tells_seconds_alone_is_said_to_be_about() -> None:
    """AWS cuts to the second, which may be before the model was done: no stage takes less than nothing."""
    stored = told(stored_at=float(int(SENT + 2.9))).steps[-1]

    assert ("stored", 0.0, True) == (stored.stage, stored.took_s, stored.is_about)
    assert not told(stored_at=SENT + 4.0).steps[-1].is_about


@pytest.mark.parametrize(
    ("record", "summary"),
    [
        (replace(DONE, batch=None, cached=True), "Answered by irs@i-1 at its second receive, from memory"),
        (replace(DONE, batch=BatchFacts(number=1, size=1)), "in its model call 1, alone"),
        (replace(DONE, batch=BatchFacts(number=1, size=2)), "in its model call 1, with 1 other."),
        (records.cancelled_record(DONE.task_id), "It was cancelled"),
        (
            replace(DONE, status="failed", labels=(), receives=0, worker=None, error=Fault(code="empty", message="Empty.")),
            "refused",
        ),
        (replace(DONE, status="failed", labels=(), worker=None, batch=None, receives=5), "by the janitor at its 5th receive"),
    ],
)
def test_every_end_has_its_sentence(record: Record, summary: str) -> None:
    assert summary in told(record).summary


def test_what_it_cost_is_the_workers_time_its_requests_and_its_bytes() -> None:
    """A second of fetching, decoding, waiting and the model at $0.36 an hour; two deliveries, and a reader of the record."""
    found = told()
    requests = 2 * 5.00e-6 + 3 * 0.40e-6 + (0.1 + 2 * 0.265) * 0.40e-6

    assert pytest.approx(1e-4) == found.usd_worker
    assert pytest.approx(1e-4 + requests, rel=1e-3) == found.usd
    assert told(price=(None, "unknown")).usd_worker is None


times = st.floats(0, 100, allow_nan=False)


@example(Timing(submitted=SENT, queued=0.0, fetch=0.0, decode=0.0, batch=1e-45, model=1e-155), 0.0)
@given(st.builds(Timing, submitted=st.just(SENT), queued=times, fetch=times, decode=times, batch=times, model=times), times)
def test_the_stages_make_up_the_whole_and_no_bar_leaves_its_column(timing: Timing, after_s: float) -> None:
    found = told(replace(DONE, timing=timing), SENT + after_s)

    assert found.total_s is not None
    assert pytest.approx(found.total_s, abs=1e-5) == sum(step.took_s for step in found.steps)
    plain, barred = lines_of(found, bars=False), lines_of(found, bars=True)
    widths = [len(long) - len(short) for short, long in zip(plain, barred, strict=True)]
    assert max(widths) <= 2 + BAR_CHARACTERS
    assert {"█", " "} >= {sign for short, long in zip(plain, barred, strict=True) for sign in long[len(short) :]}


def test_the_story_as_lines_without_bars_is_as_in_a_pipe() -> None:
    lines = lines_of(told(), bars=False)

    assert f"{DONE.task_id}  Bär.jpg  ok: bear" == lines[0]
    assert "  queued            2.0000 s" in lines
    assert "  in all            4.0000 s" in lines
    assert not any("█" in line for line in lines)


@pytest.mark.parametrize("text", [f"{JOB}/7", f"{JOB}.000007", f"{JOB}/000007"])
def test_an_image_is_named_as_its_job_and_number_or_as_its_task(text: str) -> None:
    assert DONE.task_id == read_id(text)


def test_the_id_of_a_plain_call_may_be_anything_but_a_job() -> None:
    assert "my/own/1" == read_id("my/own/1")
    with pytest.raises(BadOptions, match=f"whole job: name one of its images, such as {JOB}/0"):
        read_id(JOB)
