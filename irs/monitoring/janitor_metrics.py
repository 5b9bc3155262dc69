"""A janitor's ``/metrics``: the queues of its stack, and what it removed."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from irs.cloud import Cloud
from irs.errors import IrsError
from irs.monitoring.janitor import Janitor
from irs.monitoring.metrics import counter, gauge
from irs.monitoring.status import QueueCounts, count_queue

log = logging.getLogger(__name__)

#: Queues are counted again for a scrape that comes later than this.
COUNTED_S = 10.0


class JanitorMetrics(Collector):
    """Queues of a janitor's stack, counted when they are asked for and at most every ten seconds."""

    def __init__(self, cloud: Cloud, janitor: Janitor) -> None:
        self._cloud, self._janitor = cloud, janitor
        self._counted_at = float("-inf")
        self._counts: dict[str, QueueCounts] = {}

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; of queues none while SQS does not count."""
        requests, dead = self._count(self._cloud.settings.requests_queue), self._count(self._cloud.settings.requests_dead_queue)
        if requests is not None:
            name = (requests.queue,)
            yield gauge("celery_queue_length", "Messages that wait.", ("queue_name",), [(name, requests.visible)])
            yield gauge("irs_queue_in_flight", "Messages in work.", ("queue",), [(name, requests.in_flight)])
            yield gauge("irs_queue_delayed", "Messages that are not visible yet.", ("queue",), [(name, requests.delayed)])
        if dead is not None:
            yield gauge("irs_dead_letters", "Messages that were given up.", ("queue",), [((dead.queue,), dead.visible)])
        kinds = [((kind,), float(count)) for kind, count in sorted(self._janitor.queues.items())]
        yield gauge("irs_mon_queues", "Queues of processes' own, as of the last round.", ("kind",), kinds)
        reaped = {(kind,): float(count) for kind, count in dict(self._janitor.reaped).items()}
        yield counter(
            "irs_mon_reaped", "Queues and subscriptions removed for processes that were killed.", ("kind",), reaped.items()
        )

    def _count(self, name: str) -> QueueCounts | None:
        if time.monotonic() - self._counted_at > COUNTED_S:
            # Another scraper may be reading the old ones.
            self._counts, self._counted_at = {}, time.monotonic()
        counts = self._counts
        if name not in counts:
            try:
                counts[name] = count_queue(self._cloud, name)
            except IrsError as error:
                log.warning("uncounted", extra={"queue": name, "reason": str(error)})
                return None
        return counts[name]
