"""The transport's parts without a cloud: batches, leases, sends, back-off, the hooks into kombu."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.transport import SQS
from waiting import eventually

from irs.broker import intake, sends
from irs.broker.batches import MOST_ENTRIES, BatchedCalls
from irs.broker.delivery import LONGEST_BACKOFF_S, backoff_s, delivery
from irs.broker.leases import FINISHED_REMEMBERED, Lease, Leases
from irs.broker.poller import Poller
from irs.broker.sends import Send
from irs.broker.transport import Channel, QoS, _delay_of_eta
from irs.cloud import Cloud
from irs.errors import BadOptions, QueueUnavailable


def batched(call: Callable[[Sequence[Any]], Sequence[Any]], *, wait_s: float = 0.01, threads: int = 2) -> BatchedCalls[Any]:
    return BatchedCalls(call, key=lambda item: item[0], wait_s=wait_s, threads=threads, name="test")


def test_items_of_one_key_share_calls_of_at_most_ten() -> None:
    calls: list[list[Any]] = []
    together = batched(lambda items: calls.append(list(items)) or [], wait_s=5.0)
    items = [("a", n) for n in range(25)] + [("b", n) for n in range(3)]

    for item in items:
        together.put(item)
    left = together.close(within_s=5)

    assert 0 == left
    assert sorted(items) == sorted(item for call in calls for item in call)
    assert all(len(call) <= MOST_ENTRIES and len({key for key, _ in call}) == 1 for call in calls)
    assert 4 == len(calls)


def test_a_batch_that_raises_is_tried_again_whole() -> None:
    done: list[Any] = []
    faults = iter([OSError("away")])

    def call(items: Sequence[Any]) -> Sequence[Any]:
        for fault in faults:
            raise fault
        done.extend(items)
        return []

    together = batched(call)
    for n in range(10):
        together.put(("a", n))

    eventually(lambda: len(done) == 10)
    assert 0 == together.close(within_s=5)


def test_refused_entries_alone_are_tried_again() -> None:
    seen: list[Any] = []

    def call(items: Sequence[Any]) -> Sequence[Any]:
        again = [item for item in items if item[1] == 3 and item not in seen]
        seen.extend(items)
        return again

    together = batched(call)
    for n in range(5):
        together.put(("a", n))

    eventually(lambda: together.backlog == 0)
    together.close(within_s=5)
    assert sorted([*(("a", n) for n in range(5)), ("a", 3)]) == sorted(seen)


def test_a_call_that_hangs_holds_up_no_other_key() -> None:
    gate, done = threading.Event(), []

    def call(items: Sequence[Any]) -> Sequence[Any]:
        if items[0][0] == "hangs":
            gate.wait(10)
        done.extend(items)
        return []

    together = batched(call, wait_s=0.2)
    together.put(("hangs", 1))
    # One thread waits for both to be due, the other for nothing.
    eventually(lambda: together._looks_at is not None)
    together.put(("other", 1))

    try:
        eventually(lambda: ("other", 1) in done, within_s=2)
    finally:
        gate.set()
    assert 0 == together.close(within_s=5)


def test_closing_tells_how_many_did_not_get_through() -> None:
    def call(_: Sequence[Any]) -> Sequence[Any]:
        raise OSError("away")

    together = batched(call)
    together.put(("a", 1))

    assert 1 == together.close(within_s=0.2)


def lease(name: str, *, since: float = 0.0, until: float = 0.0) -> Lease:
    return Lease(url="u", message_id=name, tag=f"handle-{name}", receives=1, since=since, until=until)


def leases(extend: Callable[[list[Lease]], list[Lease]], *, max_lease_s: float = 1e9) -> Leases:
    return Leases(extend, visibility_s=30, max_lease_s=max_lease_s)


def test_a_lease_is_renewed_when_less_than_60_percent_of_it_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    renewed: list[str] = []
    held = leases(lambda due: renewed.extend(one.message_id for one in due) or [])
    monkeypatch.setattr("irs.broker.leases.time.monotonic", lambda: 100.0)
    held.hold(lease("fresh", since=99, until=100 + 19))
    held.hold(lease("due", since=85, until=100 + 17))

    held.renew()

    assert ["due"] == renewed


def test_a_lease_sqs_does_not_know_any_more_is_not_renewed_again_and_its_task_is_still_acknowledged() -> None:
    asked: list[list[Lease]] = []
    held = leases(lambda due: asked.append(due) or due)
    held.hold(lease("lost"))

    held.renew()
    held.renew()

    assert 1 == len(asked)
    assert held.find("handle-lost") is not None


def test_a_queue_that_does_not_answer_keeps_no_other_from_being_renewed() -> None:
    renewed: list[str] = []

    def extend(due: list[Lease]) -> list[Lease]:
        if due[0].url == "away":
            raise OSError("away")
        renewed.extend(one.message_id for one in due)
        return []

    held = leases(extend)
    held.hold(Lease(url="away", message_id="a", tag="a", receives=1, since=0, until=0))
    held.hold(lease("b"))

    held.renew()

    assert ["b"] == renewed


def test_a_finished_message_whose_delete_is_refused_for_long_is_no_hung_task(monkeypatch: pytest.MonkeyPatch) -> None:
    held = leases(lambda _: [], max_lease_s=900)
    monkeypatch.setattr("irs.broker.leases.time.monotonic", lambda: 1000.0)
    waits = lease("done", since=50, until=1001)
    held.hold(waits)
    held.finish(waits)

    held.renew()

    assert 0 == held.stuck


def test_a_lease_beyond_its_cap_is_left_to_others_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    renewed: list[Lease] = []
    held = leases(lambda due: renewed.extend(due) or [], max_lease_s=900)
    monkeypatch.setattr("irs.broker.leases.time.monotonic", lambda: 1000.0)
    held.hold(lease("hung", since=50, until=1001))

    held.renew()

    assert [] == renewed
    assert 1 == held.stuck


def test_a_message_that_comes_again_while_it_is_held_is_not_run_twice_and_is_deleted_by_its_new_handle() -> None:
    held = leases(lambda _: [])
    held.hold(lease("a"))
    again = Lease(url="u", message_id="a", tag="newer", receives=2, since=0, until=0)

    assert not held.hold(again)
    found = held.find("handle-a")
    assert found is not None
    assert "newer" == found.handle


def test_the_memory_of_finished_messages_is_bounded() -> None:
    held = leases(lambda _: [])
    for n in range(FINISHED_REMEMBERED + 5):
        held.finish(lease(str(n)))

    assert not held.is_finished("4")
    assert held.is_finished("5")


@given(st.integers(1, 10_000))
def test_backoff_grows_and_never_exceeds_a_quarter_of_an_hour(receives: int) -> None:
    assert 1 <= backoff_s(receives) <= backoff_s(receives + 1) <= LONGEST_BACKOFF_S


def test_a_delivery_tells_receives_and_the_time_of_sending() -> None:
    attributes = {"ApproximateReceiveCount": "3", "SentTimestamp": "1790000000123"}

    request = SimpleNamespace(properties={"delivery_info": {"sqs_message": {"Attributes": attributes}}})

    assert (3, 1790000000.123) == (delivery(request).receives, delivery(request).sent_at)
    assert (1, None) == (delivery(object()).receives, delivery(object()).sent_at)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, sends.MOST_BYTES)), max_size=60))
def test_chunks_keep_the_order_and_fit_what_sqs_takes(messages: list[tuple[str, int]]) -> None:
    class Sized(Send):
        __slots__ = ()

        @property
        def size(self) -> int:
            return int(self.entry["size"])

    all_ = [Sized(url, {"size": size}) for url, size in messages]

    chunks = list(sends.chunks(all_))  # type: ignore[arg-type]

    assert all_ == [one for chunk in chunks for one in chunk]
    assert all(0 < len(chunk) <= 10 and len({one.url for one in chunk}) == 1 for chunk in chunks)
    assert all(sum(one.size for one in chunk) <= sends.MOST_BYTES for chunk in chunks)


def test_sends_that_stay_refused_raise_with_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sends, "FIRST_PAUSE_S", 0.0)

    class Client:
        def send_message_batch(self, **given: Any) -> dict[str, Any]:
            first, *others = given["Entries"]
            return {
                "Successful": [{"Id": entry["Id"]} for entry in others],
                "Failed": [{"Id": first["Id"], "Code": "Busy", "Message": "too busy"}],
            }

    with pytest.raises(QueueUnavailable, match="1 of 3 messages: too busy"):
        sends.send_all(Client(), [Send("u", {"MessageBody": str(n)}) for n in range(3)])


def test_a_body_above_one_mebibyte_is_refused() -> None:
    sends.check_size("x" * sends.MOST_BYTES)
    with pytest.raises(BadOptions, match="pass a key"):
        sends.check_size("ä" * (sends.MOST_BYTES // 2 + 1))


def test_an_eta_within_a_quarter_of_an_hour_becomes_a_delay_and_is_taken_away() -> None:
    soon = {"eta": (datetime.now(UTC) + timedelta(seconds=30)).isoformat()}
    late = {"eta": (datetime.now(UTC) + timedelta(hours=2)).isoformat()}
    past = {"eta": (datetime.now(UTC) - timedelta(hours=2)).isoformat()}

    assert (30, 900, 0) == (_delay_of_eta(soon), _delay_of_eta(late), _delay_of_eta(past))
    assert soon["eta"] is None
    assert late["eta"] is not None
    assert _delay_of_eta({}) is None is _delay_of_eta({"eta": "rubbish"})


@pytest.mark.parametrize(
    ("ours", "theirs", "name"),
    [
        (Channel, SQS.Channel, name)
        for name in (
            "sqs",
            "basic_consume",
            "basic_cancel",
            "basic_ack",
            "basic_reject",
            "close",
            "_update_queue_cache",
            "_delete_message",
            "_receive_message",
        )
    ]
    + [(QoS, SQS.QoS, "reject"), (QoS, SQS.QoS, "restore_unacked")],
)
def test_overridden_kombu_methods_keep_their_upstream_parameters(ours: type, theirs: type, name: str) -> None:
    def parameters(kind: type) -> list[tuple[str, Any]]:
        return [(p.name, p.kind) for p in inspect.signature(getattr(kind, name)).parameters.values()]

    assert parameters(theirs) == parameters(ours)


@pytest.mark.parametrize(
    ("code", "is_final"),
    [("ReceiptHandleIsInvalid", True), ("AWS.SimpleQueueService.MessageNotInflight", True), ("RequestThrottled", False)],
)
def test_an_entry_is_given_up_by_its_code_and_not_because_the_sender_is_blamed(code: str, is_final: bool) -> None:
    assert is_final is intake._is_final({"Code": code, "SenderFault": True})


def held_by(consumed: set[str], *, drain_s: float = 1.0) -> intake.Intake:
    """An intake of these queues without a cloud, which has no room and so polls for nothing."""
    return intake.Intake(
        cast(Cloud, None),
        SimpleNamespace(add_reader=lambda *_: None, readers={}, call_soon=lambda *_: None),
        intake.IntakeOptions(
            wait_s=0, visibility_s=1, pollers=1, ack_batch_s=0.2, max_lease_s=9, drain_s=drain_s, cut_polls=True
        ),
        deliver=lambda *_: None,
        has_consumer=consumed.__contains__,
        slots=lambda: (1, 0),
    )


def test_what_the_keeper_of_the_leases_meets_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Poller] = []

    def watch(poller: Poller) -> None:
        looks.append(poller)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Poller, "watch", watch)
    consumed = {"q"}
    holding = held_by(consumed)
    holding.consume("q", "u")
    try:
        eventually(lambda: len(looks) >= 3)
    finally:
        consumed.clear()
        holding.cancel("q")
        holding.close()


def test_a_message_is_not_handed_back_once_it_may_be_anothers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_at: list[float] = []

    def refuse(*_: Any) -> None:
        asked_at.append(time.monotonic())
        raise QueueUnavailable("as asked")

    monkeypatch.setattr(intake.Sqs, "call", refuse)
    holding = held_by({"q"})
    received_at = time.monotonic()
    holding._arrive("q", "u", [{"MessageId": "m", "ReceiptHandle": "h"}], 1, received_at)

    holding.hand_back("h")

    eventually(lambda: holding.health().held == 0, within_s=5)
    assert asked_at
    assert max(asked_at) < received_at + holding.options.visibility_s
    holding.close()


def test_an_end_while_sqs_hangs_takes_the_drain_time_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = threading.Event()
    monkeypatch.setattr(intake.Sqs, "call", lambda *_: hangs.wait(20))
    holding = held_by({"q"}, drain_s=2.5)
    messages = [{"MessageId": name, "ReceiptHandle": name} for name in ("done", "not begun")]
    holding._arrive("q", "u", messages, 2, time.monotonic())
    holding.ack("done")
    holding.hand_back("not begun")

    began = time.monotonic()
    holding.close()

    assert 2.0 < time.monotonic() - began < 4.5
    hangs.set()


def test_pausing_and_resuming_wakes_every_member() -> None:
    from irs.broker import switch

    woken = threading.Event()

    class Member:
        def health(self) -> switch.Health:
            return switch.Health(held=2, polling_ok=False)

        def wake(self) -> None:
            woken.set()

    member = Member()
    switch.join(member)
    switch.pause("S3 is away")
    try:
        assert switch.is_paused()
        assert switch.health().held >= 2
        assert not switch.health().polling_ok
    finally:
        switch.resume()

    assert woken.is_set()
    assert not switch.is_paused()
