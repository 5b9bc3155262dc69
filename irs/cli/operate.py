"""``irs worker``, ``irs status``, ``irs provision``."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from irs.cli.outcome import answer, end_at_once, note
from irs.cli.tables import show_table

if TYPE_CHECKING:
    from irs.monitoring.status import Status, WorkerSeen

AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs.")]


def worker(
    model: Annotated[
        str | None, typer.Option(help="Model directory or torchvision architecture; else IRS_MODEL.", show_default=False)
    ] = None,
    json_logs: Annotated[bool, typer.Option("--json-logs", help="Log lines as JSON; else IRS_LOG_JSON.")] = False,
) -> None:
    """Run one worker until SIGTERM or Ctrl-C, which drain it."""
    if model is not None:
        # Celery's settings read the environment too.
        os.environ["IRS_MODEL"] = model
    from celery.signals import setup_logging

    from irs.cloud import get_cloud
    from irs.errors import ModelError
    from irs.monitoring.logs import set_up_logging
    from irs.worker import run

    cloud = get_cloud()
    if not cloud.settings.model:
        raise ModelError(
            "No model is named: say `irs worker --model MODEL` or set IRS_MODEL, a model directory or a torchvision"
            " architecture such as resnet18."
        )
    require_worker_extra("irs worker")
    # Asked here, not by the worker alone, so that a missing queue has its own exit code.
    cloud.queue_url(cloud.settings.requests_queue)
    set_up_logging(as_json=json_logs or cloud.settings.log_json)
    # A receiver, if only an empty one, keeps Celery from setting up its own.
    setup_logging.connect(lambda **_: None, weak=False)
    end_at_once(run(cloud.settings))


def status(as_json: AsJson = False) -> None:
    """Show what waits in the queues, and the workers."""
    from irs.cli.service import find_cloud
    from irs.monitoring.status import read_status

    seen = read_status(find_cloud())
    if as_json:
        answer(json.dumps(seen.to_json(), ensure_ascii=False))
        return
    note(f"{seen.stack} at {seen.endpoint}")
    show_status(seen)


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
    """Write the queues, then the workers, as two tables."""
    show_table(
        ("queue", "visible", "in flight", "delayed"),
        [(queue.queue, queue.visible, queue.in_flight, queue.delayed) for queue in seen.queues],
    )
    answer()
    if not seen.workers:
        note("No worker runs: start one with `irs worker` or `irs up`.")
        return
    show_table(("worker", "phase", "age", "model", "busy", "completed", "failed"), [_worker_row(one) for one in seen.workers])


def _worker_row(seen: WorkerSeen) -> tuple[Any, ...]:
    beat = seen.beat
    busy = f"{beat.busy_slots}/{beat.slots}"
    model = beat.model.name if beat.model else None
    return beat.instance, seen.phase, f"{seen.age_s:.0f} s", model, busy, beat.completed, beat.failed


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
