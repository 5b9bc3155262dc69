"""``irs drops``."""

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
    from irs.drops import Bridge

#: What is in hand at the end is given so long; else its messages come back.
STOP_S = 2.0


def drops(
    once: Annotated[
        bool, typer.Option("--once", help="Until the queue of events is empty, answered as JSON, instead of on and on.")
    ] = False,
    json_logs: Annotated[bool, typer.Option("--json-logs", help="Log lines as JSON; else IRS_LOG_JSON.")] = False,
) -> None:
    """Turn files dropped under drop/ of the input bucket into tasks, and their records into results/NAME.json.

    Runs until SIGTERM or Ctrl-C. Any number may run side by side.
    """
    from irs.cli.service import find_cloud
    from irs.drops import Bridge
    from irs.monitoring.logs import set_up_logging

    cloud = find_cloud()
    set_up_logging(as_json=json_logs or cloud.settings.log_json)
    bridge = Bridge(cloud)
    if once:
        bridge.look()
        while bridge.step(wait_s=1):
            pass
        answer(json.dumps(asdict(bridge.done)))
        return
    serve_metrics(cloud.settings, cloud.settings.drops_port, lambda: _metrics(cloud, bridge), setting="IRS_DROPS_PORT")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    # A thread of its own: a long poll cannot be broken off.
    worker = threading.Thread(target=bridge.run, args=(lambda s: ended.wait(s) if s else ended.is_set(),), daemon=True)
    worker.start()
    ended.wait()
    worker.join(STOP_S if bridge.is_busy else 0)
    end_at_once(0)


def _metrics(cloud: Cloud, bridge: Bridge) -> Collector:
    from irs.drops.metrics import DropsMetrics

    return DropsMetrics(cloud, bridge)
