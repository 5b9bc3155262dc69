"""Hand images in, follow them, read their records: needs no torch."""

from __future__ import annotations

from irs.client.client import Client, recognize
from irs.client.job import Job, Progress

__all__ = ["Client", "Job", "Progress", "recognize"]
