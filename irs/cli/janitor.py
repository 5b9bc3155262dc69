"""``irs janitor``."""

from __future__ import annotations

import json
import signal
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from irs.cli.metrics import serve_metrics
from irs.cli.outcome import answer, end_at_once

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from irs.cloud import Cloud
    from irs.monitoring.janitor import Janitor


def janitor(
    once: Annotated[bool, typer.Option("--once", help="One round, answered as JSON, instead of one every few minutes.")] = False,
    json_logs: Annotated[bool, typer.Option("--json-logs", help="Log lines as JSON; else IRS_LOG_JSON.")] = False,
) -> None:
    """Remove queues that killed processes left, and record images whose workers died over them.

    Runs until SIGTERM or Ctrl-C. Any number may run side by side.
    """
    from irs.cli.service import find_cloud
    from irs.monitoring.janitor import Janitor
    from irs.monitoring.logs import set_up_logging

    cloud = find_cloud()
    # Said before the first round: without its queues there is nothing to look after.
    cloud.queue_url(cloud.settings.requests_dead_queue)
    set_up_logging(as_json=json_logs or cloud.settings.log_json)
    made = Janitor(cloud)
    if once:
        answer(json.dumps({**asdict(made.sweep()), "poisoned": made.record_poisoned()}))
        return
    serve_metrics(cloud.settings, cloud.settings.janitor_port, lambda: _metrics(cloud, made), setting="IRS_JANITOR_PORT")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    made.run(ended.wait)
    end_at_once(0)


def _metrics(cloud: Cloud, made: Janitor) -> Collector:
    from irs.monitoring.janitor_metrics import JanitorMetrics

    return JanitorMetrics(cloud, made)
