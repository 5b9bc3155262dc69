"""A Celery consumer that loses nothing it cannot read.

Celery acknowledges what it cannot decode and marks the task of an unknown name as failed. Both may be fine for
another worker of this queue (a newer release), so here they stay in the queue: hidden with back-off, and after
``IRS_MAX_RECEIVES`` in the dead-letter queue.
"""

from __future__ import annotations

import logging
from typing import Any

from celery.worker import consumer

log = logging.getLogger(__name__)


class Consumer(consumer.Consumer):  # type: ignore[misc]
    """Rejects what it does not understand."""

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Hide a message whose body cannot be decoded."""
        log.error("undecodable", extra={"content_type": message.content_type, "reason": str(exc)})
        message.reject_log_error(log, self.connection_errors)

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Hide a message of a task that this release does not have."""
        del body
        log.error("unknown_task", extra={"task": str(exc)})
        message.reject_log_error(log, self.connection_errors)
