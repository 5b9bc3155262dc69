"""Ids of jobs: whether one may be a job, why it is not known, and ids that a repeat of a request finds again."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from datetime import UTC, datetime

from ulid import ULID

from webui.problems import Problem

DAY_S = 86_400
_JOB_ID = re.compile(r"[0-7][0-9a-hjkmnp-tv-z]{25}")


def check_job_id(job: str) -> None:
    """Refuse what cannot be the id of a job.

    Raises:
        Problem: it has not the form of one (404).
    """
    if not _JOB_ID.fullmatch(job):
        raise Problem("job_not_found", "There is no such job: the id of a job has 26 small letters and digits.")


def why_unknown(job: str, keep_days: int, *, now: float | None = None) -> Problem:
    """Return why nothing is stored of a job: by its id it was opened so long ago that it has expired, or never."""
    opened = ULID.from_str(job.upper()).timestamp
    age_days = ((time.time() if now is None else now) - opened) / DAY_S
    if age_days >= keep_days:
        ended = datetime.fromtimestamp(opened + keep_days * DAY_S, UTC)
        said = f"This job expired on {ended.day} {ended:%B %Y}: results are kept for {keep_days} days."
        return Problem("job_expired", said, keep_days=keep_days)
    return Problem("job_not_found", f"There is no job {job}: check its address.")


def repeatable_ids(key: str, secret: str, *, now: float | None = None) -> tuple[str, str]:
    """Return the job ids that an ``Idempotency-Key`` stands for, of yesterday and of today (UTC).

    The time in an id is its day's beginning; the rest can be found by no one who does not know ``secret``.
    """
    day = int((time.time() if now is None else now) // DAY_S)
    return _derived(key, secret, day - 1), _derived(key, secret, day)


def _derived(key: str, secret: str, day: int) -> str:
    digest = hmac.digest(secret.encode(), f"{day}:{key}".encode(), hashlib.sha256)
    return str(ULID((day * DAY_S * 1000).to_bytes(6, "big") + digest[:10])).lower()
