"""Records in the output bucket, the Celery result backend on them, and news on the response queue."""

from __future__ import annotations

from irs.results.store import JobListing, RecordStore

__all__ = ["JobListing", "RecordStore"]
