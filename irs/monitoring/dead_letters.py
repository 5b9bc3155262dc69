"""The dead-letter queue: what no worker could finish. Listed without taking, moved back on request.

Celery's task id and name are read from the message; the record of a task tells why it came here.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from irs.cloud import Cloud
from irs.errors import QueueUnavailable
from irs.records import Fault, ImageFacts, Record, Timing, split_task_id
from irs.results import RecordStore
from irs.results.news import NewsSender

#: Long enough to walk through the queue; given back at the end.
LOOK_S = 300
#: A poll without a wait asks some of AWS's servers only; with one it asks all, so an empty answer is the end.
WAIT_S = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One message of the dead-letter queue.

    Attributes:
        message_id: SQS's.
        task_id, task: Celery's id and name; None when the message is none of Celery's.
        image, name: the first argument and the file's name of an image task.
        sent: Unix seconds.
        code: ``error.code`` of the task's failed record; None while there is none.
    """

    message_id: str
    task_id: str | None = None
    task: str | None = None
    image: str | None = None
    name: str | None = None
    sent: float | None = None
    code: str | None = None


@dataclass(frozen=True, slots=True)
class _Received:
    letter: DeadLetter
    message: dict[str, Any]


def list_dead_letters(cloud: Cloud, *, limit: int = 1000) -> list[DeadLetter]:
    """Return up to ``limit`` messages; all stay in the queue, hidden from others while this looks.

    Raises:
        MissingResource, Unreachable, QueueUnavailable, StorageUnavailable: as the cloud answers.
    """
    queue, found = _Queue(cloud), list[_Received]()
    try:
        for received in queue.receive():
            found.append(received)
            if len(found) >= limit:
                break
    finally:
        queue.give_back()
    return [received.letter for received in found]


def redrive(
    cloud: Cloud, *, code: str | None = None, on_moved: Callable[[DeadLetter], None] = lambda _: None
) -> list[DeadLetter]:
    """Move the messages back to the request queue and return them; each task's failed record is removed first.

    Safe to run twice, and to break off: what is not moved stays. With ``code`` only tasks whose record
    failed with it are moved.

    Raises:
        MissingResource, Unreachable, QueueUnavailable, StorageUnavailable: as the cloud answers.
    """
    queue, records, moved = _Queue(cloud), RecordStore(cloud), list[DeadLetter]()
    try:
        for received in queue.receive():
            letter = received.letter
            if code is not None and letter.code != code:
                continue
            if letter.code is not None and letter.task_id is not None:
                # Before the message: else a quick worker meets the old record and leaves it.
                records.delete(letter.task_id)
            queue.move_back(received.message)
            moved.append(letter)
            on_moved(letter)
    finally:
        queue.give_back()
    return moved


def record_poisoned(cloud: Cloud) -> list[DeadLetter]:
    """Store a failed record, code ``poisoned``, for each image that ended here without one; return whose.

    Their workers died before they could store it. The messages stay; news of the records are sent. Safe to run
    twice, and beside another: the first record stands, and of a cancelled job none is stored.

    Raises:
        MissingResource, Unreachable, QueueUnavailable, StorageUnavailable: as the cloud answers.
    """
    # Celery costs 0.3 s at import, which a listing can do without.
    from irs.results.backend import TASK

    queue, store, recorded = _Queue(cloud), RecordStore(cloud), list[DeadLetter]()
    is_cancelled = cache(store.is_cancelled)
    news = NewsSender(cloud)
    try:
        for received in queue.receive():
            letter = received.letter
            if letter.task != TASK or letter.task_id is None or letter.image is None or letter.code is not None:
                continue
            record = _poisoned(cloud, letter, letter.task_id, letter.image)
            if not (record.job and is_cancelled(record.job)) and store.put(record):
                news.add(record)
                recorded.append(letter)
    finally:
        queue.give_back()
        news.close()
    return recorded


def _poisoned(cloud: Cloud, letter: DeadLetter, task_id: str, image: str) -> Record:
    job, number = split_task_id(task_id) or (None, None)
    receives = cloud.settings.max_receives
    message = f"its worker died at each of {receives} attempts: look at the image, then `irs dlq redrive --code poisoned`"
    return Record(
        task_id=task_id,
        job=job,
        number=number,
        status="failed",
        image=ImageFacts(name=letter.name, key=image),
        timing=Timing(submitted=letter.sent),
        receives=receives,
        error=Fault(code="poisoned", message=message),
    )


class _Queue:
    """The dead-letter queue in one walk: each message once; what is held can be given back."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud, self._records = cloud, RecordStore(cloud)
        # Before the first receive: without the queue to move to nothing is touched.
        self._requests = cloud.queue_url(cloud.settings.requests_queue)
        self._dead = cloud.queue_url(cloud.settings.requests_dead_queue)
        self._held: dict[str, str] = {}

    def receive(self) -> Iterator[_Received]:
        seen: set[str] = set()
        while True:
            messages = self._call(
                "receive_message",
                QueueUrl=self._dead,
                MaxNumberOfMessages=10,
                VisibilityTimeout=LOOK_S,
                WaitTimeSeconds=WAIT_S,
                MessageSystemAttributeNames=["SentTimestamp"],
                MessageAttributeNames=["All"],
            ).get("Messages", [])
            self._held |= {message["MessageId"]: message["ReceiptHandle"] for message in messages}
            fresh = [message for message in messages if message["MessageId"] not in seen]
            seen |= {message["MessageId"] for message in fresh}
            if not fresh:
                return
            for message in fresh:
                yield _Received(self._with_code(read_letter(message)), message)

    def move_back(self, message: dict[str, Any]) -> None:
        kept = {"MessageAttributes": message["MessageAttributes"]} if message.get("MessageAttributes") else {}
        if "MessageId" not in self._call("send_message", QueueUrl=self._requests, MessageBody=message["Body"], **kept):
            raise QueueUnavailable(f"SQS did not take a message for {self._cloud.settings.requests_queue}.")
        # Last on purpose: a break before this line costs a second delivery, never the message.
        self._call("delete_message", QueueUrl=self._dead, ReceiptHandle=message["ReceiptHandle"])
        self._held.pop(message["MessageId"], None)

    def give_back(self) -> None:
        """Show what is still held to others again; what fails here comes back by itself after LOOK_S."""
        handles = list(self._held.values())
        for start in range(0, len(handles), 10):
            entries = [
                {"Id": str(number), "ReceiptHandle": handle, "VisibilityTimeout": 0}
                for number, handle in enumerate(handles[start : start + 10])
            ]
            self._call("change_message_visibility_batch", QueueUrl=self._dead, Entries=entries)
        self._held.clear()

    def _with_code(self, letter: DeadLetter) -> DeadLetter:
        record = self._records.find(letter.task_id) if letter.task_id else None
        return replace(letter, code=record.error.code) if record and record.error else letter

    def _call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer: dict[str, Any] = getattr(self._cloud.sqs(), operation)(**arguments)
        except (BotoCoreError, ClientError) as error:
            raise QueueUnavailable(f"SQS does not answer for {self._cloud.settings.requests_dead_queue}: {error}") from None
        return answer


def read_letter(message: dict[str, Any]) -> DeadLetter:
    """Return what a received SQS message tells; a body that is none of Celery's leaves the fields None."""
    sent_ms = message.get("Attributes", {}).get("SentTimestamp")
    letter = DeadLetter(message_id=message["MessageId"], sent=int(sent_ms) / 1000 if sent_ms else None)
    try:
        body = json.loads(message["Body"])
        headers = body["headers"]
        letter = replace(letter, task_id=_text(headers.get("id")), task=_text(headers.get("task")))
        arguments, keywords, *_ = json.loads(_payload(body))
        return replace(
            letter, image=_text(arguments[0] if arguments else keywords.get("image")), name=_text(keywords.get("name"))
        )
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
        # Anyone may send to a queue: what is not understood is still listed.
        return letter


def _payload(body: dict[str, Any]) -> str | bytes:
    encoded = (body.get("properties") or {}).get("body_encoding") == "base64"
    return base64.b64decode(body["body"]) if encoded else str(body["body"])


def _text(value: object) -> str | None:
    # As a record can hold it, which names of files and ids that callers choose need not be.
    return value.encode(errors="replace").decode() if isinstance(value, str) else None
