"""A scaler as a process: the loop on real clocks, EC2 and S3, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from types import FrameType

from irs.cloud import Cloud
from irs.errors import IrsError
from irs.monitoring.endpoint import serve
from scaler import prices
from scaler.book import Book
from scaler.ec2 import connect
from scaler.lease import Lease
from scaler.loop import Loop, Plan, Step
from scaler.metrics import Metrics
from scaler.model import CurrentModel
from scaler.observation import Pair
from scaler.orders import S3Orders
from scaler.settings import from_settings
from scaler.signals import LiveSignals
from scaler.store import S3Store

log = logging.getLogger(__name__)

#: A lease lives for three renewals at least.
RENEWALS = 3
#: A loop that took no step for so long hangs.
HUNG_S = 60.0


class DryLease(Lease):
    """Leads nothing and writes nothing: for a look at what would be decided."""

    def acquire(self) -> tuple[Book, bool] | None:
        """Return the book as it stands."""
        stored = self._store.read(self._clock())
        return (Book(), False) if stored is None else (stored.book, True)

    def is_valid(self) -> bool:
        """Never."""
        return False


class Scaler:
    """One scaler of a stack. ``step`` is for the caller's rhythm; ``run`` keeps its own.

    Raises:
        SetupError: settings, store or EC2 are not as they must be.
    """

    def __init__(self, cloud: Cloud, *, dry: bool = False) -> None:
        settings = cloud.settings
        store = S3Store(cloud)
        if not dry:
            store.probe()
        kind = DryLease if dry else Lease
        lease = kind(
            store,
            holder=f"{socket.gethostname()}/{os.getpid()}",
            ttl_s=max(settings.scaler_lease_seconds, RENEWALS * settings.scaler_period_seconds),
            nonce=lambda: uuid.uuid4().hex,
            clock=time.monotonic,
        )
        ec2 = connect(cloud)
        ec2.check()
        self.plan = make_plan(cloud, ec2.candidates, dry=dry)
        self.metrics = Metrics(settings.requests_queue, self.plan.policy_name)
        self.loop = Loop(
            self.plan,
            lease=lease,
            ec2=ec2,
            signals=LiveSignals(cloud),
            orders=S3Orders(cloud, wall=time.time),
            clock=time.monotonic,
            wall=time.time,
            current_model=CurrentModel(cloud, clock=time.monotonic),
        )
        self._step: Step | None = None
        self._stepped_at = time.monotonic()

    def step(self) -> Step:
        """Take one step, tell it and count it."""
        before, step = self._step, self.loop.step()
        self._step, self._stepped_at = step, time.monotonic()
        self.metrics.observe(step)
        _tell(step, before)
        return step

    def run(self, ended: threading.Event) -> None:
        """Step every period until ``ended`` is set; then hand the lease on."""
        period_s = self.plan.policy.period_s
        due = time.monotonic()
        try:
            while not ended.is_set():
                try:
                    self.step()
                except IrsError as error:
                    log.warning("step failed", extra={"reason": str(error)})
                except Exception:  # the edge of the main loop: the next look may be a good one
                    log.exception("step broken")
                # A period that was missed is not made up for.
                due = max(due + period_s, time.monotonic())
                ended.wait(due - time.monotonic())
        finally:
            self.loop.close()

    def why_not_alive(self) -> str | None:
        """Return why this process is of no use any more, or None."""
        since_s = time.monotonic() - self._stepped_at
        return f"no step for {since_s:.0f} s" if since_s > max(HUNG_S, 3 * self.plan.policy.period_s) else None

    def why_not_ready(self) -> str | None:
        """Return why nothing can be decided now, or None; a standby is ready."""
        if self._step is None:
            return "no step yet"
        return self._step.decision.reason if self._step.decision.kind in ("blind", "stale-reading") else None


def make_plan(cloud: Cloud, candidates: tuple[Pair, ...], *, dry: bool = False) -> Plan:
    """Return what the settings say. Raises SetupError."""
    settings = cloud.settings
    return Plan(
        policy=replace(from_settings(settings), candidates=candidates),
        policy_name=f"price {settings.scaler_value:g}" if settings.scaler_value else settings.scaler_policy,
        fleet=settings.stack,
        pool=settings.scaler_pool,
        prices=prices.from_settings(settings, candidates),
        dry=dry,
    )


def serve_until_signal(cloud: Cloud, *, dry: bool = False, say: Callable[[str], None] = lambda _: None) -> None:
    """Run a scaler in the main thread until SIGTERM or SIGINT. Raises SetupError before it begins."""
    # Asked first, so that a missing queue or a silent endpoint has its own sentence and exit code.
    cloud.queue_url(cloud.settings.requests_queue)
    scaler = Scaler(cloud, dry=dry)
    ended = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        ended.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    port = cloud.settings.scaler_port
    server = None
    if port >= 0:
        host = cloud.settings.metrics_host
        server = serve(
            host,
            port,
            metrics=scaler.metrics.text,
            why_not_alive=scaler.why_not_alive,
            why_not_ready=scaler.why_not_ready,
            setting="IRS_SCALER_PORT",
        )
        say(f"http://{host}:{server.server_port}/metrics")
    try:
        scaler.run(ended)
    finally:
        if server is not None:
            server.shutdown()
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell(step: Step, before: Step | None) -> None:
    """Log who came and who went, and each decision: what changes something, or says something new, as news."""
    if step.fleet is not None:
        for boot in step.fleet.boots:
            log.info("ready", extra={"instance": boot.id, "after_s": round(boot.took_s, 1)})
        for id in sorted(step.fleet.gone - step.fleet.failed):
            log.info("gone", extra={"instance": id})
    decision = step.decision
    acts = bool(decision.launch or decision.cancel or step.ended or (before and decision.retire != before.decision.retire))
    is_new = before is None or before.decision.kind != decision.kind or before.leads != step.leads
    fields = {
        "kind": decision.kind,
        "launch": decision.launch,
        "retire": len(decision.retire),
        "cancel": len(decision.cancel),
        "ended": len(step.ended),
        "reason": decision.reason,
        **{name: round(value, 4) for name, value in decision.numbers.items()},
    }
    level = logging.WARNING if decision.kind in ("blind", "breaker", "budget") and is_new else logging.INFO
    log.log(level if acts or is_new else logging.DEBUG, "decided", extra=fields)
