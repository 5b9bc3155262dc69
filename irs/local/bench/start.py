"""From nothing to the first answer: one photo is handed in while no worker runs, and each stage is timed.

The scaler and the worker are those of ``irs up``; the stages are read from what they log, from the worker's beat and
its process.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from irs import records
from irs.errors import NotFound, SetupError
from irs.local import sidecars
from irs.local.bench import load
from irs.local.bench.stage import Stage
from irs.local.signals import Signals
from irs.records import Beat

WITHIN_S = 120.0
LOOK_S = 0.01
#: In the order of time; seconds each.
STAGES = (
    ("queue seen, launch decided", "decide"),
    ("instance boots, process begins", "boot"),
    ("Python, Celery, torch imported", "begin"),
    ("queue found, model opened", "open"),
    ("model fused, traced, checked, warmed", "warm"),
    ("consumer ready", "subscribe"),
    ("message received, photo answered", "answer"),
)


def measure_starts(stage: Stage, model: str, *, repeats: int) -> Iterator[dict[str, float]]:
    """Yield the seconds of each stage by its short name, and ``total``, once for each repeat.

    Raises:
        SetupError: no answer came within two minutes, or the scaler's extra is missing.
    """
    os.environ.update(IRS_MODEL=model, IRS_LOG_JSON="1")
    with Signals() as signals:
        scaler = sidecars.find_scaler(stage.cloud, stage.say, at_parents_end=signal.SIGKILL)
        if scaler is None:
            raise SetupError("The scaler starts the workers: pip install 'irs[scaler]'.")
        try:
            for _ in range(repeats):
                yield _measure(stage, scaler)
                _end_workers(stage, scaler)
        finally:
            scaler.end(signals)


def _measure(stage: Stage, scaler: sidecars.ScalerDaemon) -> dict[str, float]:
    # Only once it leads: what is measured is a scaler at work, not the start of one.
    _until(lambda: "decided" in _events(scaler.log), scaler, "the scaler does not lead")
    said = len(_lines(scaler.log))
    job = records.new_job_id()
    begun = time.time()
    load.send(job, stage.keys[:1])
    key = records.record_key(records.task_id(job, 0))
    _until(lambda: _find(stage, key) is not None, scaler, "no answer came")
    answered = time.time()
    instance = str(json.loads(_find(stage, key) or b"{}")["worker"]).removeprefix("irs@")
    decided = next(_at(line) for line in _lines(scaler.log)[said:] if line.get("event") == "decided" and line.get("launch"))
    beat = Beat.from_json(stage.cloud.output.get(records.beat_key(instance)))
    loaded = next(
        line for line in _lines(stage.cloud.settings.home / "instances" / f"{instance}.log") if line.get("event") == "loaded"
    )
    process_began = _process_began(beat.pid)
    ready = beat.started + (beat.ready_after_s or 0.0)
    warmed = _at(loaded)
    warm = float(loaded["warm_s"])
    return {
        "decide": decided - begun,
        # The process may begin before the decision that asked for it is logged.
        "boot": max(0.0, process_began - decided),
        "begin": beat.started - process_began,
        "open": warmed - warm - beat.started,
        "warm": warm,
        "subscribe": ready - warmed,
        "answer": answered - ready,
        "total": answered - begun,
    }


def _end_workers(stage: Stage, scaler: sidecars.ScalerDaemon) -> None:
    ec2 = stage.cloud.client("ec2")

    def alive() -> list[str]:
        states = [{"Name": "instance-state-name", "Values": ["pending", "running", "shutting-down"]}]
        found = ec2.describe_instances(Filters=states)["Reservations"]
        return [one["InstanceId"] for reservation in found for one in reservation["Instances"]]

    if ids := alive():
        ec2.terminate_instances(InstanceIds=ids)
    _until(lambda: not alive(), scaler, "a worker does not end")


def _until(check: Any, scaler: sidecars.ScalerDaemon, otherwise: str) -> None:
    end = time.monotonic() + WITHIN_S
    while not check():
        scaler.tend()
        if scaler.failures or time.monotonic() > end:
            raise SetupError(f"Nothing measured, {otherwise}: {scaler.failed or f'the log is {scaler.log}'}")
        time.sleep(LOOK_S)


def _find(stage: Stage, key: str) -> bytes | None:
    try:
        return stage.cloud.output.get(key)
    except NotFound:
        return None


def _lines(log: Path) -> list[dict[str, Any]]:
    if not log.exists():
        return []
    return [json.loads(line) for line in log.read_text(errors="replace").splitlines() if line.startswith("{")]


def _events(log: Path) -> list[str]:
    return [str(line.get("event")) for line in _lines(log)]


def _at(line: dict[str, Any]) -> float:
    return datetime.fromisoformat(line["at"]).timestamp()


def _process_began(pid: int) -> float:
    """Return when a process began, Unix seconds, by the kernel's clock ticks since the machine's start."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    up_s = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - up_s + ticks / os.sysconf("SC_CLK_TCK")
