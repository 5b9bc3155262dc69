"""``irs worker``, ``irs status``, ``irs provision``."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from irs.cli.options import AsJson
from irs.cli.outcome import answer, end_at_once, note
from irs.cli.tables import clear_screen, show_table

if TYPE_CHECKING:
    from irs.cloud import Cloud
    from irs.monitoring.decisions import ScalerSeen
    from irs.monitoring.status import Status, WorkerSeen

WATCH_S = 2.0


def worker(
    model: Annotated[
        str | None, typer.Option(help="Model directory or torchvision architecture; else IRS_MODEL.", show_default=False)
    ] = None,
    json_logs: Annotated[bool, typer.Option("--json-logs", help="Log lines as JSON; else IRS_LOG_JSON.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Load and warm the model, say how it runs, and end.")] = False,
) -> None:
    """Run one worker until SIGTERM or Ctrl-C, which drain it.

    Without IRS_ENDPOINT_URL it works for the `irs up` of this machine, or on AWS.
    """
    if model is not None:
        # Celery's settings read the environment too.
        os.environ["IRS_MODEL"] = model
    from celery.signals import setup_logging

    from irs.cli.service import find_cloud
    from irs.errors import ModelError
    from irs.monitoring.logs import set_up_logging
    from irs.settings import read_settings
    from irs.worker import run

    if not read_settings().model:
        raise ModelError(
            "No model is named: say `irs worker --model MODEL` or set IRS_MODEL, a model directory or a torchvision"
            " architecture such as resnet18."
        )
    require_worker_extra("irs worker")
    cloud = find_cloud()
    # Asked here, not by the worker alone, so that a missing queue has its own exit code.
    cloud.queue_url(cloud.settings.requests_queue)
    set_up_logging(as_json=json_logs or cloud.settings.log_json)
    if check:
        _check(cloud)
    # A receiver, if only an empty one, keeps Celery from setting up its own.
    setup_logging.connect(lambda **_: None, weak=False)
    end_at_once(run(cloud.settings))


def _check(cloud: Cloud) -> NoReturn:
    """Say what a worker here would serve, and how."""
    from irs.worker.load import load_engine

    began = time.monotonic()
    engine = load_engine(cloud)
    took_s = time.monotonic() - began
    note(f"irs: {engine.model.name} runs on {engine.forward.device} in {engine.forward.precision}, loaded in {took_s:.1f} s")
    engine.close()
    end_at_once(0)


def status(
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew every two seconds, until Ctrl-C.")] = False,
) -> None:
    """Show what waits in the queues, and the workers."""
    from irs.cli.service import find_cloud
    from irs.errors import PassingError, Unreachable
    from irs.monitoring.status import read_status

    cloud, has_answered = find_cloud(), False
    while True:
        try:
            seen = read_status(cloud)
            has_answered = True
            if watch and sys.stdout.isatty():
                clear_screen()
            if as_json:
                answer(json.dumps(seen.to_json(), ensure_ascii=False))
            else:
                note(f"{seen.stack} at {seen.endpoint}")
                show_status(seen)
        except (PassingError, Unreachable) as error:
            if not (watch and has_answered):
                raise
            # An outage is what one watches for: it must not end the watching.
            note(f"irs: {error}")
        if not watch:
            return
        time.sleep(WATCH_S)


def provision(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line for each resource.")] = False,
) -> None:
    """Make or mend buckets, queues and topics; safe to run again."""
    from irs.cli.service import find_cloud
    from irs.provision import provision as make

    changes = [(change.resource, change.action, change.detail) for change in make(find_cloud(), dry_run=dry_run)]
    titles = ("resource", "action", "detail")
    if not as_json:
        show_table(titles, changes)
        return
    for change in changes:
        answer(json.dumps(dict(zip(titles, change, strict=True)), ensure_ascii=False))


def show_status(seen: Status) -> None:
    """Write the queues, then what the scaler decided, then the workers."""
    show_table(
        ("queue", "visible", "in flight", "delayed"),
        [(queue.queue, queue.visible, queue.in_flight, queue.delayed) for queue in seen.queues],
    )
    answer()
    if seen.scaler is not None:
        for line in _scaler_lines(seen.scaler):
            answer(line)
        answer()
    if not seen.workers:
        is_scaled = seen.scaler is not None and seen.scaler.is_leading
        note(
            "No worker runs; the scaler launches them."
            if is_scaled
            else "No worker runs: start one with `irs worker` or `irs up`."
        )
        return
    titles = ("worker", "launch", "phase", "age", "model", "busy", "busy for", "waited", "completed", "failed")
    show_table(titles, [_worker_row(one) for one in seen.workers])


def _scaler_lines(seen: ScalerSeen) -> tuple[str, ...]:
    who = seen.holder or "nobody leads"
    spent = f"${seen.spent_usd:.2f} and " if seen.spent_usd else ""
    hours = f"{spent}{seen.instance_s / 3600:.2f} instance-hours on {seen.day}"
    return f"scaler {seen.policy}, cap {seen.cap}, {hours}; {who}, {seen.age_s:.0f} s ago:", f"  {seen.reason}"


def _worker_row(seen: WorkerSeen) -> tuple[Any, ...]:
    beat = seen.beat
    busy = f"{beat.busy_slots}/{beat.slots}"
    model = beat.model.name if beat.model else None
    waited = None if beat.queued_s is None else f"{beat.queued_s:.1f} s"
    times = (f"{beat.busy_s:.0f} s", waited)
    return beat.instance, beat.launch, seen.phase, f"{seen.age_s:.0f} s", model, busy, *times, beat.completed, beat.failed


def require_worker_extra(who: str) -> None:
    """Refuse to go on without the packages that models need.

    Raises:
        MissingExtra: the extra ``worker`` is not installed.
    """
    from importlib.util import find_spec

    from irs.errors import MissingExtra

    missing = [name for name in ("torch", "torchvision", "PIL", "numpy", "safetensors") if find_spec(name) is None]
    if missing:
        raise MissingExtra(f"`{who}` needs {', '.join(missing)}: pip install 'irs[worker]'.")
