"""What jobs cost, for the detail of an image: asked for again only when a job went on, and not too often."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass

import anyio
from anyio import to_thread

from irs.cloud import Cloud
from irs.monitoring.cost import Cost, price_of, read_cost
from webui.problems import Problem
from webui.view import JobView

#: Each record is read for it: of a running job seldom, of a large one not here.
KEPT_S, MOST_IMAGES, MOST_KEPT = 30.0, 5000, 200


@dataclass(frozen=True, slots=True)
class _Kept:
    cost: Cost
    done: int
    asked_s: float


class Costs:
    """Costs of jobs, one being added up at a time."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._turn = anyio.Lock()

    async def of(self, job: JobView) -> Cost:
        """Return what a job has cost so far; up to half a minute old while it runs.

        Raises:
            Problem: it has no result yet, or too many for this.
            StorageUnavailable: S3 does not answer.
        """
        if not job.done:
            raise Problem("not_found", "Nothing has a result yet, so there is nothing to add up.")
        if job.done > MOST_IMAGES:
            raise Problem("not_found", f"More than {MOST_IMAGES:,} images are not added up here: use `irs cost {job.id}`.")
        async with self._turn:
            kept = self._kept.get(job.id)
            if kept is None or (kept.done != job.done and time.monotonic() - kept.asked_s > KEPT_S):
                cost = await to_thread.run_sync(self._read, job.id)
                kept = self._kept[job.id] = _Kept(cost, job.done, time.monotonic())
                while len(self._kept) > MOST_KEPT:
                    self._kept.popitem(last=False)
            return kept.cost

    def _read(self, job: str) -> Cost:
        return read_cost(self._cloud, job, price=price_of(self._cloud))
