"""A worker on a core of its own, sender and cloud on the others: as on AWS, where those are elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from irs.errors import SetupError
from irs.local.bench import load
from irs.local.bench.pairs import WARM_IMAGES
from irs.local.bench.stage import Stage


def images_per_s(stage: Stage, model: str, images: int) -> float:
    """Return how many images a second one core's worker answers with ``model``, by the clock.

    Raises:
        SetupError: this machine has one core, or moves no process to another; or the worker failed.
    """
    cores = _cores()
    if len(cores) < 2:
        raise SetupError("it takes two cores")
    first, *others = sorted(cores)
    try:
        # A child begins where its parent is.
        os.sched_setaffinity(0, {first})
        environment = {**stage.environment(model), "IRS_COMPUTE_THREADS": "1"}
        name = f"worker-apart-{model.replace('/', '-')}.log"
        with load.running_worker(stage.cloud, environment, stage.logs / name) as worker:
            _move(("self", str(stage.embedded.pid)), others)
            load.run_load(stage.cloud, worker, stage.embedded.pid, stage.keys, WARM_IMAGES)
            return load.run_load(stage.cloud, worker, stage.embedded.pid, stage.keys, images).images_per_s
    finally:
        _move(("self", str(stage.embedded.pid)), cores)


def _cores() -> set[int]:
    try:
        return os.sched_getaffinity(0)
    except AttributeError:
        raise SetupError("this system tells no process its cores") from None


def _move(processes: Iterable[str], cores: Iterable[int]) -> None:
    """Put all threads of processes, by their names under /proc, on ``cores``."""
    for process in processes:
        # Threads end meanwhile, and the process may.
        with suppress(FileNotFoundError):
            for thread in Path(f"/proc/{process}/task").iterdir():
                with suppress(ProcessLookupError):
                    os.sched_setaffinity(int(thread.name), cores)
