"""Loading the engine: all that must be right before a worker takes its first message."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Container

from irs.cloud import Cloud
from irs.errors import MissingExtra, ModelError
from irs.worker.engine import Engine
from irs.worker.process import favour_throughput, give_back_memory, keep_freed_memory

log = logging.getLogger(__name__)


def load_engine(cloud: Cloud, *, cancelled: Container[str] = ()) -> Engine:
    """Return a loaded and warmed engine for ``IRS_MODEL`` that answers none of the tasks in ``cancelled``.

    Raises:
        ModelError: no model is named, or it cannot be used.
        MissingExtra: the extra ``worker`` is not installed.
        MissingResource, Unreachable: the queue does not answer.
    """
    # Before torch is imported: one thread a core runs the model, and OpenMP's own would fight them.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    favour_throughput()
    keep_freed_memory()
    if not cloud.settings.model:
        raise ModelError("No model is named: set IRS_MODEL to a model directory or a torchvision architecture.")
    cloud.queue_url(cloud.settings.requests_queue)
    try:
        import torch

        from irs.models import open_model
    except ModuleNotFoundError as error:
        raise MissingExtra(f"A worker needs the package {error.name}: install irs[worker].") from None
    began = time.monotonic()
    model = open_model(cloud.settings.model)
    opened = time.monotonic()
    torch.set_num_threads(1)
    engine = Engine(cloud, model, cancelled=cancelled)
    give_back_memory()
    took_s = {"open_s": round(opened - began, 3), "warm_s": round(time.monotonic() - opened, 3)}
    log.info("loaded", extra={"model": model.name, **took_s})
    return engine
