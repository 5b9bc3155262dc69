"""From the drop box to the request queue, and from records to ``results/``: by S3's events, at least once.

Nothing is kept here. A message about a file is deleted once its task is sent, one about a record once its copy is
stored; so a bridge that is killed between any two lines has lost nothing, and any number of bridges may run. What no
message tells of (an event that was lost, files that were there before the queue was) is found by a look now and then.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from irs import records
from irs.client.sender import SingleTask, send_tasks
from irs.cloud import Cloud
from irs.drops.events import Dropped, Recorded, read_events
from irs.drops.objects import CALLS, Objects
from irs.errors import InternalError, IrsError, NotFound, QueueUnavailable, StorageUnavailable
from irs.monitoring.status import count_queue
from irs.records import DROPS, RESULTS, Options
from irs.results import RecordStore
from irs.results.store import JSON

log = logging.getLogger(__name__)

#: Between two looks for what no message tells of, and how old a file must be by then: its event may be on its way.
LOOK_S, GRACE_S = 300.0, 30.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
#: A long poll that is answered later than this beyond its own length will not be answered.
POLL_GRACE_S = 5.0
#: Writers of one result that may come between: each has stored a newer one.
TRIES = 5

Event = TypeVar("Event", Dropped, Recorded)


@dataclass(slots=True)
class Done:
    """What a bridge did: messages deleted, tasks sent, results stored. Those done twice are counted twice."""

    messages: int = 0
    sent: int = 0
    results: int = 0


class Bridge:
    """One bridge; :meth:`run` is its main loop.

    Attributes:
        is_busy: whether messages are in hand.

    Raises:
        MissingResource, Unreachable: the drops queue is not there, or SQS does not answer.
    """

    def __init__(self, cloud: Cloud) -> None:
        self.done, self.is_busy = Done(), False
        self._cloud, self._settings = cloud, cloud.settings
        self._objects, self._store = Objects(cloud), RecordStore(cloud)
        self._url = cloud.queue_url(self._settings.drops_queue)
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(CALLS, "irs-drops")

    def run(self, wait: Callable[[float], bool]) -> None:
        """Go on until ``wait`` (which waits so many seconds, 0: not at all) returns True."""
        look_at_s, pause_s = 0.0, FIRST_PAUSE_S
        while not wait(0):
            try:
                if time.monotonic() >= look_at_s:
                    self.look()
                    look_at_s = time.monotonic() + LOOK_S
                self.step(wait_s=self._settings.wait_seconds)
                pause_s = FIRST_PAUSE_S
            except Exception as error:  # the edge of a main loop: the messages come back
                log.warning("bridge_failed", extra={"reason": str(error)}, exc_info=not isinstance(error, IrsError))
                # An embedded cloud that was killed has lost its messages.
                look_at_s = time.monotonic() + GRACE_S
                if wait(pause_s):
                    return
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def step(self, *, wait_s: int) -> int:
        """Work on up to ten messages, waiting up to ``wait_s`` (0 to 20) for the first; return how many came.

        Raises:
            QueueUnavailable: SQS does not answer. What failed of a message is logged, and the message comes back.
        """
        messages = self._receive(wait_s)
        self.is_busy = True
        try:
            self._work_on(messages)
        finally:
            self.is_busy = False
        return len(messages)

    def look(self, *, now: datetime | None = None) -> int:
        """Work on the files that have no result of their own, or an older one, and nobody works on; return how many.

        As long as a queue holds anything, something is on its way: then nothing is done. Raises as the cloud answers.
        """
        settings = self._settings
        for queue in (settings.drops_queue, settings.requests_queue):
            counts = count_queue(self._cloud, queue)
            if counts.visible or counts.in_flight or counts.delayed:
                return 0
        stood = {one.key: one.modified for one in self._objects.list(settings.output_bucket, RESULTS)}
        at = now or datetime.now(UTC)
        missing = []
        for one in self._objects.list(settings.input_bucket, DROPS):
            name = records.drop_name(one.key)
            if name is None or (at - one.modified).total_seconds() < GRACE_S:
                continue
            result = stood.get(records.result_key(name))
            if result is None or result < one.modified:
                missing.append(("", Dropped(one.key, name, one.etag)))
        tasks = [pair for pair in self._each(missing, self._settle, set()) if pair[1]]
        self._send(tasks)
        if missing:
            log.info("found", extra={"files": len(missing), "sent": len(tasks)})
        return len(missing)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _work_on(self, messages: Sequence[dict[str, Any]]) -> None:
        events = {message["ReceiptHandle"]: self._read(message) for message in messages}
        failed: set[str] = set()
        dropped = [(handle, one) for handle, told in events.items() for one in told if isinstance(one, Dropped)]
        recorded = [(handle, one) for handle, told in events.items() for one in told if isinstance(one, Recorded)]
        tasks = [(handle, task) for handle, task in self._each(dropped, self._settle, failed) if task]
        failed.update(self._send(tasks))
        list(self._each(recorded, lambda one: self._publish(one.task_id), failed))
        self._delete([handle for handle in events if handle not in failed])

    def _settle(self, dropped: Dropped) -> SingleTask | None:
        """Return the task of a file; None where its record stands, whose copy is stored anew."""
        if self._publish(dropped.task_id):
            return None
        return SingleTask(dropped.task_id, dropped.key, dropped.name)

    def _publish(self, task_id: str) -> bool:
        """Copy a dropped file's record to its result, unless a newer file stands there; return whether there is a record.

        Raises:
            StorageUnavailable, SetupError: S3 does not do it.
        """
        try:
            record = self._store.get(task_id)
        except (NotFound, InternalError):
            return False
        name = records.drop_name(record.image.key)
        if name is None:
            return True
        source, target = self._settings.input_bucket, self._settings.output_bucket
        for _ in range(TRIES):
            # In this order: whoever answers a file that is dropped after the second look replaces what the first one saw.
            standing = self._objects.find(target, key := records.result_key(name))
            now = self._objects.find(source, record.image.key)
            if now is not None and records.drop_task_id(now.key, now.etag) != task_id:
                return True
            if self._objects.replace(target, key, record.to_bytes(), standing, content_type=JSON):
                with self._lock:
                    self.done.results += 1
                return True
        raise StorageUnavailable(f"s3://{target}/{key} is replaced by others all the time")

    def _each(
        self, events: Sequence[tuple[str, Event]], work: Callable[[Event], Any], failed: set[str]
    ) -> Iterator[tuple[str, Any]]:
        """Yield what ``work`` returns of each event, many at once; of those it raises for, the handles go to ``failed``."""

        def try_to(pair: tuple[str, Event]) -> tuple[bool, Any]:
            try:
                return True, work(pair[1])
            except Exception as error:  # the edge of a stage: one file's trouble must not hold up the others
                log.warning(
                    "event_failed",
                    extra={"task_id": pair[1].task_id, "reason": str(error)},
                    exc_info=not isinstance(error, IrsError),
                )
                return False, None

        for (handle, _), (is_done, value) in zip(events, self._pool.map(try_to, events), strict=True):
            if is_done:
                yield handle, value
            else:
                failed.add(handle)

    def _send(self, tasks: Sequence[tuple[str, SingleTask]]) -> set[str]:
        """Send the tasks; return the handles of all if they are not all sent: sending one again is harmless."""
        if not tasks:
            return set()
        try:
            send_tasks(self._cloud, [task for _, task in tasks], Options())
        except IrsError as error:
            log.warning("send_failed", extra={"tasks": len(tasks), "reason": str(error)})
            return {handle for handle, _ in tasks}
        self.done.sent += len(tasks)
        return set()

    def _read(self, message: dict[str, Any]) -> list[Dropped | Recorded]:
        try:
            return read_events(message["Body"], self._settings)
        except ValueError as error:
            # Anyone whom the queue's policy lets may send to it; it will not become readable.
            log.warning("no_event", extra={"message_id": message["MessageId"], "reason": str(error)})
            return []

    def _receive(self, wait_s: int) -> list[dict[str, Any]]:
        from botocore.exceptions import BotoCoreError, ClientError

        client = self._cloud.client("sqs", read_seconds=wait_s + POLL_GRACE_S, attempts=1)
        try:
            got = client.receive_message(QueueUrl=self._url, MaxNumberOfMessages=10, WaitTimeSeconds=wait_s)
        except (BotoCoreError, ClientError) as error:
            raise QueueUnavailable(f"SQS does not answer for {self._url}: {error}") from None
        return list(got.get("Messages", ()))

    def _delete(self, handles: Sequence[str]) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        if not handles:
            return
        entries = [{"Id": str(number), "ReceiptHandle": handle} for number, handle in enumerate(handles)]
        try:
            self._cloud.sqs().delete_message_batch(QueueUrl=self._url, Entries=entries)
        except (BotoCoreError, ClientError) as error:
            raise QueueUnavailable(f"SQS deletes nothing of {self._url}: {error}") from None
        self.done.messages += len(handles)
