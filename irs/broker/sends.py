"""Sends in batches: one SendMessageBatch for ten task messages."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from irs.errors import BadOptions, QueueUnavailable

#: SQS takes this much in one message, and in one batch.
MOST_BYTES = 1024 * 1024
MOST_ENTRIES = 10
TRIES = 5
FIRST_PAUSE_S = 0.2
NOT_TAKEN = "it was answered without a word of them"


@dataclass(frozen=True, slots=True)
class Send:
    """One message to be sent: the keyword arguments of SendMessage without the queue."""

    url: str
    entry: dict[str, Any]

    @property
    def size(self) -> int:
        """Bytes that SQS counts."""
        return len(self.entry["MessageBody"].encode())


def check_size(body: str) -> None:
    """Refuse a message that SQS would refuse.

    Raises:
        BadOptions: it is longer than 1 MiB.
    """
    # A character is at most four bytes: most messages need no counting.
    if len(body) * 4 > MOST_BYTES and (size := len(body.encode())) > MOST_BYTES:
        raise BadOptions(f"the task's message has {size:,} bytes and SQS takes {MOST_BYTES:,}: pass a key, not the picture")


@contextmanager
def batch_sends(producer: Any) -> Iterator[None]:
    """Collect what is published on ``producer`` and send it ten at a time when the block ends.

    Nothing is sent when the block raises. On a transport that is not ours everything is sent at once, as ever.

    Raises:
        QueueUnavailable: SQS did not take all messages; those it took are sent.
    """
    channel = producer.channel
    if not hasattr(channel, "collected"):
        yield
        return
    sends: list[Send] = []
    channel.collected = sends
    try:
        yield
    finally:
        channel.collected = None
    send_all(channel.sqs(), sends)


def send_all(client: Any, sends: list[Send]) -> None:
    """Send messages with as few calls as SQS allows; those it refuses for now are sent again.

    Raises:
        QueueUnavailable: some are still not taken after five tries.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    left, pause_s, why = sends, FIRST_PAUSE_S, ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(pause_s)
            pause_s *= 2
        failed: list[Send] = []
        for chunk in chunks(left):
            entries = [{"Id": str(n), **send.entry} for n, send in enumerate(chunk)]
            try:
                answer = client.send_message_batch(QueueUrl=chunk[0].url, Entries=entries)
            except (ClientError, BotoCoreError, OSError) as error:
                failed += chunk
                why = str(error)
                continue
            # By what it took, not by what it refused: a page of some proxy refuses nothing.
            taken = {one["Id"] for one in answer.get("Successful", ())}
            if left_out := [send for n, send in enumerate(chunk) if str(n) not in taken]:
                failed += left_out
                why = next((one.get("Message") or one["Code"] for one in answer.get("Failed", ())), NOT_TAKEN)
        if not failed:
            return
        left = failed
    raise QueueUnavailable(f"SQS did not take {len(left)} of {len(sends)} messages: {why}")


def chunks(sends: list[Send]) -> Iterator[list[Send]]:
    """Yield the messages in order, cut by queue, at 10 entries and at 1 MiB in sum."""
    chunk: list[Send] = []
    size = 0
    for send in sends:
        if chunk and (len(chunk) == MOST_ENTRIES or size + send.size > MOST_BYTES or send.url != chunk[0].url):
            yield chunk
            chunk, size = [], 0
        chunk.append(send)
        size += send.size
    if chunk:
        yield chunk
