"""A bridge's ``/metrics``: what it did, and how long its queue of events is."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from irs.cloud import Cloud
from irs.drops.bridge import Bridge
from irs.errors import IrsError
from irs.monitoring.metrics import counter, gauge
from irs.monitoring.status import count_queue

log = logging.getLogger(__name__)

_DONE = {
    "messages": "Messages of S3's events that were worked off.",
    "sent": "Tasks sent for dropped files.",
    "results": "Copies of records stored under results/.",
}


class DropsMetrics(Collector):
    """One bridge and its queue, which is counted at each scrape."""

    def __init__(self, cloud: Cloud, bridge: Bridge) -> None:
        self._cloud, self._bridge = cloud, bridge

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; of the queue none while SQS does not count."""
        for what, count in asdict(self._bridge.done).items():
            yield counter(f"irs_drops_{what}", _DONE[what], (), [((), count)])
        name = self._cloud.settings.drops_queue
        try:
            counts = count_queue(self._cloud, name)
        except IrsError as error:
            log.warning("uncounted", extra={"queue": name, "reason": str(error)})
            return
        # Not celery_queue_length: no worker takes from this queue, and alerts on that one wait for workers.
        yield gauge("irs_drops_waiting", "Messages of S3's events that wait.", (), [((), counts.visible)])
        yield gauge("irs_drops_in_flight", "Messages of S3's events in work.", (), [((), counts.in_flight)])
