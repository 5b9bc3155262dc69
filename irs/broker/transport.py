"""kombu's SQS transport with its polling, acknowledging and sending replaced by ours.

Everything else stays kombu's: message form, exchanges, consumers. A channel without an event loop (producers,
command-line clients) has no :class:`~irs.broker.intake.Intake` and behaves as the stock one, with shared clients.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from amqp.protocol import queue_declare_ok_t
from kombu.transport import SQS, virtual
from kombu.utils.json import dumps

from irs.broker.delivery import ATTRIBUTES
from irs.broker.intake import Intake, IntakeOptions
from irs.broker.receive import GRACE_S
from irs.broker.sends import NOT_TAKEN, Send, check_size
from irs.cloud import Cloud, get_cloud
from irs.errors import QueueUnavailable

#: SQS delays a message by at most this much.
LONGEST_DELAY_S = 900
#: A task whose ``eta`` is further away goes back to SQS, hidden until then: a worker would hold it under lease.
LONGEST_HELD_ETA_S = 60


class QoS(SQS.QoS):  # type: ignore[misc]
    """Counts what is in hand; a slot is free as soon as its task has an outcome."""

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Free the slot. The intake hides the message with back-off, requeue or not."""
        if self.channel.intake is None:
            super().reject(delivery_tag, requeue=requeue)
        else:
            self._quick_ack(delivery_tag)

    def restore_unacked(self) -> list[Any]:
        """Hand back what was not begun, visible at once."""
        if self.channel.intake is None:
            return super().restore_unacked()  # type: ignore[no-any-return]
        self._flush()
        for tag in list(self._delivered):
            self.channel.intake.hand_back(tag)
        self._delivered.clear()
        return []


class Channel(SQS.Channel):  # type: ignore[misc]
    """SQS channel whose messages stay leased until they are acknowledged.

    Attributes:
        intake: polls and holds for this channel; None until it consumes within an event loop.
        collected: sends of an open batch (:func:`irs.broker.batch_sends`), None when none is open.
    """

    QoS = QoS
    intake: Intake | None = None
    collected: list[Send] | None = None

    @cached_property
    def cloud(self) -> Cloud:
        """The clients of this process."""
        return get_cloud()

    def sqs(self, queue: str | None = None) -> Any:
        """Return the shared client; kombu would make one a channel, at 0.2 s and 17 MB each."""
        del queue
        return self.cloud.sqs()

    def basic_consume(self, queue: str, no_ack: bool, callback: Any, consumer_tag: str, *args: Any, **kwargs: Any) -> Any:
        if not self.hub:
            return super().basic_consume(queue, no_ack, callback, consumer_tag, *args, **kwargs)
        self._subscribe_queue_to_fanout_exchange_if_required(queue)
        if no_ack:
            self._noack_queues.add(queue)
        # Past kombu's own, which would start its polling chain.
        virtual.Channel.basic_consume(self, queue, no_ack, callback, consumer_tag, *args, **kwargs)
        if self.intake is None:
            self.intake = self._make_intake()
        self.intake.consume(queue, self._new_queue(queue))
        return None

    def basic_cancel(self, consumer_tag: str) -> Any:
        queue = self._tag_to_queue.get(consumer_tag)
        done = super().basic_cancel(consumer_tag)
        if self.intake is not None and queue is not None:
            self.intake.cancel(queue)
        return done

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        if self.intake is None:
            super().basic_ack(delivery_tag, multiple)
        else:
            self.qos.ack(delivery_tag)
            self.intake.ack(delivery_tag)

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        # Never a delete: what did not succeed comes back with back-off, and ends in the dead-letter queue.
        if self.intake is None:
            super().basic_reject(delivery_tag, requeue=requeue)
        else:
            self.qos.reject(delivery_tag, requeue=requeue)
            self.intake.reject(delivery_tag)

    def basic_qos(self, prefetch_size: int = 0, prefetch_count: int = 0, apply_global: bool = False) -> None:
        super().basic_qos(prefetch_size, prefetch_count, apply_global)
        if self.intake is not None:
            self.intake.wake()

    def queue_declare(self, queue: str | None = None, passive: bool = False, **kwargs: Any) -> Any:
        if passive or queue is None:
            return super().queue_declare(queue, passive, **kwargs)
        self._new_queue(queue)
        # Not counted: nobody reads it, and it costs a request a producer.
        return queue_declare_ok_t(queue, 0, 0)

    def close(self) -> None:
        if self.closed:
            return
        intake = self.intake
        for consumer_tag in list(self._consumers):
            self.basic_cancel(consumer_tag)
        if self._qos:
            self._qos.restore_unacked_once()
        if intake is not None:
            intake.close()
        super().close()

    def _make_intake(self) -> Intake:
        options = self.transport_options
        settings = self.cloud.settings
        return Intake(
            self.cloud,
            self.hub,
            IntakeOptions(
                wait_s=self.wait_time_seconds,
                visibility_s=self.visibility_timeout,
                pollers=options.get("pollers", settings.pollers),
                ack_batch_s=options.get("ack_batch_seconds", settings.ack_batch_seconds),
                max_lease_s=options.get("max_lease", settings.max_lease_seconds),
                drain_s=options.get("drain_seconds", settings.drain_seconds),
                cut_polls=options.get("cut_polls", settings.cut_polls),
            ),
            deliver=self._deliver,
            has_consumer=lambda queue: self.connection is not None and queue in self.connection._callbacks,
            slots=self._slots,
        )

    def _slots(self) -> tuple[int, int] | None:
        # Read from other threads than the hub's: lengths alone, never the contents.
        limit = self.qos.prefetch_count
        return (limit, self.qos.can_consume_max_estimate()) if limit else None

    def _deliver(self, message: dict[str, Any], queue: str, url: str) -> None:
        tag = message["ReceiptHandle"]
        try:
            payload = self._message_to_python(message, queue, url)
            wait_s = _seconds_to_eta(payload.get("headers") or {}) or 0
            if self.intake is not None and wait_s > LONGEST_HELD_ETA_S:
                self.intake.hide(tag, wait_s)
                return
            self.connection._callbacks[queue](payload)
        except Exception:
            # The slot is free again; the intake hides the message.
            self.qos._delivered.pop(tag, None)
            raise
        if queue in self._noack_queues and self.intake is not None:
            self.intake.ack(tag)

    def _delete_message(self, queue_name: str, message: dict[str, Any]) -> None:
        if self.intake is None:
            self.sqs().delete_message(QueueUrl=self._new_queue(queue_name), ReceiptHandle=message["ReceiptHandle"])
        # Else deleted in a batch, once it is delivered.

    def _update_queue_cache(self, queue_name_prefix: str) -> None:
        # kombu lists all queues a channel; one is asked for by its name when it is used.
        if queue_name_prefix:
            self._queue_cache[queue_name_prefix] = self.cloud.queue_url(queue_name_prefix)

    def _put(self, queue: str, message: dict[str, Any], **_: Any) -> None:
        entry: dict[str, Any] = {}
        properties = message.get("properties") or {}
        if attributes := properties.pop("message_attributes", None):
            entry["MessageAttributes"] = attributes
        delay_s = self._resolve_delay_seconds(properties)
        if delay_s is None:
            delay_s = _delay_of_eta(message.get("headers") or {})
        if delay_s is not None:
            entry["DelaySeconds"] = delay_s
        entry["MessageBody"] = body = dumps(message)
        check_size(body)
        send = Send(self._new_queue(queue), entry)
        if self.collected is not None:
            self.collected.append(send)
        else:
            answer = self.sqs().send_message(QueueUrl=send.url, **entry)
            if "MessageId" not in answer:
                # A page of some proxy: who sent it must not wait for an answer.
                raise QueueUnavailable(f"SQS did not take a message for {queue}: {NOT_TAKEN}")

    def _receive_message(
        self, queue: str, max_number_of_messages: int = 1, wait_time_seconds: int | None = None
    ) -> dict[str, Any]:
        # For consumers without an event loop; the shared client of short calls would give up during a long poll.
        wait_s = self.wait_time_seconds if wait_time_seconds is None else wait_time_seconds
        client = self.cloud.client("sqs", read_seconds=wait_s + GRACE_S, attempts=1)
        return client.receive_message(  # type: ignore[no-any-return]
            QueueUrl=self._new_queue(queue),
            MaxNumberOfMessages=max_number_of_messages,
            WaitTimeSeconds=wait_s,
            VisibilityTimeout=self.visibility_timeout,
            MessageSystemAttributeNames=list(ATTRIBUTES),
        )


def _delay_of_eta(headers: dict[str, Any]) -> int | None:
    """Return the delay that stands for a task's ``eta``, and take the ``eta`` away if it covers all of it.

    A worker that waited for the ``eta`` itself would hold the message under lease meanwhile, and hoard the queue.
    """
    delay_s = _seconds_to_eta(headers)
    if delay_s is None:
        return None
    if delay_s <= LONGEST_DELAY_S:
        headers["eta"] = None
    return max(0, min(delay_s, LONGEST_DELAY_S))


def _seconds_to_eta(headers: dict[str, Any]) -> int | None:
    """Return in how many seconds a task's ``eta`` is; None if it has none that can be read."""
    try:
        at = datetime.fromisoformat(str(headers.get("eta")))
    except ValueError:
        return None
    return math.ceil(((at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds())


class Transport(SQS.Transport):  # type: ignore[misc]
    """SQS with our channel; ``driver_type`` stays ``sqs``, so Celery treats it as such."""

    Channel = Channel
