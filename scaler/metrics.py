"""Counters and gauges of one scaler, for Prometheus; a registry of their own, so that tests stay apart."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from irs.monitoring.metrics import exposition, registry_of
from scaler.book import Money
from scaler.loop import Step


class Metrics:
    """What ``/metrics`` tells; fed with each step. ``queue``: name of the request queue; ``policy``: what is gone by."""

    def __init__(self, queue: str, policy: str) -> None:
        self.registry = registry = registry_of()
        self._policy = policy
        self._queue = queue

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        self._leads = gauge("irs_scaler_leads", "1 while this scaler leads.")
        self._waiting = gauge("celery_queue_length", "Messages that wait.", "queue_name")
        self._inflight = gauge("irs_queue_in_flight", "Messages in work.", "queue")
        self._delayed = gauge("irs_queue_delayed", "Messages that are not visible yet.", "queue")
        self._oldest = gauge("irs_queue_oldest_seconds", "How long the message received last had waited.", "queue")
        self._workers = gauge("celery_active_worker_count", "Workers that are ready.", "queue_name")
        self._processes = gauge("celery_active_process_count", "Processes of workers that are ready.", "queue_name")
        self._by_phase = gauge("irs_scaler_instances", "Instances by phase.", "phase")
        self._running = gauge("irs_scaler_running", "Workers that are ready.")
        self._starting = gauge("irs_scaler_starting", "Workers that were asked for and are not ready yet.")
        self._need = gauge("irs_scaler_desired", "Workers that the policy wants.")
        self._rate = gauge("irs_scaler_rate_per_second", "Images a second of one worker, measured.")
        self._boot = gauge("irs_scaler_boot_seconds", "Seconds from launch to ready, measured.")
        self._looked = gauge(
            "irs_scaler_age_seconds", "Seconds since the last good look, or the start; grows while blind, or while another leads."
        )
        self._decisions = Counter(
            "irs_scaler_decisions", "Decisions by what asked for them.", ["policy", "reason"], registry=registry
        )
        self._launches = Counter("irs_scaler_launches", "Instances asked for.", registry=registry)
        self._failed = Counter("irs_scaler_failed_boots", "Boots that failed.", registry=registry)
        self._instance_seconds = Counter("irs_instance_seconds", "Seconds of instances.", registry=registry)
        self._dollars = Counter("irs_cost_dollars", "Dollars of instances.", registry=registry)
        self._spent = gauge("irs_scaler_dollars_today", "Dollars spent today (UTC).")
        self._last_good: float | None = None
        #: What the book said when this process last counted; None while another one counts.
        self._counted: Money | None = None

    def observe(self, step: Step) -> None:
        """Take one step in."""
        self._leads.set(step.leads)
        self._decisions.labels(self._policy, step.decision.kind).inc()
        if self._last_good is None:
            self._last_good = step.now
        if step.seen is None or step.fleet is None or step.book is None:
            # Of a standby too: the least age of all scalers is then that of who leads.
            self._looked.set(step.now - self._last_good)
            if not step.leads:
                self._counted = None
            return
        self._last_good = step.now
        self._looked.set(0.0)
        for gauge, value in (
            (self._waiting, step.seen.visible),
            (self._inflight, step.seen.inflight),
            (self._delayed, step.seen.delayed),
            (self._oldest, step.seen.oldest_wait_s),
        ):
            if value is not None:
                gauge.labels(self._queue).set(value)
        for phase in ("requested", "booting", "ready", "leaving", "stuck", "lost"):
            self._by_phase.labels(phase).set(step.fleet.count(phase))
        ready = step.fleet.count("ready")
        # A worker is one process, of threads.
        for gauge in (self._workers, self._processes):
            gauge.labels(self._queue).set(ready)
        self._running.set(ready)
        self._starting.set(step.fleet.count("requested", "booting"))
        for gauge, name in ((self._need, "need"), (self._rate, "rate_per_s"), (self._boot, "boot_s")):
            if name in step.decision.numbers:
                gauge.set(step.decision.numbers[name])
        self._launches.inc(step.launched)
        self._failed.inc(len(step.fleet.failed))
        spent = step.book.money
        self._spent.set(spent.usd)
        before = self._counted or spent
        # The book's sums begin anew each day; counters never fall.
        self._instance_seconds.inc(max(0.0, spent.instance_s - before.instance_s))
        self._dollars.inc(max(0.0, spent.usd - before.usd))
        self._counted = spent

    def text(self) -> tuple[bytes, str]:
        """Return the exposition and its content type."""
        return exposition(self.registry)
