"""A worker's ``/metrics``: what it counted, put into Prometheus' names when it is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from irs.monitoring.control import commands_obeyed
from irs.monitoring.events import read_events
from irs.monitoring.metrics import counter, gauge, histogram
from irs.tally import ACKS, Spread
from irs.worker.counts import BATCH_SIZES, TaskCounts

if TYPE_CHECKING:
    from irs.worker.engine import Engine

RECOGNIZE = "irs.recognize"
_BY_TASK = ("name", "hostname", "queue_name")
_TASKS = {
    "received": "Tasks received.",
    "started": "Tasks started.",
    "succeeded": "Tasks that succeeded.",
    "retried": "Tasks to be run again.",
    "revoked": "Tasks that were cancelled.",
    "rejected": "Tasks whose message came back to the queue.",
}
_OUTCOMES = ("ok", "failed", "cancelled", "returned")


class Monitoring(Collector):
    """Events and commands of a worker."""

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        events = read_events()
        yield counter("irs_events_sent", "Events published.", (), [((), events.sent)])
        yield counter("irs_events_dropped", "Events given up.", (), [((), events.dropped)])
        yield gauge("irs_event_lease_seconds", "How long somebody still watches tasks.", (), [((), events.lease_s)])
        commands = {(command,): float(count) for command, count in commands_obeyed().items()}
        yield counter("irs_control_commands", "Commands obeyed.", ("command",), commands.items())


class WorkerMetrics(Collector):
    """What one worker did. No label holds a job, a task or an image.

    Args:
        hostname: Celery's name of the worker.
        engine: None until the model is loaded.
        slots: how many images it works on at once.
        is_ready: whether it takes messages.
    """

    def __init__(
        self,
        *,
        hostname: str,
        queue: str,
        slots: int,
        tasks: TaskCounts,
        engine: Callable[[], Engine | None],
        is_ready: Callable[[], bool],
    ) -> None:
        self._hostname, self._queue, self._slots = hostname, queue, slots
        self._tasks, self._engine, self._is_ready = tasks, engine, is_ready

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; those of images once the model is loaded."""
        yield from self._collect_tasks()
        if (engine := self._engine()) is not None:
            yield from self._collect_images(engine)

    def _collect_tasks(self) -> Iterator[Metric]:
        tasks, host = self._tasks, (self._hostname,)
        with tasks.lock:
            ended, runtimes = tasks.ended.copy(), {key: spread.copy() for key, spread in tasks.runtimes.items()}
        for what, text in _TASKS.items():
            # From the first scrape on, so that a rate over it is one.
            counts = {(RECOGNIZE, *host, self._queue): 0.0}
            counts |= {(name, *host, queue): float(count) for (kind, name, queue, _), count in ended.items() if kind == what}
            yield counter(f"celery_task_{what}", text, _BY_TASK, counts.items())
        failed = {
            (name, *host, queue, code): float(count) for (kind, name, queue, code), count in ended.items() if kind == "failed"
        }
        yield counter("celery_task_failed", "Tasks that failed, by error code.", (*_BY_TASK, "exception"), failed.items())
        spreads = {(name, *host, queue): spread for (name, queue), spread in runtimes.items()}
        yield histogram("celery_task_runtime", "Seconds of a task in its thread.", _BY_TASK, spreads.items())
        yield gauge("celery_worker_up", "1 while the worker runs.", ("hostname",), [(host, 1.0)])
        yield gauge("celery_worker_tasks_active", "Tasks that run now.", ("hostname",), [(host, tasks.active)])

    def _collect_images(self, engine: Engine) -> Iterator[Metric]:
        counts = engine.counts
        with counts.lock:
            images, waits, receives = counts.images.copy(), counts.waits.copy(), counts.receives.copy()
            stages = {(stage,): spread.copy() for stage, spread in counts.stages.items()}
        outcomes = {(outcome, ""): 0.0 for outcome in _OUTCOMES} | {key: float(count) for key, count in images.items()}
        stages[("ack",)] = ACKS.read().get((), Spread())
        yield counter("irs_images", "Images by how they ended and code.", ("outcome", "code"), outcomes.items())
        yield histogram("irs_queue_wait_seconds", "Time from sending to receiving.", ("queue",), [((self._queue,), waits)])
        yield histogram("irs_stage_seconds", "Time of an image in each stage.", ("stage",), stages.items())
        sizes = Spread(BATCH_SIZES)
        for size, calls in engine.batches_by_size.items():
            sizes.note(size, calls)
        model, digest = engine.model.name, engine.model.digest
        yield histogram("irs_batch_size", "Images of a model call.", ("model",), [((model,), sizes)])
        yield histogram("irs_receives_per_image", "How often the message had been received.", (), [((), receives)])
        labels = ("model", "digest")
        for name, text, value in (
            ("irs_slots", "Images it works on at once.", self._slots),
            ("irs_slots_busy", "Images in work now.", engine.busy_slots),
            ("irs_model_loaded_info", "The model that is loaded.", 1),
            ("irs_ready", "1 while it takes messages.", self._is_ready()),
        ):
            yield gauge(name, text, labels, [((model, digest), float(value))])
