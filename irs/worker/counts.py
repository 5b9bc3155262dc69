"""What one worker has done, counted for its metrics and its line a minute: a few microseconds an image."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from celery import signals

from irs.records import Record
from irs.tally import Spread

STAGES = ("fetch", "decode", "batch", "model", "store")
#: A task runs from some milliseconds to a minute.
RUNTIME_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
#: A message that waited for longer than minutes is one of a backlog.
WAIT_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
RECEIVES = (1, 2, 3, 5)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Counts:
    """Images by how they ended, and how their time was spread. Safe for threads; reading takes ``lock``."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        #: By outcome (``ok``, ``failed``, ``cancelled``, ``returned``) and code.
        self.images: Counter[tuple[str, str]] = Counter()
        self.stages = {stage: Spread() for stage in STAGES}
        self.waits = Spread(WAIT_S)
        self.receives = Spread(RECEIVES)

    def note_answered(self, record: Record, store_s: float) -> None:
        """Count a record that was stored."""
        timing = record.timing
        with self.lock:
            self.images[record.status, record.error.code if record.error else ""] += 1
            self.receives.note(record.receives)
            if timing.queued is not None:
                self.waits.note(timing.queued)
            for stage, took_s in zip(STAGES, (timing.fetch, timing.decode, timing.batch, timing.model, store_s), strict=True):
                if took_s is not None:
                    self.stages[stage].note(took_s)

    def note_dropped(self) -> None:
        """Count an image that nobody waits for any more."""
        with self.lock:
            self.images["cancelled", ""] += 1

    def note_returned(self, code: str) -> None:
        """Count an image whose message goes back to the queue, by the code of what was away."""
        with self.lock:
            self.images["returned", code] += 1


class TaskCounts:
    """Tasks of every name by what became of them, from Celery's signals; runs from :meth:`connect` on.

    Attributes:
        ended: by what became of them, name, queue and code; ``received`` and ``started`` among them.
        runtimes: seconds in the task thread, by name and queue.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.ended: Counter[tuple[str, str, str, str]] = Counter()
        self.runtimes: dict[tuple[str, str], Spread] = {}
        # By task id: when its thread began (monotonic), and its queue.
        self._running: dict[str, tuple[float, str]] = {}

    @property
    def active(self) -> int:
        """Tasks that run now."""
        return len(self._running)

    def connect(self) -> None:
        """Begin to count."""
        # Weakly held: what is counted goes with its owner.
        signals.task_received.connect(self._received)
        signals.task_prerun.connect(self._began)
        signals.task_postrun.connect(self._ended)
        signals.task_revoked.connect(self._revoked)

    def _received(self, request: Any, **_: Any) -> None:
        with self.lock:
            self.ended["received", request.name, _queue(request.delivery_info), ""] += 1

    def _began(self, task_id: str, task: Any, **_: Any) -> None:
        queue = _queue(task.request.delivery_info)
        self._running[task_id] = (time.monotonic(), queue)
        with self.lock:
            self.ended["started", task.name, queue, ""] += 1

    def _ended(self, task_id: str, task: Any, retval: Any, state: str, **_: Any) -> None:
        began, queue = self._running.pop(task_id, (None, ""))
        what = _WORDS.get(state)
        if began is None or what is None:
            return
        code = _code(retval) if what == "failed" else ""
        with self.lock:
            self.ended[what, task.name, queue, code] += 1
            runtime = self.runtimes.get((task.name, queue))
            if runtime is None:
                runtime = self.runtimes[task.name, queue] = Spread(RUNTIME_S)
            runtime.note(time.monotonic() - began)

    def _revoked(self, request: Any, sender: Any, **_: Any) -> None:
        with self.lock:
            self.ended["revoked", sender.name, _queue(request.delivery_info), ""] += 1


#: Celery's states by what its exporter counts. An ignored task was cancelled: :meth:`TaskCounts._revoked` hears of it.
_WORDS = {"SUCCESS": "succeeded", "FAILURE": "failed", "RETRY": "retried", "REJECTED": "rejected"}


def _code(error: Any) -> str:
    # Of a failed image what its record says: that there is such a record says nothing.
    return str(getattr(error, "error_code", None) or getattr(error, "code", type(error).__name__))


def _queue(delivery_info: Any) -> str:
    return str((delivery_info or {}).get("routing_key") or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What a worker has done since its start; seconds."""

    images: int
    failed: int
    dropped: int
    returned: int
    batches: int
    batched: int
    busy_s: float
    waited: int
    waited_s: float


class Minutes:
    """Once a minute what a worker did in it, and nothing when it did nothing."""

    def __init__(self, *, now: float, every_s: float = 60.0) -> None:
        self._every_s, self._told_at = every_s, now
        self._told: Totals | None = None

    def look(self, totals: Totals, *, now: float) -> dict[str, Any] | None:
        """Return the fields of a line when one is due and there is something to tell.

        Args:
            now: by ``time.monotonic``.
        """
        if now - self._told_at < self._every_s:
            return None
        took_s, before = now - self._told_at, self._told
        self._told_at, self._told = now, totals
        done = {name: value - (getattr(before, name) if before else 0) for name, value in _numbers(totals)}
        if not any(done[name] for name in ("images", "failed", "dropped", "returned")):
            return None
        return {
            "images": done["images"],
            "failed": done["failed"],
            "dropped": done["dropped"],
            "returned": done["returned"],
            "mean_batch": round(done["batched"] / done["batches"], 2) if done["batches"] else None,
            "busy": round(min(1.0, done["busy_s"] / took_s), 3),
            "waited_s": round(done["waited_s"] / done["waited"], 3) if done["waited"] else None,
        }


def _numbers(totals: Totals) -> Iterator[tuple[str, Any]]:
    return ((name, getattr(totals, name)) for name in Totals.__dataclass_fields__)
