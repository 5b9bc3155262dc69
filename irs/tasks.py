"""The Celery tasks: thin. Importing them loads no torch, so that a plain install can call ``recognize.delay``."""

from __future__ import annotations

from typing import Any

from celery import Task
from celery.exceptions import Ignore, Reject

from irs import broker
from irs.app import app
from irs.errors import Cancelled, RecognitionFailed, SetupError


class _ImageTask(Task):  # type: ignore[misc]
    # Acknowledges RecognitionFailed, whose record is stored; every other failure comes back.
    Request = "irs.worker.request:Request"
    # Told as an outcome, not as a fault of ours with a traceback.
    throws = (RecognitionFailed,)
    # Celery writes out every result for events and logs: of a whole record that costs more than storing it.
    resultrepr_maxsize = 64
    abstract = True

    def __call__(self, /, *arguments: Any, **keywords: Any) -> Any:
        try:
            # What delay() asks: who sends by name alone was not asked.
            self.__header__(*arguments, **keywords)
        except TypeError as error:
            return _settled(self, image="", name=None, options={}, misuse=str(error))
        return self.run(*arguments, **keywords)


@app.task(name="irs.recognize", bind=True, base=_ImageTask, shared=False)  # type: ignore[untyped-decorator]
def recognize(self: Any, image: str, *, name: str | None = None, **options: Any) -> dict[str, Any]:
    """Recognise one stored image, store its record, send the news; safe to run twice.

    Args:
        image: key of the input bucket, or ``s3://bucket/key`` of a bucket in ``IRS_READABLE_BUCKETS``.
        name: the file's own name, kept in the record.
        options: fields of :class:`irs.records.Options`.

    Returns:
        The record as JSON values.

    Raises:
        RecognitionFailed: the image or the options are at fault; the stored record says why.
        Ignore: it was cancelled; the message is acknowledged and nothing stored.
        Reject: something passing or unexpected happened; the message comes back later.
    """
    return _settled(self, image=image, name=name, options=options)


def _settled(task: Any, **called: Any) -> dict[str, Any]:
    # The engine is put on the app when a worker starts: callers import this file without torch.
    engine = getattr(task.app, "engine", None)
    if engine is None:
        raise SetupError("irs.recognize runs in a worker: use recognize.delay(...), and start one with `irs worker`.")
    came = broker.delivery(task.request)
    try:
        record = engine.recognise_task(
            task_id=task.request.id,
            receives=came.receives,
            sent_at=came.sent_at,
            received_at=came.received_at,
            **called,
        )
        return record.or_raise().to_json()  # type: ignore[no-any-return]
    except RecognitionFailed:
        raise
    except Cancelled as error:
        raise Ignore(str(error)) from None
    except Exception as error:
        # requeue: Celery then reports no failure for each attempt, and the transport hides the message with back-off.
        raise Reject(f"{type(error).__name__}: {error}", requeue=True) from error
