"""Counters of one process of the page, for Prometheus; a registry of their own, so that tests stay apart."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from irs.monitoring.metrics import registry_of

_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)


class Metrics:
    """What ``/metrics`` tells. Counters are safe for threads."""

    def __init__(self) -> None:
        self.registry = registry = registry_of()
        self.requests = Counter("irs_web_requests", "Answers by route and status.", ["route", "status"], registry=registry)
        self.request_seconds = Histogram(
            "irs_web_request_seconds", "Time to the first byte of an answer.", ["route"], buckets=_SECONDS, registry=registry
        )
        self.jobs = Counter("irs_web_jobs", "Jobs opened.", registry=registry)
        self.images = Counter("irs_web_images", "Images stored and sent.", registry=registry)
        self.image_bytes = Counter("irs_web_image_bytes", "Bytes of images stored.", registry=registry)
        self.refused = Counter("irs_web_refused", "Images refused, by error code.", ["code"], registry=registry)
        self.held_bytes = Gauge("irs_web_held_bytes", "Bytes of images held now.", registry=registry)
        self.call_bytes = Gauge("irs_web_call_bytes", "Bytes held now of calls of AWS SDKs.", registry=registry)
        self.sent_bytes = Gauge("irs_web_sent_bytes", "Bytes of images held to be sent.", registry=registry)
        self.streams = Gauge("irs_web_streams", "Live streams open now.", registry=registry)
        self.watched = Gauge("irs_web_watched_jobs", "Jobs known to this process.", registry=registry)
        self.sweeps = Counter("irs_web_sweeps", "Listings of a job's records.", registry=registry)
        self.record_reads = Counter("irs_web_record_reads", "Records read from the output bucket.", registry=registry)
        self.news_polls = Counter("irs_web_news_polls", "Long polls of the response queue.", registry=registry)
        self.news = Counter("irs_web_news", "Results told by news, by whether the job is known.", ["known"], registry=registry)
        self.frozen_streams = Counter("irs_web_frozen_streams", "Streams ended since nobody read them.", registry=registry)

    def text(self) -> tuple[bytes, str]:
        """Return the exposition and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
