"""The pieces of monitoring by themselves: names, batches of events, leases, commands, addresses."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.serialization import dumps
from kombu.utils.encoding import safe_repr
from waiting import eventually

from irs.broker.ephemeral import MOST_NAME_CHARACTERS, TOPICS, Ephemeral, Places, new_name, prefix
from irs.broker.fanout import kind_of
from irs.broker.listener import Listener, Payload, Seen, read_payload
from irs.errors import BadOptions, QueueUnavailable, RecognitionFailed, SetupError
from irs.monitoring import outbox as outboxes
from irs.monitoring.control import Node
from irs.monitoring.outbox import MOST_EVENTS, Event, Outbox

STACKS = st.from_regex(r"[a-z0-9][a-z0-9-]{0,40}", fullmatch=True)
KINDS = st.sampled_from(["pidbox", "events", "reply"])


@given(STACKS, KINDS)
def test_names_are_short_enough_for_sqs_and_never_the_same(stack: str, kind: Any) -> None:
    names = {new_name(stack, kind) for _ in range(20)}

    assert 20 == len(names)
    assert all(len(name) <= MOST_NAME_CHARACTERS and name.startswith(prefix(stack)) for name in names)


def test_celerys_names_tell_the_kind_and_a_queue_of_tasks_is_none() -> None:
    assert "pidbox" == kind_of("irs@a.b.celery.pidbox")
    assert "events" == kind_of("celeryev.0123")
    assert [None, None] == [kind_of("irs-requests"), kind_of("celery")]
    assert {"control", "events"} == set(TOPICS.values())


def places() -> Places:
    settings = SimpleNamespace(stack="irs", region="eu-central-1", requests_queue="irs-requests")
    session = SimpleNamespace(get_partition_for_region=lambda region: "aws")
    url = "https://sqs.eu-central-1.amazonaws.com/123456789012/irs-requests"
    return Places(SimpleNamespace(settings=settings, session=lambda: session, queue_url=lambda _: url))  # type: ignore[arg-type]


def test_arns_follow_from_the_address_of_a_known_queue() -> None:
    assert "arn:aws:sns:eu-central-1:123456789012:irs-control" == places().topic_arn("control")
    assert "arn:aws:sqs:eu-central-1:123456789012:q" == places().queue_arn("q")


@pytest.mark.parametrize("name", ["irs-requests", "irs-mon-pidbox-1", "other-mon-reply-1", "irs-mon-reply-1/../irs-requests", ""])
def test_a_reply_goes_to_no_queue_but_one_for_replies(name: str) -> None:
    assert places().reply_url(name) is None


def test_a_reply_queue_is_known_by_its_name() -> None:
    assert "https://sqs.eu-central-1.amazonaws.com/123456789012/irs-mon-reply-1" == places().reply_url("irs-mon-reply-1")


def test_a_message_is_new_once_and_the_oldest_are_forgotten() -> None:
    seen, payloads = Seen(most=2), [{"properties": {"delivery_tag": str(n)}} for n in range(3)]

    told = [seen.is_new(one) for one in (payloads[0], payloads[0], payloads[1], payloads[2], payloads[0])]

    assert [True, False, True, True, True] == told


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "{}",
        "no json",
        '{"body": 1, "properties": null}',
        None,
        # kombu makes objects of such.
        pytest.param('{"__type__": "decimal", "__value__": "one"}', id="no decimal"),
        pytest.param('{"__type__": "uuid", "__value__": {"hex": 1}}', id="no uuid"),
        pytest.param("[" * 100_000, id="too deep"),
    ],
)
def test_what_is_no_message_is_left_out(body: object) -> None:
    assert read_payload({"MessageId": "1", "Body": body}) is None


class _Queues:
    """Makes a queue, is answered with nonsense once, and makes another."""

    def __init__(self) -> None:
        self.answers: list[str | Exception] = ["first", KeyError("QueueUrl"), "second"]

    def make(self, kind: Any) -> Ephemeral:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Ephemeral(kind, answer, answer)

    def remove(self, *_: Ephemeral) -> None:
        pass


class _Connection:
    """SQS that has lost the first queue, and has a message in the second."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def call(self, operation: str, request: dict[str, Any], **_: Any) -> dict[str, Any]:
        if request["QueueUrl"] == "first":
            raise QueueUnavailable("QueueDoesNotExist")
        message = {"Body": '{"body": 1, "properties": {"delivery_tag": "1"}}', "ReceiptHandle": "1"}
        return {"Messages": [message]} if operation == "ReceiveMessage" else {}

    def close(self) -> None:
        pass


def test_a_listener_goes_on_whatever_it_was_answered_for_a_new_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irs.broker.listener.SqsConnection", _Connection)
    monkeypatch.setattr("irs.broker.listener.FIRST_PAUSE_S", 0.01)
    heard: list[Payload] = []
    queues: Any = _Queues()

    listener = Listener(SimpleNamespace(), queues, "pidbox", deliver=heard.extend)  # type: ignore[arg-type]

    eventually(lambda: heard)
    listener.end()
    assert [1] == [payload["body"] for payload in heard]


def events(count: int) -> list[Event]:
    return [{"type": "task-started", "n": n} for n in range(count)]


class Sink:
    """Takes batches, or does not."""

    def __init__(self) -> None:
        self.batches: list[list[Event]] = []
        self.threads: set[str] = set()
        self.fault: Exception | None = None
        self.most = 10_000

    def __call__(self, batch: list[Event]) -> None:
        self.threads.add(threading.current_thread().name)
        if self.fault:
            raise self.fault
        if len(batch) > self.most:
            raise BadOptions("too long")
        self.batches.append(batch)

    @property
    def all(self) -> list[Event]:
        return [event for batch in self.batches for event in batch]


def test_events_are_published_in_order_in_batches_by_a_thread_of_their_own() -> None:
    sink = Sink()
    outbox = Outbox(sink, interval_s=0.05)

    for event in events(1000):
        outbox.put(event)
    left = outbox.close(within_s=10)

    assert [] == left
    assert events(1000) == sink.all
    assert len(sink.batches) <= 1000 / MOST_EVENTS + 4
    assert {"irs-events"} == sink.threads


def test_events_come_within_the_interval_and_urgent_ones_at_once() -> None:
    sink = Sink()
    outbox = Outbox(sink, interval_s=30)

    outbox.put({"type": "task-started"})
    outbox.put({"type": "worker-online"}, at_once=True)

    eventually(lambda: len(sink.all) == 2, within_s=10)
    outbox.close(within_s=5)


def test_events_wait_while_sns_is_away_and_sending_them_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outboxes, "FIRST_PAUSE_S", 0.05)
    sink = Sink()
    sink.fault = QueueUnavailable("away")
    outbox = Outbox(sink, interval_s=0.01)

    began = time.monotonic()
    for event in events(3000):
        outbox.put(event)
    took_s = time.monotonic() - began
    eventually(lambda: sink.threads)
    sink.fault = None

    eventually(lambda: len(sink.all) == 3000, within_s=20)
    assert events(3000) == sink.all
    assert (3000, 0) == (outbox.sent, outbox.dropped)
    assert took_s < 2
    outbox.close(within_s=5)


def test_the_oldest_events_are_dropped_and_counted_when_too_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outboxes, "MOST_WAITING", 50)
    sink = Sink()
    outbox = Outbox(sink, interval_s=30)

    for event in events(80):
        outbox.put(event)
    outbox.close(within_s=5)

    assert events(80)[30:] == sink.all
    assert (50, 30) == (outbox.sent, outbox.dropped)


def test_a_batch_that_sns_would_refuse_goes_in_halves_and_one_event_alone_is_dropped() -> None:
    sink = Sink()
    sink.most = 3
    outbox = Outbox(sink, interval_s=0.01)
    for event in events(10):
        outbox.put(event)
    outbox.close(within_s=5)
    sink.most = 0
    late = Outbox(sink, interval_s=0.01)
    late.put({"type": "task-failed"})

    late.close(within_s=5)

    assert events(10) == sink.all
    assert (0, 1) == (late.sent, late.dropped)


def test_an_event_that_cannot_be_written_out_is_dropped_alone() -> None:
    sink = Sink()

    def publish(batch: list[Event]) -> None:
        for event in batch:
            dumps(event, serializer="json")
        sink(batch)

    outbox = Outbox(publish, interval_s=0.01)
    for event in ({"type": "task-odd", "what": object()}, *events(3)):
        outbox.put(event)

    left = outbox.close(within_s=5)

    assert ([], events(3)) == (left, sink.all)
    assert (3, 1) == (outbox.sent, outbox.dropped)


def test_an_outbox_that_cannot_publish_ends_in_time_and_gives_back_what_waits() -> None:
    sink = Sink()
    sink.fault = QueueUnavailable("away")
    outbox = Outbox(sink, interval_s=0.01)
    for event in events(5):
        outbox.put(event)

    left = outbox.close(within_s=5)

    assert events(5) == left


class _Obeyed(Node):
    """A node that notes what it would do."""

    def __init__(self) -> None:
        self.obeyed: list[str] = []
        self.hostname = "irs@w"
        self.adjust_clock = lambda _: None

    def dispatch(self, method: str, arguments: Any = None, reply_to: Any = None, ticket: Any = None, **_: Any) -> None:
        if method == "break":
            raise RuntimeError("as asked")
        self.obeyed.append(method)


def obeyed(body: object, **headers: object) -> list[str]:
    node = _Obeyed()
    node.handle_message(body, SimpleNamespace(headers=headers))
    return node.obeyed


def test_a_command_is_obeyed_for_a_minute_and_by_whom_it_names() -> None:
    command = {"method": "ping", "destination": None}

    assert ["ping"] == obeyed(command, born=time.time() - 50)
    assert ["ping"] == obeyed(command)
    assert [] == obeyed(command, born=time.time() - 61)
    assert [] == obeyed({**command, "destination": ["irs@other"]}, born=time.time())


@pytest.mark.parametrize("body", [[], "text", None, 3, {}, {"method": None}, {"method": "break"}])
def test_what_is_no_command_or_fails_raises_nothing(body: object) -> None:
    assert [] == obeyed(body)


@pytest.mark.parametrize("host", ["0.0.0.0", "", "192.168.1.5", "::", "irs.example.org"])
def test_flower_is_open_to_others_with_a_password_alone(host: str) -> None:
    flower = pytest.importorskip("irs.monitoring.flower", reason="Flower is not installed.", exc_type=ImportError)

    with pytest.raises(SetupError, match="IRS_FLOWER_PASSWORD"):
        flower.check_access(host, has_password=False)
    flower.check_access(host, has_password=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "[::1]", "localhost", "127.1.2.3"])
def test_flower_on_this_machine_needs_no_password(host: str) -> None:
    flower = pytest.importorskip("irs.monitoring.flower", reason="Flower is not installed.", exc_type=ImportError)

    flower.check_access(host, has_password=False)


def test_flower_shows_an_image_by_its_number_and_name_and_a_fault_by_its_code() -> None:
    flower = pytest.importorskip("irs.monitoring.flower", reason="Flower is not installed.", exc_type=ImportError)
    key, fault = "jobs/01hzxw5x9v8k7n6m5j4h3g2f1e/000007/cat.jpg", RecognitionFailed("id.000007", "damaged", "It ends 'early'.")

    task = flower.format_task(SimpleNamespace(args=f"['{key}']", exception=safe_repr(fault)))
    other = flower.format_task(SimpleNamespace(args="[1]", exception="ValueError('x')"))

    assert ("['000007/cat.jpg']", "damaged: It ends 'early'.") == (task.args, task.exception)
    assert ("[1]", "ValueError('x')") == (other.args, other.exception)
