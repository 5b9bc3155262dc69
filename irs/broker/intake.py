"""The intake of one consuming channel: what it polls, holds, acknowledges and hands back.

Messages come from poller threads, are delivered in kombu's hub thread, and are deleted or handed back by
threads of their own: the hub itself never calls SQS, where one slow answer would stop everything.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from irs.broker import switch
from irs.broker.batches import BatchedCalls
from irs.broker.delivery import RECEIVED_AT, backoff_s, of_message
from irs.broker.leases import Lease, Leases
from irs.broker.poller import Poller
from irs.broker.receive import Receiver
from irs.broker.switch import Health
from irs.cloud import Cloud
from irs.sqs import Sqs
from irs.tally import ACKS

log = logging.getLogger(__name__)

MOST_MESSAGES = 10
#: How long a poll waits for room for a full receive: ten in one call cost as much as one.
FILL_S = 0.25
#: Finished messages that may wait for their delete before fewer new ones are taken.
UNDELETED_ALLOWED = 50
DELETE_THREADS = 3
RELEASE_WAIT_S = 0.05
#: SQS hides a message for at most so long.
LONGEST_HIDE_S = 12 * 3600
_FINAL_CODES = {"ReceiptHandleIsInvalid", "MessageNotInflight", "InvalidParameterValue"}
#: At the end, for what is still to be deleted and handed back, whatever is left of the drain time.
SHORTEST_FLUSH_S, FLUSH_S = 2.0, 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeOptions:
    """Numbers of one intake; seconds. ``cut_polls``: break running polls off at a drain (``IRS_CUT_POLLS``)."""

    wait_s: int
    visibility_s: int
    pollers: int
    ack_batch_s: float
    max_lease_s: float
    drain_s: float
    cut_polls: bool


@dataclass(slots=True)
class _Arrived:
    queue: str
    message: dict[str, Any]
    lease: Lease


class Intake:
    """Polls queues for one channel and keeps what it received safe until it is acknowledged.

    Args:
        hub: kombu's event loop, where messages are delivered.
        deliver: delivers one message of a queue with its URL; whatever it raises hides that message with back-off.
        has_consumer: whether a queue is still consumed.
        slots: how many messages may be in hand in all, and how many more now; None for any number.
    """

    def __init__(
        self,
        cloud: Cloud,
        hub: Any,
        options: IntakeOptions,
        *,
        deliver: Callable[[dict[str, Any], str, str], None],
        has_consumer: Callable[[str], bool],
        slots: Callable[[], tuple[int, int] | None],
    ) -> None:
        self.options = options
        self._cloud, self._hub = cloud, hub
        self._deliver, self._has_consumer, self._slots = deliver, has_consumer, slots
        # One try, five seconds: what fails goes back into its batch, which tries again with back-off.
        self._sqs = Sqs(cloud)
        self._pollers: dict[str, list[Poller]] = {}
        self._turns: dict[str, object] = {}
        self._leaving: list[Poller] = []
        self._arrived: deque[_Arrived] = deque()
        self._changed = threading.Condition()
        self._transit = 0
        self._is_plentiful = True
        self._emptied_at: float | None = None
        self._stopped_at: float | None = None
        self._closed = threading.Event()
        self._leases = Leases(self._extend, visibility_s=options.visibility_s, max_lease_s=options.max_lease_s)
        self._deletes: BatchedCalls[Lease] = BatchedCalls(
            self._delete, key=_url, wait_s=options.ack_batch_s, threads=DELETE_THREADS, name="irs-delete"
        )
        self._releases: BatchedCalls[Lease] = BatchedCalls(
            self._release, key=_url, wait_s=RELEASE_WAIT_S, threads=1, name="irs-release"
        )
        self._pipe = self._keep_hub_awake()
        self._keeper = threading.Thread(target=self._keep, name="irs-leases", daemon=True)
        self._keeper.start()
        switch.join(self)

    def consume(self, queue: str, url: str) -> None:
        """Begin to poll a queue."""
        if queue in self._pollers:
            return
        # Consumed again, as remote control may ask for: it was no drain.
        self._stopped_at = None
        turn = self._turns[queue] = object()
        self._pollers[queue] = [
            Poller(
                url,
                number,
                receiver=lambda: Receiver(self._cloud, is_cut=self._is_cut),
                room=lambda number: self._room(number, queue, turn),
                on_messages=lambda messages, reserved, at: self._arrive(queue, url, messages, reserved, at),
                on_empty=self._note_empty,
                wait_s=lambda: switch.poll_wait_s(self.options.wait_s),
                visibility_s=self.options.visibility_s,
            )
            for number in range(self.options.pollers)
        ]

    def cancel(self, queue: str) -> None:
        """Stop polling a queue. Returns at once: what a running poll still brings is handed back."""
        # Its consumer is gone already, which is what pollers and delivery look at.
        self._leaving += self._pollers.pop(queue, [])
        self._turns.pop(queue, None)
        if not self._pollers and self._stopped_at is None:
            self._stopped_at = time.monotonic()
        self.wake()

    def ack(self, tag: str) -> None:
        """The message is done: delete it soon. Never blocks, never raises."""
        if lease := self._leases.find(tag):
            self._leases.finish(lease)
            lease.done_at = time.monotonic()
            self._deletes.put(lease)
        self._wake_if_worthwhile()

    def reject(self, tag: str) -> None:
        """The message is not done: it comes back after 2ⁿ seconds, n its receives. Never blocks, never raises."""
        if lease := self._leases.find(tag):
            self._hand_back(lease, hide_s=backoff_s(lease.receives))
        self._wake_if_worthwhile()

    def hand_back(self, tag: str) -> None:
        """The message was not begun: others may have it at once."""
        if lease := self._leases.find(tag):
            self._hand_back(lease, hide_s=0)

    def hide(self, tag: str, hide_s: int) -> None:
        """The message is for later: nobody sees it for ``hide_s``, at most SQS's 12 hours."""
        if lease := self._leases.find(tag):
            self._hand_back(lease, hide_s=min(hide_s, LONGEST_HIDE_S))

    def close(self) -> None:
        """End: hand back what was not begun, delete what is done; at most what is left of the drain time."""
        began = self._stopped_at = self._stopped_at or time.monotonic()
        end = began + self.options.drain_s
        self.wake()
        for poller in [*self._leaving, *self._all_pollers()]:
            if not poller.join(max(0.1, end - time.monotonic())):
                log.warning("poller_left", extra={"poller": poller.number})
        while self._arrived:
            self._hand_back(self._arrived.popleft().lease, hide_s=0)
        flush_s = max(SHORTEST_FLUSH_S, min(FLUSH_S, end - time.monotonic()))
        end = time.monotonic() + flush_s
        # One end for both, which go on beside each other; what is not deleted is run twice, so deletes come first.
        left = self._deletes.close(within_s=flush_s) + self._releases.close(within_s=max(0.1, end - time.monotonic()))
        if left:
            log.warning("unsettled", extra={"messages": left})
        self._closed.set()
        switch.leave(self)
        self._keeper.join(1.0)
        self._let_hub_sleep()

    def wake(self) -> None:
        """Let pollers look for room again."""
        with self._changed:
            self._changed.notify_all()

    def _wake_if_worthwhile(self) -> None:
        """Wake the pollers when there is room for a full receive; for less they look by themselves."""
        wanted, free = self._unreserved()
        if free >= wanted:
            self.wake()

    def health(self) -> Health:
        """Return how polling and holding go."""
        return Health(
            polling_ok=all(poller.is_ok for poller in self._all_pollers()),
            stuck=self._leases.stuck,
            held=len(self._leases),
            undeleted=self._deletes.backlog,
            emptied_at=self._emptied_at,
        )

    # Pollers' threads

    def _room(self, number: int, queue: str, turn: object) -> int:
        """Block until a receive makes sense; return its size, reserved, or 0 when polling is over.

        Args:
            turn: of the poller that asks: one of an earlier turn of consuming the queue ends.
        """
        with self._changed:
            fill_until: float | None = None
            while True:
                if self._closed.is_set() or not self._has_consumer(queue) or self._turns.get(queue) is not turn:
                    return 0
                wanted, free = self._unreserved()
                # One poller keeps watch over an empty queue; the others help while messages come.
                if not switch.is_paused() and free > 0 and (number == 0 or self._is_plentiful):
                    now = time.monotonic()
                    fill_until = fill_until or now + FILL_S
                    if free >= wanted or now >= fill_until:
                        count = min(MOST_MESSAGES, free)
                        self._transit += count
                        return count
                    self._changed.wait(fill_until - now)
                else:
                    fill_until = None
                    self._changed.wait(FILL_S if free <= 0 else 1.0)

    def _unreserved(self) -> tuple[int, int]:
        """Return how many messages make a full receive here, and how many there is room for."""
        limit, free = self._slots() or (2 * MOST_MESSAGES, MOST_MESSAGES)
        held_back = max(0, self._deletes.backlog - UNDELETED_ALLOWED)
        return min(MOST_MESSAGES, max(1, limit // 2)), free - self._transit - held_back

    def _note_empty(self) -> None:
        self._emptied_at = time.monotonic()

    def _arrive(self, queue: str, url: str, messages: list[dict[str, Any]], reserved: int, asked_at: float) -> None:
        arrived: list[_Arrived] = []
        if messages:
            self._emptied_at = None
        try:
            self._hold(queue, url, messages, asked_at, arrived)
        finally:
            with self._changed:
                self._transit -= reserved - len(arrived)
                self._is_plentiful = bool(messages)
                self._arrived.extend(arrived)
                self._changed.notify_all()
            if arrived:
                self._hub.call_soon(self._deliver_arrived)

    def _hold(self, queue: str, url: str, messages: list[dict[str, Any]], asked_at: float, arrived: list[_Arrived]) -> None:
        for message in messages:
            message[RECEIVED_AT] = asked_at
            lease = Lease(
                url=url,
                message_id=message["MessageId"],
                tag=message["ReceiptHandle"],
                receives=of_message(message).receives,
                since=asked_at,
                # From before the call: the clock at SQS began at some time during it.
                until=asked_at + self.options.visibility_s,
            )
            if not self._leases.hold(lease):
                log.info("came_while_held", extra={"message_id": lease.message_id})
            elif not self._has_consumer(queue):
                self._hand_back(lease, hide_s=0)
            else:
                arrived.append(_Arrived(queue, message, lease))

    def _is_cut(self, wait_s: int) -> bool:
        # Also one that was begun before polls were told to hasten.
        return self.options.cut_polls and (self._stopped_at is not None or wait_s > switch.poll_wait_s(wait_s))

    # The hub's thread

    def _deliver_arrived(self) -> None:
        while self._arrived:
            arrived = self._arrived.popleft()
            try:
                self._deliver_one(arrived)
            except Exception:  # the edge of a stage: one bad message must not end the worker
                log.exception("undeliverable", extra={"message_id": arrived.lease.message_id})
                self._hand_back(arrived.lease, hide_s=backoff_s(arrived.lease.receives))
            finally:
                # In hand now and no more on its way: the room is the same.
                with self._changed:
                    self._transit -= 1

    def _deliver_one(self, arrived: _Arrived) -> None:
        lease = arrived.lease
        if self._leases.is_finished(lease.message_id):
            # Its delete was lost, or SQS delivered it twice: the record stands.
            self._deletes.put(lease)
        elif not self._has_consumer(arrived.queue):
            self._hand_back(lease, hide_s=0)
        else:
            self._deliver(arrived.message, arrived.queue, lease.url)

    # The other threads

    def _hand_back(self, lease: Lease, *, hide_s: int) -> None:
        lease.hide_s = hide_s
        self._releases.put(lease)

    def _keep(self) -> None:
        while not self._closed.wait(min(1.0, self.options.visibility_s / 6)):
            try:
                self._leases.renew()
                if self._stopped_at is None:
                    for poller in self._all_pollers():
                        poller.watch()
            except Exception:  # the edge of a main loop: with it all leases would end
                log.exception("keeping_failed")

    def _all_pollers(self) -> list[Poller]:
        # Copied in one step: the hub's thread adds and takes away meanwhile.
        return [poller for pollers in list(self._pollers.values()) for poller in pollers]

    def _extend(self, leases: list[Lease]) -> list[Lease]:
        failed = self._change_visibility(leases, lambda _: self.options.visibility_s)
        return [lease for lease, is_final in failed if is_final]

    def _release(self, leases: Sequence[Lease]) -> list[Lease]:
        now = time.monotonic()
        # What cannot be handed back in time comes back by itself, and may be another worker's from then on.
        held = [lease for lease in leases if lease.until > now]
        self._drop(leases, but=held)
        if not held:
            return []
        failed = self._change_visibility(held, lambda lease: lease.hide_s or 0)
        again = [lease for lease, is_final in failed if not is_final]
        self._drop(held, but=again)
        return again

    def _change_visibility(self, leases: Sequence[Lease], seconds: Callable[[Lease], int]) -> list[tuple[Lease, bool]]:
        entries = [
            {"Id": str(n), "ReceiptHandle": lease.handle, "VisibilityTimeout": seconds(lease)} for n, lease in enumerate(leases)
        ]
        answer = self._sqs.call("ChangeMessageVisibilityBatch", {"QueueUrl": leases[0].url, "Entries": entries})
        return [(leases[int(entry["Id"])], _is_final(entry)) for entry in answer.get("Failed", ())]

    def _delete(self, leases: Sequence[Lease]) -> list[Lease]:
        entries = [{"Id": str(n), "ReceiptHandle": lease.handle} for n, lease in enumerate(leases)]
        answer = self._sqs.call("DeleteMessageBatch", {"QueueUrl": leases[0].url, "Entries": entries})
        again = [leases[int(entry["Id"])] for entry in answer.get("Failed", ()) if not _is_final(entry)]
        self._drop(leases, but=again)
        now = time.monotonic()
        for lease in leases:
            if lease.done_at and lease not in again:
                ACKS.note((), now - lease.done_at)
        self._wake_if_worthwhile()
        return again

    def _drop(self, leases: Sequence[Lease], *, but: list[Lease]) -> None:
        for lease in leases:
            if lease not in but:
                self._leases.drop(lease)

    def _keep_hub_awake(self) -> tuple[int, int]:
        # A hub that watches no file sleeps 0.1 s a turn, deaf to call_soon.
        reader, writer = os.pipe()
        self._hub.add_reader(reader, lambda *_: None)
        return reader, writer

    def _let_hub_sleep(self) -> None:
        reader, writer = self._pipe
        if reader in self._hub.readers:
            self._hub.remove(reader)
        os.close(reader)
        os.close(writer)


def _url(lease: Lease) -> str:
    return lease.url


def _is_final(entry: dict[str, Any]) -> bool:
    """Whether trying an entry again is useless: the handle is no more, or the message is not held.

    Not by its ``SenderFault``: that a call came too often is the sender's fault too.
    """
    return str(entry.get("Code")).rpartition(".")[2] in _FINAL_CODES
