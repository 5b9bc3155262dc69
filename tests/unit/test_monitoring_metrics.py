"""What is counted, and what Prometheus reads of it."""

from __future__ import annotations

import logging
import re
import socket
import urllib.error
import urllib.request
from typing import Any

import pytest
from celery import Celery, signals
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from irs.errors import RecognitionFailed, SetupError
from irs.monitoring.endpoint import serve
from irs.monitoring.metrics import exposition, histogram, registry_of
from irs.records import Fault, ImageFacts, Record, Timing
from irs.tally import CALLS, Call, Spread
from irs.worker.counts import Counts, Minutes, TaskCounts, Totals

BOUNDS = (0.1, 1.0, 10.0)


def shown(name: str, **labels: str) -> float:
    """The value of one sample of what every process shows."""
    text = exposition(registry_of())[0].decode()
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
    return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())


@given(st.lists(st.floats(0, 100, allow_nan=False)))
def test_a_spread_counts_each_value_in_every_bucket_that_reaches_it(values: list[float]) -> None:
    spread = Spread(BOUNDS)
    for value in values:
        spread.note(value)

    expected = [(str(bound), float(sum(value <= bound for value in values))) for bound in BOUNDS]
    assert [*expected, ("+Inf", float(len(values)))] == spread.buckets()
    assert len(values) == spread.count
    assert pytest.approx(sum(values)) == spread.sum


def test_a_spread_is_a_histogram_that_prometheus_reads() -> None:
    spread = Spread(BOUNDS)
    spread.note(0.5, times=3)

    family = histogram("irs_some_seconds", "Some.", ("stage",), [(("fetch",), spread)])

    assert {("0.1", 0.0), ("1.0", 3.0), ("10.0", 3.0), ("+Inf", 3.0)} == {
        (one.labels["le"], one.value) for one in family.samples if one.name == "irs_some_seconds_bucket"
    }
    assert 1.5 == next(one.value for one in family.samples if one.name.endswith("_sum"))


@pytest.mark.parametrize(
    ("error", "code", "errors"),
    [
        (None, "200", 0),
        ("NotFound", "404", 0),
        ("AlreadyExistsError", "412", 0),
        ("StorageUnavailable", "storage_unavailable", 1),
        ("ConnectTimeout", "ConnectTimeout", 1),
    ],
)
def test_a_call_is_an_error_unless_aws_answered_it(error: str | None, code: str, errors: int) -> None:
    """A record that is not there yet, and one that stood already, are what is asked for all day."""
    operation = f"Test{code}"
    raised = type(error, (Exception,), {"code": code} if "_" in code else {}) if error else None

    def call() -> None:
        with Call("s3", operation):
            if raised:
                raise raised

    if raised:
        with pytest.raises(raised):
            call()
    else:
        call()

    assert 1 == shown("irs_aws_requests_total", service="s3", operation=operation, code=code)
    assert 1 == shown("irs_aws_request_seconds_count", service="s3", operation=operation, code=code)
    assert errors == shown("irs_aws_errors_total", service="s3", operation=operation)


def test_what_is_counted_in_a_parent_is_not_counted_in_its_child() -> None:
    import multiprocessing

    with Call("s3", "Before"):
        pass

    def child(pipe: Any) -> None:
        pipe.send(len(CALLS.read()))

    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=child, args=(theirs,))
    process.start()
    told = ours.recv() if ours.poll(30) else None
    process.join(30)

    assert told == 0
    assert ("s3", "Before", "200") in CALLS.read()


def record(status: Any = "ok", **timing: float) -> Record:
    error = Fault(code="not_an_image", message="No image.") if status == "failed" else None
    return Record(
        task_id="t", status=status, image=ImageFacts(name="a", key="a"), timing=Timing(**timing), error=error, receives=2
    )


def test_an_image_counts_once_and_its_time_in_each_stage_it_went_through() -> None:
    counts = Counts()

    counts.note_answered(record(queued=3.0, fetch=0.2, decode=0.1, batch=0.01, model=0.02), store_s=0.05)
    counts.note_answered(record("failed", queued=1.0, fetch=0.2), store_s=0.05)
    counts.note_dropped()
    counts.note_returned("storage_unavailable")

    expected = {("ok", ""): 1, ("failed", "not_an_image"): 1, ("cancelled", ""): 1, ("returned", "storage_unavailable"): 1}
    assert expected == counts.images
    assert {"fetch": 2, "decode": 1, "batch": 1, "model": 1, "store": 2} == {
        stage: spread.count for stage, spread in counts.stages.items()
    }
    assert (2, 4.0) == (counts.waits.count, counts.waits.sum)
    assert ("2.0", 2.0) in counts.receives.buckets()


def test_tasks_are_counted_by_what_became_of_them() -> None:
    """Sent by Celery itself: eagerly run, its tracer sends the same signals as in a worker."""
    app = Celery("counted", set_as_current=False)
    app.conf.task_always_eager = True
    # What it holds weakly would go with a function's local.
    counts = TaskCounts()
    counts.connect()

    @app.task(name="counted.work")
    def work(error: str = "") -> None:
        if error == "of an image":
            raise RecognitionFailed("t", "not_an_image", "No image.")
        if error:
            raise ValueError(error)

    work.delay()
    work.delay("of an image")
    work.delay("broken")
    signals.task_revoked.send(sender=work, request=work.request, terminated=False, signum=None, expired=False)

    ended = {(what, name, code): count for (what, name, _, code), count in counts.ended.items()}
    assert {
        ("started", "counted.work", ""): 3,
        ("succeeded", "counted.work", ""): 1,
        ("failed", "counted.work", "not_an_image"): 1,
        ("failed", "counted.work", "ValueError"): 1,
        ("revoked", "counted.work", ""): 1,
    } == ended
    assert 3 == sum(spread.count for spread in counts.runtimes.values())
    assert 0 == counts.active


NOTHING = Totals(images=0, failed=0, dropped=0, returned=0, batches=0, batched=0, busy_s=0.0, waited=0, waited_s=0.0)
WORKED = Totals(images=9, failed=1, dropped=2, returned=3, batches=2, batched=8, busy_s=15.0, waited=9, waited_s=4.5)


def test_a_minute_of_work_is_told_once() -> None:
    minutes = Minutes(now=0.0)

    told = [minutes.look(WORKED, now=now) for now in (59.0, 60.0, 61.0, 121.0)]

    line = {"images": 9, "failed": 1, "dropped": 2, "returned": 3, "mean_batch": 4.0, "busy": 0.25, "waited_s": 0.5}
    assert [None, line, None, None] == told


def test_a_minute_tells_what_came_since_the_last_one() -> None:
    minutes = Minutes(now=0.0)
    minutes.look(WORKED, now=60.0)
    more = Totals(images=10, failed=1, dropped=2, returned=3, batches=2, batched=8, busy_s=75.0, waited=10, waited_s=14.5)

    told = minutes.look(more, now=120.0)

    expected = {"images": 1, "failed": 0, "dropped": 0, "returned": 0, "mean_batch": None, "busy": 1.0, "waited_s": 10.0}
    assert expected == told


def test_a_minute_without_work_says_nothing_however_many_pass() -> None:
    minutes = Minutes(now=0.0)

    assert [None] * 3 == [minutes.look(NOTHING, now=60.0 * number) for number in (1, 2, 3)]


def _get(address: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_an_endpoint_waits_for_no_request_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irs.monitoring.endpoint.REQUEST_S", 0.05)
    server = serve("127.0.0.1", 0, metrics=lambda: (b"", ""), setting="IRS_JANITOR_PORT")
    try:
        with socket.create_connection(server.server_address[:2], timeout=10) as silent:
            assert b"" == silent.recv(1)
    finally:
        server.shutdown()
        server.server_close()


def test_an_endpoint_answers_on_its_own_address_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    server = serve(
        "127.0.0.1", 0, metrics=lambda: exposition(registry_of()), why_not_ready=lambda: "warming", setting="IRS_JANITOR_PORT"
    )
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        answers = {path: _get(address + path) for path in ("/healthz", "/readyz", "/else", "/metrics")}
        with pytest.raises(SetupError, match=r"cannot be used .* set IRS_JANITOR_PORT or IRS_METRICS_HOST"):
            serve("127.0.0.1", server.server_port, metrics=lambda: (b"", ""), setting="IRS_JANITOR_PORT")
    finally:
        server.shutdown()
        server.server_close()

    assert (200, "ok\n") == answers["/healthz"]
    assert (503, "warming\n") == answers["/readyz"]
    assert 404 == answers["/else"][0]
    assert re.search(r"^# TYPE irs_aws_requests_total counter$", answers["/metrics"][1], re.MULTILINE)
    assert f"{address}/readyz" == next(line for line in caplog.records if line.message == "health").address
