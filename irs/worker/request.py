"""How an image task's outcome settles its message."""

from __future__ import annotations

from typing import Any

from billiard.einfo import ExceptionWithTraceback
from celery.worker import request
from celery.worker.state import task_ready
from kombu.utils.encoding import safe_repr

from irs.errors import RecognitionFailed


class Request(request.Request):  # type: ignore[misc]
    """Acknowledges a task that raised RecognitionFailed: its record is stored, and a retry cannot help."""

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """Settle the message; Flower shows a RecognitionFailed as FAILURE."""
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        if not isinstance(error, RecognitionFailed):
            return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
        task_ready(self)
        self.acknowledge()
        if send_failed_event:
            self.send_event("task-failed", exception=safe_repr(error), traceback=exc_info.traceback)
        return None
