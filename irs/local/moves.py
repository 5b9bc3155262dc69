"""Moves out of dead-letter queues, which MiniStack's SQS lacks: put in place by irs.local.sqs."""

from __future__ import annotations

import json
import time
from typing import Any

from ministack.core.responses import new_uuid
from ministack.services import sqs

Data = dict[str, Any]
Queue = dict[str, Any]

_KEPT_MOVES = 10


def dead_letter_sources(data: Data, url: str) -> Data:
    """Answer ListDeadLetterSourceQueues."""
    arn = sqs._get_q(data.get("QueueUrl", url))["attributes"]["QueueArn"]
    return {"queueUrls": [queue["url"] for queue in sqs._queues.values() if arn == _dead_letter_arn(queue)]}


def _dead_letter_arn(queue: Queue) -> str | None:
    policy = queue["attributes"].get("RedrivePolicy")
    return json.loads(policy).get("deadLetterTargetArn") if policy else None


class Moves:
    """StartMessageMoveTask, done at once, and what ListMessageMoveTasks says of it later."""

    def __init__(self) -> None:
        self._done: dict[str, list[Data]] = {}

    def start(self, data: Data, _url: str) -> Data:
        """Move the visible messages of a dead-letter queue to where they came from, or to the one named."""
        arn = data.get("SourceArn", "")
        source = _named(arn)
        if not any(arn == _dead_letter_arn(queue) for queue in sqs._queues.values()):
            raise sqs._Err("InvalidParameterValue", "Source queue must be configured as a Dead Letter Queue.")
        goal = _named(data["DestinationArn"]) if data.get("DestinationArn") else None
        moved, kept, now = 0, [], time.time()
        for message in source["messages"]:
            # Topics and buckets leave out what a first receive fills in.
            sqs._ensure_msg_fields(message)
            target = goal or sqs._queue_by_arn(message["sys"].get("DeadLetterQueueSourceArn", ""))
            if message["visible_at"] > now or target is None:
                kept.append(message)
                continue
            target["messages"].append(_as_new(message, now))
            moved += 1
        left = sum(message["visible_at"] <= now for message in kept)
        source["messages"][:] = kept
        task = {
            "TaskHandle": new_uuid(),
            "Status": "FAILED" if left else "COMPLETED",
            "SourceArn": arn,
            "ApproximateNumberOfMessagesMoved": moved,
            "ApproximateNumberOfMessagesToMove": moved + left,
            "StartedTimestamp": int(now * 1000),
        }
        if goal is not None:
            task["DestinationArn"] = data["DestinationArn"]
        if left:
            task["FailureReason"] = "CouldNotDetermineMessageSource"
        self._done[arn] = [task, *self._done.get(arn, [])][:_KEPT_MOVES]
        return {"TaskHandle": task["TaskHandle"]}

    def list(self, data: Data, _url: str) -> Data:
        """Tell the last moves from one queue, newest first."""
        _named(data.get("SourceArn", ""))
        # A handle is told only while a task runs.
        told = [{key: task[key] for key in task if key != "TaskHandle"} for task in self._done.get(data["SourceArn"], [])]
        return {"Results": told[: int(data.get("MaxResults", 1))]}


def _named(arn: str) -> Queue:
    queue: Queue | None = sqs._queue_by_arn(arn)
    if queue is None:
        raise sqs._Err(
            "ResourceNotFoundException", "The resource that you specified for the SourceArn parameter doesn't exist.", 404
        )
    return queue


def _as_new(message: Data, now: float) -> Data:
    """A moved message is a new one: own id, time and receive count, as AWS documents."""
    return {
        **message,
        "id": new_uuid(),
        "sent_at": now,
        "enqueued_at": now,
        "visible_at": now,
        "receipt_handle": None,
        "receive_count": 0,
        "first_receive_at": None,
        "sys": {"SenderId": message["sys"].get("SenderId"), "SentTimestamp": str(int(now * 1000))},
    }
