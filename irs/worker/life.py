"""A worker's life: load and warm, say how it is, take messages, drain, end.

:class:`EngineStep` hangs on the Celery app as a worker bootstep, so ``irs worker`` and
``celery -A irs.app worker`` live the same life. The engine ends by the signal ``worker_shutdown``, after the
pool: running tasks still need it while they drain.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import replace
from http.server import ThreadingHTTPServer
from typing import Any

from celery import bootsteps, signals
from celery.worker import state as worker_state
from kombu.asynchronous import get_event_loop

from irs import broker
from irs.broker import Health
from irs.cloud import Cloud, first_line, get_cloud
from irs.errors import MissingExtra, MissingResource, SetupError, Unreachable
from irs.monitoring.endpoint import serve
from irs.records import Beat, Phase, beat_key
from irs.worker.cancelled import CancelledIds
from irs.worker.card import RENEWED_S, store_card
from irs.worker.counts import Minutes, TaskCounts, Totals
from irs.worker.directions import Directions
from irs.worker.engine import Engine
from irs.worker.load import load_engine
from irs.worker.metadata import find_metadata
from irs.worker.spot import Spot

log = logging.getLogger(__name__)

#: While there is work, or an order to retire.
BUSY_BEAT_S = 5.0
IDLE_BEAT_S = 15.0
LOOK_S = 0.25
#: An image that waited out its time for the model keeps the worker unready for this long.
STUCK_S = 120.0
#: What was cancelled is asked for while the model is loaded: a start is not held up for longer.
FIRST_DIRECTIONS_S = 10.0


class EngineStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Loads the engine before the worker takes its first message, and puts it on the app."""

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._life: Life | None = None

    def start(self, parent: Any) -> None:
        """Load and warm; end the worker with one sentence when that fails."""
        cloud = get_cloud()
        self._life = Life(cloud)
        signals.worker_ready.connect(self._ready, weak=False)
        signals.worker_shutting_down.connect(self._draining, weak=False)
        signals.worker_shutdown.connect(self._stopped, weak=False)
        try:
            self._life.begin()
        except SetupError as error:
            log.critical("%s", error)
            self._life.end()
            # As `irs` ends: what does not answer may answer a supervisor's next worker, the rest would not.
            raise SystemExit(3 if isinstance(error, MissingResource | Unreachable) else 2) from None
        parent.app.engine = self._life.engine
        # For who is told by remote control, sooner than the output bucket says so.
        parent.app.cancelled = self._life.cancelled

    def _ready(self, **_: Any) -> None:
        if self._life:
            self._life.ready()

    def _draining(self, **_: Any) -> None:
        if self._life:
            self._life.drain()

    def _stopped(self, **_: Any) -> None:
        if self._life:
            self._life.end()


class Life:
    """Phase, beat and readiness of this worker, and when it leaves by itself.

    The beat is stored at each change of phase, every 5 s while busy or told to retire, and every 15 s when idle.
    """

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self.engine: Engine | None = None
        now = time.time()
        self._beat = Beat(
            instance=cloud.settings.instance_id,
            boot=uuid.uuid4().hex,
            host=socket.gethostname(),
            pid=os.getpid(),
            phase="starting",
            at=now,
            started=now,
            slots=cloud.settings.slots,
        )
        self._launch: str | None = cloud.settings.launch or None
        self._last_phase: Phase = "stopped"
        self._busy_s = 0.0
        self._done = 0
        self._idle_since: float | None = None
        self._carded_s = float("-inf")
        # Of the last look, and of the last beat; by ``time.monotonic``.
        self._seen_s = self._said_s = time.monotonic()
        self._said: Phase | None = None
        #: By ``time.monotonic``: since when nothing is in hand.
        self._rests_since: float | None = None
        # A queue, and no event: a signal's handler may say something while its thread is just saying something, and
        # would wait for ever for a lock which that thread holds.
        self._changed: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._keep_saying, name="irs-beat", daemon=True)
        self._directions: Directions | None = None
        self._health: ThreadingHTTPServer | None = None
        self._tasks = TaskCounts()
        self._minutes = Minutes(now=time.monotonic())
        self._spot: Spot | None = None

    def begin(self) -> None:
        """Load and warm the model; blocks for seconds. Raises as :func:`load_engine`."""
        if metadata := find_metadata(os.environ):
            self._spot = Spot(metadata, on_launch=self._note_launch, on_notice=lambda why: self._leave("interrupted", why))
        directions = self._directions = Directions(self._cloud, launch=lambda: self._launch)
        self._thread.start()
        if self._cloud.settings.health_port >= 0:
            self._health = self._serve()
        self._say("warming")
        self.engine = load_engine(self._cloud, cancelled=directions.cancelled)
        directions.wait_first(FIRST_DIRECTIONS_S)

    @property
    def cancelled(self) -> CancelledIds | None:
        """What this worker knows to be cancelled; None before it begins."""
        return self._directions.cancelled if self._directions else None

    def ready(self) -> None:
        """The queue is being polled: from here on the worker takes messages."""
        if self._beat.phase != "warming":
            # Told to stop meanwhile.
            return
        took_s = time.time() - self._beat.started
        self._beat = replace(self._beat, ready_after_s=took_s)
        self._idle_since = time.time()
        self._say("ready")
        engine = self.engine
        if engine is not None:
            log.info(
                "ready",
                extra={
                    "model": engine.model.name,
                    "digest": engine.model.digest,
                    "device": engine.forward.device,
                    "precision": engine.forward.precision,
                    "after_s": round(took_s, 2),
                },
            )

    def drain(self) -> None:
        """SIGTERM came: what is in work ends in ``IRS_DRAIN_SECONDS``. Runs in a signal handler: no I/O."""
        if self.engine is not None:
            self.engine.drain(self._cloud.settings.drain_seconds)
        self._say("interrupted" if self._last_phase == "interrupted" else "draining")

    def end(self) -> None:
        """Send the last news and the last beat; at most some seconds."""
        if self._spot is not None:
            self._spot.end()
        if self._directions is not None:
            self._directions.end()
        if self.engine is not None:
            self.engine.close()
            log.info(
                "worked",
                extra={
                    "completed": self.engine.completed,
                    "failed": self.engine.failed,
                    "dropped": self.engine.dropped,
                    "mean_batch": round(self.engine.mean_batch, 2),
                    "busy_s": round(self._busy_s, 1),
                },
            )
        self._say(self._last_phase)
        self._ended.set()
        self._changed.put(None)
        self._thread.join(timeout=5)
        if self._health is not None:
            self._health.shutdown()

    def why_not_ready(self) -> str | None:
        """Return why no message may be taken now, or None."""
        engine, health = self.engine, broker.health()
        if self._beat.phase not in ("ready", "busy", "paused") or engine is None:
            return self._beat.phase
        if not engine.is_storage_open:
            return "S3 does not answer"
        if health.stuck:
            return f"{health.stuck} tasks hang"
        if engine.last_stuck_at is not None and time.monotonic() - engine.last_stuck_at < STUCK_S:
            return "an image waited in vain for the model"
        if not health.polling_ok:
            return "SQS does not answer"
        return None

    def _serve(self) -> ThreadingHTTPServer:
        try:
            from irs.worker.metrics import Monitoring, WorkerMetrics
        except ModuleNotFoundError as error:
            raise MissingExtra(f"IRS_HEALTH_PORT needs {error.name}: pip install 'irs[worker]'.") from None
        from irs.monitoring.metrics import exposition, registry_of

        settings = self._cloud.settings
        # Counted where somebody looks: elsewhere no image pays for it.
        self._tasks.connect()
        worker = WorkerMetrics(
            hostname=f"irs@{settings.instance_id}",
            queue=settings.requests_queue,
            slots=settings.slots,
            tasks=self._tasks,
            engine=lambda: self.engine,
            is_ready=lambda: self.why_not_ready() is None,
        )
        metrics = registry_of(worker, Monitoring())
        return serve(
            settings.metrics_host,
            settings.health_port,
            metrics=lambda: exposition(metrics),
            why_not_ready=self.why_not_ready,
            setting="IRS_HEALTH_PORT",
        )

    def _tell_minute(self, now_s: float) -> None:
        engine = self.engine
        if engine is None:
            return
        counts = engine.counts
        with counts.lock:
            waited, waited_s = counts.waits.count, counts.waits.sum
            returned = sum(count for (outcome, _), count in counts.images.items() if outcome == "returned")
        sizes = engine.batches_by_size
        totals = Totals(
            images=engine.completed + engine.failed,
            failed=engine.failed,
            dropped=engine.dropped,
            returned=returned,
            batches=sum(sizes.values()),
            batched=sum(size * calls for size, calls in sizes.items()),
            busy_s=self._busy_s,
            waited=waited,
            waited_s=waited_s,
        )
        if fields := self._minutes.look(totals, now=now_s):
            log.info("minute", extra=fields)

    def _note_launch(self, launch: str) -> None:
        self._launch = self._launch or launch

    def _say(self, phase: Phase) -> None:
        self._beat = replace(self._beat, phase=phase)
        self._changed.put(None)

    def _keep_saying(self) -> None:
        is_last = False
        while not is_last:
            with suppress(queue.Empty):
                self._changed.get(timeout=LOOK_S)
            # Asked before the phase is read: the end may come while an earlier beat is on its way.
            is_last = self._ended.is_set()
            try:
                self._look_around(is_last=is_last)
            except Exception:  # the edge of a main loop: a worker without a beat counts as dead, and never leaves
                log.exception("look_failed")

    def _look_around(self, *, is_last: bool) -> None:
        now_s, health = time.monotonic(), broker.health()
        busy = bool(self.engine and self.engine.busy_slots)
        self._busy_s += (now_s - self._seen_s) if busy else 0.0
        self._seen_s = now_s
        self._look(health, busy=busy)
        self._tell_minute(now_s)
        phase = self._phase(busy=busy)
        if phase in ("draining", "interrupted") and phase != self._said:
            _wake_hub()
        if self.engine is not None and now_s - self._carded_s >= RENEWED_S:
            self._carded_s = now_s
            store_card(self._cloud, self.engine.model)
        is_watched = busy or phase == "retiring"
        # The last one always, for its counters.
        if is_last or phase != self._said or now_s - self._said_s >= (BUSY_BEAT_S if is_watched else IDLE_BEAT_S):
            self._store(phase, busy=busy)
            self._said, self._said_s = phase, now_s
        if not is_last and self._beat.phase == "ready":
            self._leave_if_due(health)

    def _look(self, health: Health, *, busy: bool) -> None:
        """Notice work, also what came and was done between two looks."""
        done = self.engine.completed + self.engine.failed + self.engine.dropped if self.engine else 0
        has_work = busy or health.held > 0 or done != self._done
        self._done = done
        self._rests_since = None if has_work else self._rests_since or time.monotonic()
        if self._directions is not None:
            self._directions.remind(is_busy=has_work)
            if has_work:
                self._directions.outliving.note_work()

    def _leave_if_due(self, health: Health) -> None:
        if health.stuck or (self.engine and self.engine.is_hung):
            self._give_up()
        elif self._directions is None:
            return
        elif self._directions.retirement.is_over(health, idle_since=self._rests_since):
            order = self._directions.retirement.order
            told = f"told to {order.order if order else 'retire'}"
            self._leave("drained", f"{told}: {order.why}" if order and order.why else told)
        elif self._rests_since is not None and self._directions.outliving.is_over(self._launch):
            self._leave("drained", f"neither a message nor a scaler for {self._cloud.settings.outlive_seconds:g} s")

    def _give_up(self) -> None:
        """A task hangs and cannot be ended: only a fresh process has all its slots. Drain, then leave the rest."""
        log.critical("stuck", extra={"tasks": broker.health().stuck})
        worker_state.should_stop = os.EX_SOFTWARE
        self.drain()

    def _leave(self, last_phase: Phase, why: str) -> None:
        """Drain as at SIGTERM, and say ``last_phase`` at the end: from here on there is no way back."""
        with self._lock:
            if self._last_phase != "stopped":
                return
            self._last_phase = last_phase
        log.info("leaving", extra={"as": last_phase, "why": why})
        worker_state.should_stop = os.EX_OK
        self.drain()

    def _phase(self, *, busy: bool) -> Phase:
        if self._beat.phase != "ready":
            return self._beat.phase
        if self.engine is not None and not self.engine.is_storage_open:
            return "paused"
        if self._directions is not None and self._directions.retirement.order:
            return "retiring"
        return "busy" if busy else "ready"

    def _store(self, phase: Phase, *, busy: bool) -> None:
        engine = self.engine
        self._idle_since = None if busy else self._idle_since or time.time()
        beat = replace(
            self._beat,
            phase=phase,
            at=time.time(),
            launch=self._launch,
            busy_s=round(self._busy_s, 3),
            idle_since=self._idle_since,
        )
        if engine is not None:
            beat = replace(
                beat,
                model=engine.facts,
                busy_slots=engine.busy_slots,
                completed=engine.completed,
                failed=engine.failed,
                queued_s=engine.last_queued_s,
            )
        try:
            self._cloud.output.put(beat_key(beat.instance), beat.to_bytes(), content_type="application/json")
        except Exception as error:  # the edge of a stage: a beat is a hint, the next one says the same
            log.warning("beat_lost", extra={"reason": first_line(error)})


def _wake_hub() -> None:
    """Make kombu's event loop see at once that the worker is to stop.

    A signal does not wake it, and with a timer ahead, such as a heartbeat's, it sleeps for up to ten seconds.
    """
    hub = get_event_loop()
    if hub is not None:
        hub.call_soon(lambda: None)
