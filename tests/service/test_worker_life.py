"""A worker's end when no person asked for it: told to retire, about to be interrupted, left behind by its scaler."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import Fault, FaultProxy
from metadata import MetadataService, metadata_service
from waiting import eventually
from workers import Running, Workers, picture, through

from irs import broker
from irs.broker import Health
from irs.cloud import Cloud
from irs.records import SCALER_STATE_KEY, Beat, Order, beat_key, order_key
from irs.worker.life import Life

LAUNCH = "irs-7-1"
#: A start and an end on a busy machine.
LIFE_S = 60.0


@pytest.fixture
def workers(cloud: Cloud, stack_environment: dict[str, str], tmp_path: Path) -> Iterator[Workers]:
    with Workers(cloud, stack_environment, tmp_path) as made:
        yield made


@pytest.fixture
def metadata() -> Iterator[MetadataService]:
    with metadata_service() as service:
        yield service


def order(cloud: Cloud, instance: str, launch: str | None = LAUNCH) -> None:
    body = Order(order="retire", launch=launch, since=time.time(), why="enough workers").to_bytes()
    cloud.output.put(order_key(instance), body, content_type="application/json")


def ended(running: Running) -> int:
    return running.process.wait(LIFE_S)


def last_phase(running: Running) -> str:
    beat = running.beat()
    assert beat is not None, running.said
    return beat.phase


def test_a_beat_that_met_what_nobody_foresaw_is_not_the_last(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = iter([RuntimeError("as asked")] * 2)

    def health() -> Health:
        for fault in faults:
            raise fault
        return Health()

    monkeypatch.setattr(broker, "health", health)
    # Of a worker without a model: what keeps its beat needs none.
    monkeypatch.setattr("irs.worker.life.load_engine", lambda *_, **__: None)
    life = Life(cloud)
    life.begin()
    try:
        life.ready()
        key = beat_key(cloud.settings.instance_id)
        eventually(lambda: any(cloud.output.list(key)) and Beat.from_json(cloud.output.get(key)).phase == "ready")
    finally:
        life.end()
    assert "stopped" == Beat.from_json(cloud.output.get(key)).phase


@pytest.mark.timeout(20)
def test_a_signal_that_comes_while_the_worker_says_how_it_is_drains_it(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irs.worker.life.load_engine", lambda *_, **__: None)
    life = Life(cloud)
    life.begin()
    drained = 0

    def drain(*_: object) -> None:
        nonlocal drained
        life.drain()
        drained += 1

    before = signal.signal(signal.SIGVTALRM, drain)
    signal.setitimer(signal.ITIMER_VIRTUAL, 1e-3, 1e-3)
    try:
        # As often as it takes to meet each place of the code.
        while drained < 50:
            life._say("ready")
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    life.end()


def test_a_worker_told_to_retire_answers_all_that_waits_and_then_leaves_drained(workers: Workers) -> None:
    order(workers.cloud, "w0")
    ids = workers.sent(*[picture(seed) for seed in range(40)])

    running = workers.start(is_awaited=False, IRS_LAUNCH=LAUNCH, IRS_SLOTS="4", IRS_WAIT_SECONDS="20")
    code = ended(running)

    assert 0 == code, running.said
    found = workers.answered(ids)
    assert {("ok", 1, "irs@w0")} == {(one.status, one.receives, one.worker) for one in found}
    assert workers.is_empty()
    beat = running.beat()
    assert beat is not None
    assert ("drained", LAUNCH, 40, 0) == (beat.phase, beat.launch, beat.completed, beat.busy_slots)
    assert "leaving as=drained why='told to retire: enough workers'" in running.said.replace('"', "'"), running.said


@pytest.mark.slow
def test_a_worker_stays_while_its_polls_fail_and_goes_on_when_the_order_is_taken_back(workers: Workers) -> None:
    with FaultProxy(workers.cloud.settings.endpoint_url, Fault("503", frozenset({"ReceiveMessage"}))) as proxy:
        order(workers.cloud, "w0")
        environment = {**through(proxy.endpoint), "IRS_CUT_POLLS": "0", "IRS_LAUNCH": LAUNCH}
        running = workers.start(is_awaited=False, **environment)
        eventually(lambda: running.beat() and last_phase(running) == "retiring", within_s=LIFE_S)
        polls = proxy.requests["ReceiveMessage"]
        # No answer is no empty queue.
        eventually(lambda: proxy.requests["ReceiveMessage"] >= polls + 3, within_s=LIFE_S)
        assert "retiring" == last_phase(running)

        workers.cloud.output.delete(order_key("w0"))
        eventually(lambda: last_phase(running) == "ready", within_s=20)
        proxy.fault = None

        # An idle worker that were still under the order would leave now.
        eventually(lambda: " not_retiring " in running.said)
        (record,) = workers.answer(picture(1))
        polls = proxy.requests["ReceiveMessage"]
        eventually(lambda: proxy.requests["ReceiveMessage"] >= polls + 2, within_s=20)
        assert "ok" == record.status
        assert running.process.poll() is None, running.said


@pytest.mark.slow
def test_a_spot_worker_finishes_or_hands_back_what_it_holds_when_the_notice_comes(
    workers: Workers, metadata: MetadataService
) -> None:
    metadata.says["meta-data/tags/instance/irs:launch"] = LAUNCH
    drain_s = 10
    with FaultProxy(workers.cloud.settings.endpoint_url) as proxy:
        running = workers.start(
            **through(proxy.endpoint),
            AWS_EC2_METADATA_DISABLED="false",
            AWS_EC2_METADATA_SERVICE_ENDPOINT=metadata.endpoint,
            IRS_CUT_POLLS="0",
            IRS_WAIT_SECONDS="1",
            IRS_DRAIN_SECONDS=str(drain_s),
            IRS_SLOTS="2",
        )
        proxy.delay_s = 0.5
        ids = workers.sent(*[picture(seed) for seed in range(12)])
        # Two in work, two waiting for their turn.
        eventually(lambda: workers.depth()[1] >= 4)

        metadata.says["meta-data/spot/instance-action"] = '{"action": "terminate", "time": "2026-01-01T00:02:00Z"}'
        eventually(lambda: last_phase(running) == "interrupted", within_s=20)
        began_s = time.monotonic()
        code = ended(running)
        took_s = time.monotonic() - began_s

    visible, in_flight = workers.depth()
    answered = sum(record is not None for record in workers.store.find_many(ids))
    assert 0 == code, running.said
    assert took_s < drain_s + 5
    assert visible > 0
    assert (12, 0) == (visible + answered, in_flight)
    beat = running.beat()
    assert beat is not None
    assert ("interrupted", LAUNCH, answered) == (beat.phase, beat.launch, beat.completed)


@pytest.mark.slow
def test_a_worker_that_its_scaler_has_left_behind_ends_itself_and_not_before(workers: Workers) -> None:
    bucket = workers.cloud.output
    limit_s = 2.0
    running = workers.start(IRS_LAUNCH=LAUNCH, IRS_OUTLIVE_SECONDS=str(limit_s), IRS_WAIT_SECONDS="1")
    by_hand = workers.start(IRS_INSTANCE_ID="", IRS_OUTLIVE_SECONDS="1", is_awaited=False)
    led_until_s = time.monotonic() + 2 * limit_s
    renewals = 0

    def lead() -> bool:
        nonlocal renewals
        renewals += 1
        bucket.put(SCALER_STATE_KEY, f'{{"seq": {renewals}}}'.encode(), content_type="application/json")
        return time.monotonic() > led_until_s

    eventually(lead, within_s=3 * limit_s, every_s=0.2)
    assert running.process.poll() is None, running.said
    left_s = time.monotonic()
    code = ended(running)

    assert 0 == code, running.said
    assert time.monotonic() - left_s >= 0.8 * limit_s
    assert "drained" == last_phase(running)
    assert by_hand.process.poll() is None, by_hand.said
