"""What is counted here and there, as Prometheus reads it: made when somebody asks, so that counting stays cheap."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from irs.tally import ANSWERS, CALLS, OK, Spread


def exposition(registry: CollectorRegistry) -> tuple[bytes, str]:
    """Return what ``/metrics`` says, and its content type."""
    return generate_latest(registry), CONTENT_TYPE_LATEST


def histogram(name: str, text: str, labels: Sequence[str], spreads: Iterable[tuple[tuple[str, ...], Spread]]) -> Metric:
    """Return spreads by their labels as a histogram."""
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, spread in spreads:
        family.add_metric(values, spread.buckets(), spread.sum)
    return family


def counter(name: str, text: str, labels: Sequence[str], counts: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    """Return counts by their labels; ``_total`` is added to the name."""
    family = CounterMetricFamily(name, text, labels=labels)
    for values, count in counts:
        family.add_metric(values, count)
    return family


def gauge(name: str, text: str, labels: Sequence[str], values: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    """Return values by their labels."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for label, value in values:
        family.add_metric(label, value)
    return family


class AwsCalls(Collector):
    """Calls of this process to AWS; boto3's own retries count as one. A 404 or 412 is an answer and no error."""

    _LABELS = ("service", "operation", "code")

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        calls = CALLS.read()
        counts = {labels: float(spread.count) for labels, spread in calls.items()}
        errors = {labels: count for labels, count in counts.items() if labels[2] not in (OK, *ANSWERS.values())}
        yield counter("irs_aws_requests", "Calls to AWS.", self._LABELS, counts.items())
        yield counter("irs_aws_errors", "Calls to AWS that failed.", self._LABELS, errors.items())
        yield histogram("irs_aws_request_seconds", "Time of a call to AWS; of long polls too.", self._LABELS, calls.items())


def registry_of(*collectors: Any) -> CollectorRegistry:
    """Return what these show, and the calls of this process."""
    registry = CollectorRegistry()
    for collector in (*collectors, AwsCalls()):
        registry.register(collector)
    return registry
