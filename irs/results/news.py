"""News on the response queue: hints that records are there. May be lost, doubled or late; the records tell all."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import Any

from irs.cloud import Cloud
from irs.errors import QueueUnavailable
from irs.records import MAX_NEWS_BYTES, MAX_NEWS_RESULTS, VERSION, News, NewsItem, Record
from irs.sqs import Sqs

log = logging.getLogger(__name__)

TRIES = 3
PAUSE_S = 0.5
#: The oldest are dropped beyond it: a queue that does not answer must not fill the memory.
MOST_WAITING = 10_000
MOST_NAME_CHARACTERS = 500
#: A long poll that is answered later than this beyond its own length will not be answered.
GRACE_S = 5.0
_ENVELOPE_BYTES = len(b'{"version":00,"results":[]}')


@dataclass(frozen=True, slots=True)
class _Waiting:
    text: bytes
    added_at: float


class NewsSender:
    """Sends news from a thread of its own, up to 50 results and 60 KB a message.

    They go at once if none went for ``IRS_NEWS_SECONDS`` or no more are coming, so an idle service answers without
    delay; else they are collected for up to that long, since a busy one answers a batch every 100 ms and each
    message costs. What SQS does not take in three tries is dropped and logged.
    """

    def __init__(self, cloud: Cloud, *, sqs: Sqs | None = None) -> None:
        self._cloud, self._sqs = cloud, sqs or Sqs(cloud)
        self._wait_s = cloud.settings.news_seconds
        self._waiting: deque[_Waiting] = deque(maxlen=MOST_WAITING)
        self._changed = threading.Condition()
        self._is_closing = False
        self._more_coming = True
        self._thread = threading.Thread(target=self._work, name="irs-news", daemon=True)
        self._thread.start()

    def add(self, record: Record, *, more_coming: bool = True) -> None:
        """Queue the news of a record; never blocks, never raises.

        Args:
            more_coming: other images are in work, whose news may share the message.
        """
        item = NewsItem.of(record)
        if item.name and len(item.name) > MOST_NAME_CHARACTERS:
            item = replace(item, name=item.name[:MOST_NAME_CHARACTERS])
        with self._changed:
            self._waiting.append(_Waiting(item.to_bytes(), time.monotonic()))
            self._more_coming = more_coming
            # Between the first and the last of a message the thread has nothing to decide.
            if not more_coming or len(self._waiting) in (1, MAX_NEWS_RESULTS):
                self._changed.notify()

    def close(self, *, within_s: float = 5.0) -> None:
        """Send what waits, trying once each, and end the thread."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(within_s)

    def _work(self) -> None:
        sent_at = float("-inf")
        while batch := self._take(sent_at):
            sent_at = time.monotonic()
            self._send([waiting.text for waiting in batch])

    def _take(self, sent_at: float) -> list[_Waiting]:
        """Return what one message holds as soon as it is due; nothing when it is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closing)
            if self._waiting:
                self._collect(min(self._waiting[0].added_at, sent_at) + self._wait_s)
            batch: list[_Waiting] = []
            size = _ENVELOPE_BYTES
            while self._waiting and len(batch) < MAX_NEWS_RESULTS:
                size += len(self._waiting[0].text) + 1
                if batch and size > MAX_NEWS_BYTES:
                    break
                batch.append(self._waiting.popleft())
            return batch

    def _collect(self, end: float) -> None:
        """Wait until a message is full, no more are coming, or ``end``."""
        while len(self._waiting) < MAX_NEWS_RESULTS and self._more_coming and not self._is_closing:
            if (left := end - time.monotonic()) <= 0:
                return
            self._changed.wait(left)

    def _send(self, results: list[bytes]) -> None:
        body = b'{"version":%d,"results":[%b]}' % (VERSION, b",".join(results))
        for attempt in range(1, TRIES + 1):
            try:
                url = self._cloud.queue_url(self._cloud.settings.responses_queue)
                self._sqs.call("SendMessage", {"QueueUrl": url, "MessageBody": body.decode()})
                return
            except Exception as error:  # the edge of a main loop: news are hints, and nobody waits for them here
                if attempt == TRIES or self._is_closing:
                    log.warning("news_lost", extra={"results": len(results), "reason": str(error)})
                    return
                with self._changed:
                    self._changed.wait_for(lambda: self._is_closing, PAUSE_S * attempt)


class NewsReader:
    """Takes news from the response queue. Readers compete: each message goes to one of them."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def receive(self, *, wait_s: int = 20) -> list[NewsItem]:
        """Return the news of up to ten messages, waiting up to ``wait_s`` (0 to 20) for the first, and delete them.

        Raises:
            MissingResource: the response queue is not there.
            QueueUnavailable, Unreachable: SQS does not answer.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        url = self._cloud.queue_url(self._cloud.settings.responses_queue)
        client = self._cloud.client("sqs", read_seconds=wait_s + GRACE_S, attempts=1)
        try:
            messages = client.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=wait_s).get("Messages", [])
            if messages:
                entries = [{"Id": str(n), "ReceiptHandle": message["ReceiptHandle"]} for n, message in enumerate(messages)]
                client.delete_message_batch(QueueUrl=url, Entries=entries)
        except (BotoCoreError, ClientError) as error:
            raise QueueUnavailable(f"SQS does not answer for {url}: {error}") from None
        return [item for message in messages for item in _read(message)]


def _read(message: dict[str, Any]) -> tuple[NewsItem, ...]:
    try:
        return News.from_json(message["Body"]).results
    except ValueError:
        # Anyone may send to a queue.
        log.warning("no_news", extra={"message_id": message.get("MessageId"), "head": json.dumps(message["Body"][:100])})
        return ()
