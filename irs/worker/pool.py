"""The pool of task threads: Celery's thread pool without its slot leaks.

Celery's own loses a slot, and the message with it, when a task raises what is no ``Exception``; cannot grow or
shrink; and waits without end for a hung thread when it stops. Here the threads are daemons with a bounded end.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError
from celery.concurrency.base import BasePool, apply_target
from celery.utils.log import get_logger

from irs.monitoring.logs import TASK_ID
from irs.settings import get_settings

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Job:
    target: Callable[..., Any]
    args: Any
    kwargs: Any
    callback: Callable[..., Any]
    accept_callback: Callable[..., Any] | None
    error_callback: Callable[..., Any] | None


class Pool(BasePool):  # type: ignore[misc]
    """``limit`` threads, one image each.

    What a task raises, or what its outcome raises, always gives the message back: nothing keeps a slot.
    """

    limit: int
    body_can_be_buffer = True
    # Its end waits for tasks, and must not do so in a signal handler.
    signal_safe = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def on_start(self) -> None:
        self._add_threads(self.limit)

    def on_apply(
        self,
        target: Callable[..., Any],
        args: Any = None,
        kwargs: Any = None,
        callback: Callable[..., Any] | None = None,
        accept_callback: Callable[..., Any] | None = None,
        error_callback: Callable[..., Any] | None = None,
        **_: Any,
    ) -> None:
        self._jobs.put(_Job(target, args or (), kwargs or {}, callback or _nothing, accept_callback, error_callback))

    def on_stop(self) -> None:
        """Let running tasks end, at most for ``IRS_DRAIN_SECONDS``; what was not begun stays unacknowledged."""
        end = time.monotonic() + get_settings().drain_seconds
        self._forget_waiting()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        if left := sum(thread.is_alive() for thread in self._threads):
            log.error("%d tasks did not end in time: their messages come back", left)

    def on_terminate(self) -> None:
        self._forget_waiting()

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """Do nothing: a thread cannot be ended; a task that hangs ends its worker by its lease."""

    def grow(self, n: int = 1) -> None:
        """Add ``n`` threads."""
        self.limit += n
        self._add_threads(n)

    def shrink(self, n: int = 1) -> None:
        """Take away ``n`` threads, each when its task is done; one stays."""
        n = min(n, self.limit - 1)
        self.limit -= n
        for _ in range(n):
            self._jobs.put(None)

    def _get_info(self) -> dict[str, Any]:
        return {**super()._get_info(), "threads": sum(thread.is_alive() for thread in self._threads)}

    def _add_threads(self, n: int) -> None:
        with self._lock:
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            for _ in range(n):
                thread = threading.Thread(target=self._work, name="irs-task", daemon=True)
                self._threads.append(thread)
                thread.start()

    def _forget_waiting(self) -> None:
        while True:
            try:
                self._jobs.get_nowait()
            except queue.Empty:
                return

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            _run(job)


def _run(job: _Job) -> None:
    # Celery hands over name and id first. Until the next task all lines of this thread are this one's.
    TASK_ID.set(job.args[1] if len(job.args) > 1 else None)
    try:
        apply_target(job.target, job.args, job.kwargs, job.callback, job.accept_callback)
    except BaseException as error:  # the edge of a stage: whatever it is, the slot must come back
        log.error("A task ended by %r: its message comes back", error, exc_info=True)
        if job.error_callback is None:
            return
        try:
            # As Celery's process pool says it of a process that died: rejected, and back in the queue.
            raise WorkerLostError(repr(error)) from error
        except WorkerLostError:
            info = ExceptionInfo()
        try:
            job.error_callback(info)
        except BaseException:
            log.exception("A task's end could not be told: its message comes back when its lease ends")


def _nothing(*_: Any) -> None:
    pass
