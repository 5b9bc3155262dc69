"""The Celery result backend on the output bucket.

An image task stores its record itself, so nothing is stored for it here: its record is its result. All other
tasks (a chord's callback, Celery's own) and groups are kept as Celery keeps them, under ``celery/``.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from celery import states
from celery.backends.base import KeyValueStoreBackend
from celery.exceptions import TimeoutError as CeleryTimeoutError
from kombu.utils.encoding import bytes_to_str

from irs.cloud import Bucket, get_cloud
from irs.errors import NotFound, PassingError, RecognitionFailed
from irs.records import Record, safe_id
from irs.results.backoff import Backoff
from irs.results.store import JSON, READERS, RecordStore, ask_all

TASK = "irs.recognize"
#: Tasks asked for at once. If none of them is done the rest waits for the next pass, so that a thousand waiting
#: tasks do not cost a thousand requests each time.
WINDOW = 4 * READERS

Meta = dict[str, Any]


class Backend(KeyValueStoreBackend):  # type: ignore[misc]
    """``result_backend = "irs.results.backend:Backend"``; safe for threads and after fork.

    ``AsyncResult.get()`` of an image task returns its record as JSON values, or raises RecognitionFailed with the
    record's code. ``forget()`` leaves the record: it is the truth.
    """

    supports_native_join = True
    # The bucket's lifecycle does it.
    supports_autoexpire = True
    task_keyprefix = "celery/tasks/"
    group_keyprefix = "celery/groups/"
    chord_keyprefix = "celery/chords/"

    def __init__(self, app: Any, **kwargs: Any) -> None:
        super().__init__(app, **kwargs)
        self._cloud = get_cloud()
        self._records = RecordStore(self._cloud)
        self._turns = itertools.count()

    @property
    def _bucket(self) -> Bucket:
        return self._cloud.output

    def as_uri(self, include_password: bool = False) -> str:
        """Return what the worker's banner and Flower show."""
        del include_password
        return f"s3://{self._cloud.settings.output_bucket}/"

    # What KeyValueStoreBackend asks for: Celery's own results.

    def get(self, key: bytes | str) -> bytes | None:
        try:
            return self._bucket.get(bytes_to_str(key))
        except NotFound:
            return None

    def set(self, key: bytes | str, value: bytes | str) -> None:
        body = value.encode() if isinstance(value, str) else value
        self._bucket.put(bytes_to_str(key), body, content_type=JSON)

    def delete(self, key: bytes | str) -> None:
        self._bucket.delete(bytes_to_str(key))

    def _get_key_for(self, prefix: Any, id: Any, key: Any = "") -> Any:
        # Ids are chosen by callers: none may leave its folder.
        return self.key_t(f"{bytes_to_str(prefix)}{safe_id(str(id))}{bytes_to_str(key)}.json")

    # What differs for an image task.

    def store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        """Store a task's outcome, except what an image task's record tells or will tell."""
        if self._is_told_by_record(task_id, result, state, request):
            return self.encode_result(result, state)
        return super().store_result(task_id, result, state, traceback=traceback, request=request, **kwargs)

    @staticmethod
    def _is_told_by_record(task_id: str, result: Any, state: str, request: Any) -> bool:
        if isinstance(result, RecognitionFailed):
            # Of another task: a chain or chord that it ended, which has no record of its own.
            return result.task_id == task_id
        # A host name: a worker ran it. Without one it never ran, as the rest of a chain that failed before it.
        has_run = getattr(request, "task", None) == TASK and getattr(request, "hostname", None)
        # Revoked is final; every other fault brings the message back.
        return bool(has_run) and state != states.REVOKED

    def _get_task_meta_for(self, task_id: str) -> Meta:
        record = self._records.find_answer(task_id)
        return _meta_of(record) if record else super()._get_task_meta_for(task_id)

    def task_result_exists(self, task_id: str) -> bool:
        return self._records.find(task_id) is not None or super().task_result_exists(task_id)

    # Waiting.

    def wait_for(
        self,
        task_id: str,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_interval: Callable[[], object] | None = None,
    ) -> Meta:
        """Return the outcome of a task, asking with back-off: from a tenth of ``interval`` to four times of it.

        Raises:
            celery.exceptions.TimeoutError: there is none after ``timeout`` seconds.
            StorageUnavailable: S3 has not answered for 30 s.
        """
        return next(meta for _, meta in self.get_many([task_id], timeout, interval, no_ack, on_interval=on_interval))

    def get_many(
        self,
        task_ids: Iterable[str],
        timeout: float | None = None,
        interval: float | None = 0.5,
        no_ack: bool = True,
        on_message: Callable[[Meta], object] | None = None,
        on_interval: Callable[[], object] | None = None,
        max_iterations: int | None = None,
        READY_STATES: frozenset[str] = states.READY_STATES,  # noqa: N803 (Celery's name)
    ) -> Iterator[tuple[str, Meta]]:
        """Yield id and outcome of each task as they come; back-off and errors as :meth:`wait_for`."""
        del no_ack
        self._ensure_not_eager()
        interval = interval or 0.5
        backoff = Backoff(first_s=interval / 10, longest_s=interval * 4, timeout=timeout)
        waiting = dict.fromkeys(task_ids)
        for passes in itertools.count(1):
            for task_id, meta in self._look(list(waiting), READY_STATES, backoff):
                del waiting[task_id]
                if on_message is not None:
                    on_message(meta)
                yield task_id, meta
            if not waiting or passes == max_iterations:
                return
            if on_interval is not None:
                on_interval()
            if backoff.is_over:
                raise CeleryTimeoutError(f"No result after {timeout} s of {len(waiting)} tasks, such as {next(iter(waiting))}.")
            time.sleep(backoff.pause_s())

    def _look(self, task_ids: list[str], ready: frozenset[str], backoff: Backoff) -> Iterator[tuple[str, Meta]]:
        """Yield what is done of the tasks, up to the first window in which nothing is."""
        if task_ids:
            # Another window each time, else tasks that never end would hide those after them.
            first = next(self._turns) * WINDOW % len(task_ids)
            task_ids = task_ids[first:] + task_ids[:first]
        for start in range(0, len(task_ids), WINDOW):
            window = task_ids[start : start + WINDOW]
            try:
                metas = ask_all(self.get_task_meta, window)
            except PassingError as error:
                backoff.note_failure(error)
                return
            done = [(id, meta) for id, meta in zip(window, metas, strict=True) if meta and meta["status"] in ready]
            backoff.note_answer(is_new=bool(done))
            if not done:
                return
            yield from done


def _meta_of(record: Record) -> Meta:
    meta: Meta = {"task_id": record.task_id, "traceback": None, "children": [], "date_done": None}
    if record.error is None:
        return {**meta, "status": states.SUCCESS, "result": json.loads(record.to_bytes())}
    error = RecognitionFailed(record.task_id, record.error.code, record.error.message)
    return {**meta, "status": states.REVOKED if record.status == "cancelled" else states.FAILURE, "result": error}
