"""The bare loop before and after, the service between them: one pair is one ratio that a busy machine moves little."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from irs.errors import SetupError
from irs.local.bench import load, usage
from irs.local.bench.report import median
from irs.local.bench.stage import Stage
from irs.local.embedded import EmbeddedCloud
from irs.local.guard import COUNTS_PATH

WARM_IMAGES = 100


def measure_pairs(stage: Stage, model: str, *, repeats: int, precision: str = "auto") -> list[dict[str, Any]]:
    """Return the raw figures of ``repeats`` pairs, each with a worker of its own.

    Raises:
        SetupError: a process failed.
    """
    return [_pair(stage, model, precision, f"{model} {precision} {number + 1}/{repeats}") for number in range(repeats)]


def bare_loop(stage: Stage, model: str, precision: str) -> dict[str, Any]:
    """Run the bare loop in a process of its own."""
    command = [sys.executable, "-m", "irs.local.bench.bare", "--model", model, "--photos", str(stage.photos[0].parent)]
    return run_program([*command, "--images", str(stage.images), "--precision", precision], "The bare loop failed")


def run_program(command: list[str], failed: str) -> dict[str, Any]:
    """Return the one line of JSON that ``command`` prints.

    Raises:
        SetupError: it ended with another code than 0; with its last line.
    """
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SetupError(f"{failed}: {(ran.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
    return dict(json.loads(ran.stdout))


def pair_median(pairs: list[dict[str, Any]], of: Callable[[dict[str, Any], dict[str, float]], float]) -> float:
    """Return the median of ``of(service, bare)`` over the pairs, bare being the mean of before and after."""
    return median([of(pair["service"], _mean(pair["bare_before"], pair["bare_after"])) for pair in pairs])


def _pair(stage: Stage, model: str, precision: str, name: str) -> dict[str, Any]:
    stage.say(f"{name}: bare loop")
    before = bare_loop(stage, model, precision)
    stage.say(f"{name}: service, {stage.images} images")
    log = stage.logs / f"worker-{name.replace('/', '-')}.log"
    with load.running_worker(stage.cloud, stage.environment(model, precision), log) as worker:
        load.run_load(stage.cloud, worker, stage.embedded.pid, stage.keys, WARM_IMAGES)
        counted = _counts(stage.embedded)
        loaded = load.run_load(stage.cloud, worker, stage.embedded.pid, stage.keys, stage.images)
        requests = {action: n - counted.get(action, 0) for action, n in _counts(stage.embedded).items()}
        peak_mb = usage.peak_rss_mb(worker.process.pid)
    return {
        "bare_before": before,
        "service": {**asdict(loaded), "images_per_s": loaded.images_per_s},
        "bare_after": bare_loop(stage, model, precision),
        "requests": requests,
        "peak_rss_mb": peak_mb,
        "cold_start_s": worker.cold_start_s,
        "worked": _last_words(worker.log),
    }


def _counts(embedded: EmbeddedCloud) -> dict[str, int]:
    key = embedded.environment["AWS_ACCESS_KEY_ID"]
    address = f"{embedded.endpoint}{COUNTS_PATH}"
    request = urllib.request.Request(address, headers={"Authorization": f"Credential={key}/"})  # noqa: S310 (our own address)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
        return dict(json.load(answer))


def _last_words(log: Path) -> dict[str, Any]:
    for line in reversed(log.read_text(errors="replace").splitlines()):
        if line.startswith("{") and json.loads(line).get("event") == "worked":
            return dict(json.loads(line))
    return {}


def _mean(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    # The bare loop itself moves by 5 to 10 % within a minute on a shared machine.
    return {name: (one[name] + other[name]) / 2 for name in ("cpu_ms", "images_per_s")}
