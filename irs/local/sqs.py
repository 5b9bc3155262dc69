"""What MiniStack's SQS lacks, put in place at start: see ``TESTED_VERSION`` of irs.local.emulator.

- Long polls wake when a message comes, not at the next tenth of a second.
- A message deleted twice, or by the handle of an earlier receive, is no error (the worst AWS documents).
- StartMessageMoveTask, ListMessageMoveTasks and ListDeadLetterSourceQueues.

Import this only in the emulator's environment: the emulator reads its settings at import.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any

from ministack.services import sqs

from irs.local.guard import caller_has_left
from irs.local.moves import Moves, dead_letter_sources

Data = dict[str, Any]
Queue = dict[str, Any]
Handler = Callable[[Data, str], Any]

#: Longest sleep of a waiting poll before it looks again; a queue may have been deleted meanwhile.
LOOK_SECONDS = 1.0
_HANDLE_LENGTH = 36


class Messages(list[Data]):
    """Messages of one queue, which wake the polls that wait for it.

    Topics, bucket notifications and dead-letter moves append to the list itself, so it must be the signal.
    """

    def __init__(self, items: list[Data], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(items)
        self._loop = loop
        self._event: asyncio.Event | None = None

    def append(self, item: Data) -> None:
        """Add a message; safe in any thread."""
        super().append(item)
        self.wake()

    def wake(self) -> None:
        """Let all waiting polls look again."""
        event, self._event = self._event, None
        if event is not None:
            self._loop.call_soon_threadsafe(event.set)

    async def changed(self, within_s: float) -> None:
        """Return at the next change, or after ``within_s``."""
        if self._event is None:
            self._event = asyncio.Event()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), within_s)

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Data]:
        # The save at shutdown copies all queues, and would drop them silently over an event.
        return copy.deepcopy(list(self), memo)


class Polls:
    """ReceiveMessage that waits for an event."""

    def __init__(self, take: Callable[[Data, str], Any]) -> None:
        self._take = take
        self._is_stopping = False

    def stop(self) -> None:
        """Answer all waiting polls, and those to come, with nothing; to be called in the event loop."""
        self._is_stopping = True
        for queue in sqs._queues.all_values():
            if isinstance(queue["messages"], Messages):
                queue["messages"].wake()

    async def receive(self, data: Data, url: str) -> Data:
        """Return up to ten messages as soon as there is one, or nothing after the wait asked for."""
        url = data.get("QueueUrl", url)
        queue = sqs._get_q(url)
        asked = data.get("WaitTimeSeconds")
        wait_s = int(asked if asked is not None else queue["attributes"].get("ReceiveMessageWaitTimeSeconds", "0"))
        end = time.time() + wait_s
        once = {**data, "WaitTimeSeconds": 0}
        while not self._is_stopping and not caller_has_left.get()():
            found: Data = await self._take(once, url)
            left_s = end - time.time()
            if found or left_s <= 0:
                return found
            messages = _signal(sqs._get_q(url))
            soonest_s = min((message["visible_at"] for message in messages), default=end) - time.time()
            await messages.changed(max(0.005, min(left_s, soonest_s, LOOK_SECONDS)))
        return {}


def patch() -> Polls:
    """Put all of it in place; to be called once, in the event loop."""
    handlers: dict[str, Handler] = sqs._HANDLERS
    polls = Polls(handlers["ReceiveMessage"])
    # Both put a new list in the place of the one that polls wait on.
    sqs._expire_retained = _in_place(sqs._expire_retained)
    sqs._dlq_sweep = _in_place(sqs._dlq_sweep)
    moves = Moves()
    handlers.update(
        ReceiveMessage=polls.receive,
        ChangeMessageVisibility=_waking(handlers["ChangeMessageVisibility"]),
        ChangeMessageVisibilityBatch=_waking(handlers["ChangeMessageVisibilityBatch"]),
        DeleteMessage=_delete,
        DeleteMessageBatch=_delete_batch,
        StartMessageMoveTask=moves.start,
        ListMessageMoveTasks=moves.list,
        ListDeadLetterSourceQueues=dead_letter_sources,
    )
    return polls


def _signal(queue: Queue) -> Messages:
    if not isinstance(queue["messages"], Messages):
        queue["messages"] = Messages(queue["messages"], asyncio.get_running_loop())
    messages: Messages = queue["messages"]
    return messages


def _in_place(change: Callable[[Queue], None]) -> Callable[[Queue], None]:
    @wraps(change)
    def changed(queue: Queue) -> None:
        before = queue["messages"]
        change(queue)
        if queue["messages"] is not before:
            before[:] = queue["messages"]
            queue["messages"] = before

    return changed


def _waking(handler: Handler) -> Handler:
    @wraps(handler)
    def handle(data: Data, url: str) -> Any:
        answer = handler(data, url)
        _signal(sqs._get_q(data.get("QueueUrl", url))).wake()
        return answer

    return handle


def _drop(queue: Queue, handle: str) -> bool:
    """Remove the message of a handle; False when no receive ever gave out such a handle."""
    messages = queue["messages"]
    for at, message in enumerate(messages):
        if message.get("receipt_handle") == handle:
            del messages[at]
            return True
    return len(handle) == _HANDLE_LENGTH


def _delete(data: Data, url: str) -> Data:
    queue = sqs._get_q(data.get("QueueUrl", url), "sqs:DeleteMessage")
    handle = data.get("ReceiptHandle", "")
    if not handle:
        raise sqs._Err("MissingParameter", "The request must contain the parameter ReceiptHandle.")
    if not _drop(queue, handle):
        raise sqs._Err("ReceiptHandleIsInvalid", "The input receipt handle is invalid.")
    return {}


def _delete_batch(data: Data, url: str) -> Data:
    queue = sqs._get_q(data.get("QueueUrl", url), "sqs:DeleteMessage")
    entries = data.get("Entries", [])
    sqs._validate_batch_entries(entries, "DeleteMessageBatchRequestEntry")
    answer: dict[str, list[Data]] = {"Successful": [], "Failed": []}
    for entry in entries:
        if _drop(queue, entry.get("ReceiptHandle", "")):
            answer["Successful"].append({"Id": entry["Id"]})
        else:
            fault = {"Code": "ReceiptHandleIsInvalid", "Message": "The input receipt handle is invalid.", "SenderFault": True}
            answer["Failed"].append({"Id": entry["Id"], **fault})
    return answer
