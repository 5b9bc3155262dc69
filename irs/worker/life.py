"""A worker's life: load and warm, say how it is, take messages, drain, end.

:class:`EngineStep` hangs on the Celery app as a worker bootstep, so ``irs worker`` and
``celery -A irs.app worker`` live the same life. The engine ends by the signal ``worker_shutdown``, after the
pool: running tasks still need it while they drain.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from celery import bootsteps, signals
from celery.worker import state as worker_state

from irs import broker
from irs.cloud import Cloud, get_cloud
from irs.errors import IrsError, MissingExtra, ModelError, SetupError
from irs.records import Beat, Phase, beat_key
from irs.worker.engine import Engine

log = logging.getLogger(__name__)

BUSY_BEAT_S = 5.0
IDLE_BEAT_S = 15.0
LOOK_S = 0.25
#: An image that waited out its time for the model keeps the worker unready for this long.
STUCK_S = 120.0


def load_engine(cloud: Cloud) -> Engine:
    """Return a loaded and warmed engine for ``IRS_MODEL``.

    Raises:
        ModelError: no model is named, or it cannot be used.
        MissingExtra: the extra ``worker`` is not installed.
        MissingResource, Unreachable: the queue does not answer.
    """
    # Before torch is imported: one thread a core runs the model, and OpenMP's own would fight them.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if not cloud.settings.model:
        raise ModelError("No model is named: set IRS_MODEL to a model directory or a torchvision architecture.")
    cloud.queue_url(cloud.settings.requests_queue)
    try:
        from irs.models import open_model
    except ModuleNotFoundError as error:
        raise MissingExtra(f"A worker needs the package {error.name}: install irs[worker].") from None
    model = open_model(cloud.settings.model)
    import torch

    torch.set_num_threads(1)
    engine = Engine(cloud, model)
    _give_back_memory()
    return engine


def _give_back_memory() -> None:
    """Return what loading took and freed to the system: some 150 MB that the C library would keep for itself."""
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


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
            raise SystemExit(2) from None
        parent.app.engine = self._life.engine

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
    """Phase, beat and readiness of this worker. The beat is stored at each change of phase, every 5 s while
    busy and every 15 s when idle."""

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
        self._busy_s = 0.0
        self._idle_since: float | None = None
        self._changed = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_saying, name="irs-beat", daemon=True)
        self._health: ThreadingHTTPServer | None = None

    def begin(self) -> None:
        """Load and warm the model; blocks for seconds. Raises as :func:`load_engine`."""
        self._thread.start()
        if self._cloud.settings.health_port >= 0:
            self._health = _serve_health(self, self._cloud.settings.health_port)
        self._say("warming")
        self.engine = load_engine(self._cloud)

    def ready(self) -> None:
        """The queue is being polled: from here on the worker takes messages."""
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
                    "device": engine.forward.device,
                    "precision": engine.forward.precision,
                    "after_s": round(took_s, 2),
                },
            )

    def drain(self) -> None:
        """SIGTERM came: what is in work ends in ``IRS_DRAIN_SECONDS``. Runs in a signal handler: no I/O."""
        if self.engine is not None:
            self.engine.drain(self._cloud.settings.drain_seconds)
        self._say("draining")

    def end(self) -> None:
        """Send the last news and the last beat; at most some seconds."""
        if self.engine is not None:
            self.engine.close()
            log.info(
                "worked",
                extra={
                    "completed": self.engine.completed,
                    "failed": self.engine.failed,
                    "mean_batch": round(self.engine.mean_batch, 2),
                    "busy_s": round(self._busy_s, 1),
                },
            )
        self._say("stopped")
        self._ended.set()
        self._changed.set()
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

    def _say(self, phase: Phase) -> None:
        self._beat = replace(self._beat, phase=phase)
        self._changed.set()

    def _keep_saying(self) -> None:
        last_s = seen_s = time.monotonic()
        said: Phase | None = None
        while True:
            self._changed.wait(LOOK_S)
            self._changed.clear()
            # Asked before the phase is read: the end may come while an earlier beat is on its way.
            is_last = self._ended.is_set()
            now_s = time.monotonic()
            busy = bool(self.engine and self.engine.busy_slots)
            self._busy_s += (now_s - seen_s) if busy else 0.0
            seen_s = now_s
            phase = self._phase(busy=busy)
            if phase != said or now_s - last_s >= (BUSY_BEAT_S if busy else IDLE_BEAT_S):
                self._store(phase, busy=busy)
                said, last_s = phase, now_s
            if is_last:
                return
            if self._beat.phase == "ready" and (broker.health().stuck or (self.engine and self.engine.is_hung)):
                self._give_up()

    def _give_up(self) -> None:
        """A task hangs and cannot be ended: only a fresh process has all its slots. Drain, then leave the rest."""
        log.critical("stuck", extra={"tasks": broker.health().stuck})
        worker_state.should_stop = os.EX_SOFTWARE
        self.drain()

    def _phase(self, *, busy: bool) -> Phase:
        if self._beat.phase != "ready":
            return self._beat.phase
        if self.engine is not None and not self.engine.is_storage_open:
            return "paused"
        return "busy" if busy else "ready"

    def _store(self, phase: Phase, *, busy: bool) -> None:
        engine = self.engine
        self._idle_since = None if busy else self._idle_since or time.time()
        beat = replace(self._beat, phase=phase, at=time.time(), busy_s=round(self._busy_s, 3), idle_since=self._idle_since)
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
        except IrsError as error:
            # A beat is a hint: the next one says the same.
            log.warning("beat_lost", extra={"reason": str(error)})


def _serve_health(life: Life, port: int) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            why = life.why_not_ready() if self.path == "/readyz" else None
            known = self.path in ("/readyz", "/healthz")
            text = f"{why or ('ok' if known else 'try /healthz or /readyz')}\n".encode()
            self.send_response(404 if not known else 503 if why else 200)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="irs-health", daemon=True).start()
    log.info("health", extra={"address": f"http://127.0.0.1:{server.server_port}/readyz"})
    return server
