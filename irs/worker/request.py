"""How an image task's outcome settles its message."""

from __future__ import annotations

from typing import Any

from billiard.einfo import ExceptionWithTraceback
from celery.exceptions import Ignore
from celery.signals import task_revoked
from celery.worker import request
from celery.worker.state import task_ready
from kombu.utils.encoding import safe_repr

from irs.errors import RecognitionFailed


class Request(request.Request):  # type: ignore[misc]
    """Acknowledges a task that raised RecognitionFailed, whose record is stored, and one that was cancelled."""

    _already_revoked: bool

    def revoked(self) -> bool:
        """Settle a cancelled task as soon as it is received; asked by Celery before a task thread has it."""
        engine = getattr(self._app, "engine", None)
        if engine is None or self._already_revoked or not engine.drops(self.id):
            return bool(super().revoked())
        self._already_revoked = True
        self._settle_cancelled()
        return True

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """Settle the message; Flower shows a RecognitionFailed as FAILURE, a cancelled task as REVOKED."""
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        if isinstance(error, Ignore):
            return self._settle_cancelled()
        if not isinstance(error, RecognitionFailed):
            return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
        task_ready(self)
        self.acknowledge()
        if send_failed_event:
            self.send_event("task-failed", exception=safe_repr(error), traceback=exc_info.traceback)
        return None

    def _settle_cancelled(self) -> None:
        # Past Celery's own, which would store a result for each image of a cancelled job.
        task_ready(self)
        self.acknowledge()
        told = {"terminated": False, "signum": None, "expired": False}
        task_revoked.send(sender=self.task, request=self._context, **told)
        self.send_event("task-revoked", **told)
