"""The way of one image through a worker: options, fetch, header, answer, record, news.

One task thread follows one image from here to its acknowledgement; only decoding and the model run
elsewhere (:mod:`irs.worker.batcher`), many images a call.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Container, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from irs import broker, records
from irs.cloud import Bucket, Cloud
from irs.errors import (
    BadOptions,
    Cancelled,
    Forbidden,
    InternalError,
    NotFound,
    PassingError,
    RequestError,
    StageTimeout,
    StorageUnavailable,
    TooLarge,
)
from irs.imaging import Limits, Opened, decode_opened, fit, open_image, thumbnail
from irs.models import Answers, Forward, Model
from irs.records import BatchFacts, Fault, ImageFacts, ModelFacts, Options, Record, Timing
from irs.results import RecordStore
from irs.results.news import NewsSender
from irs.worker.batcher import Batcher, Computed, Decoded
from irs.worker.budget import ByteBudget
from irs.worker.cache import AnswerCache, Answered
from irs.worker.counts import Counts
from irs.worker.gate import StorageGate

log = logging.getLogger(__name__)

#: S3 knows no longer key.
MOST_KEY_BYTES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One delivery of one task: ``sent_at`` in Unix seconds, ``received_at`` by ``time.monotonic``, ``receives`` from 1.

    ``misuse`` says what is wrong with the call itself, if anything is.
    """

    task_id: str
    image: str
    name: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    misuse: str = ""
    receives: int = 1
    sent_at: float | None = None
    received_at: float | None = None


@dataclass(slots=True)
class _Draft:
    """What is known of the image so far, as fields of ImageFacts and Timing: a failed record tells as much of it."""

    image: dict[str, Any]
    timing: dict[str, Any]
    #: By ``time.monotonic``: well before the lease is given up, the message goes back.
    until: float
    batch: BatchFacts | None = None
    cached: bool = False


class Engine:
    """Recognises images with one loaded model. Blocks for seconds while it is made; then safe for many threads.

    Args:
        cancelled: ids of tasks that nobody waits for any more, asked at each stage; may grow meanwhile.

    Raises:
        ModelError: the model cannot be used.
    """

    def __init__(self, cloud: Cloud, model: Model, *, cancelled: Container[str] = ()) -> None:
        settings = cloud.settings
        self.settings, self.model = settings, model
        self.answers = Answers(model)
        self.facts = ModelFacts(name=model.name, digest=model.digest)
        self.limits = Limits(settings.max_bytes, settings.max_pixels)
        self.forward = Forward(
            model,
            device=settings.device,
            precision=settings.precision,
            batch_size=settings.batch_size,
            home=settings.home,
        )
        self.forward.warm()
        self.completed = self.failed = self.dropped = 0
        self.counts = Counts()
        self._cancelled = cancelled
        self._cloud = cloud
        self._records = RecordStore(cloud)
        self._news = NewsSender(cloud)
        self._cache = AnswerCache(settings.cache_entries)
        self._budget = ByteBudget(settings.bytes_budget)
        self._batcher = Batcher(
            self.forward.probabilities,
            sizes=self.forward.sizes,
            threads=settings.compute_threads or os.cpu_count() or 1,
            wait_s=settings.batch_wait_seconds,
        )
        # Huge pictures wait for each other, and bytes for bytes: only the lease bounds that.
        self._patience_s = settings.max_lease_seconds * 0.8
        self._gate = StorageGate(
            lambda: next(cloud.output.list("workers/"), None),
            on_shut=broker.pause,
            on_open=broker.resume,
        )
        self._busy = 0
        self._lock = threading.Lock()
        self._stop_at: float | None = None
        self.last_queued_s: float | None = None
        self.last_stuck_at: float | None = None
        self.is_hung = False

    @property
    def is_storage_open(self) -> bool:
        """Whether S3 answered last time."""
        return self._gate.is_open

    @property
    def busy_slots(self) -> int:
        """Images in work now."""
        return self._busy

    @property
    def batches_by_size(self) -> dict[int, int]:
        """Model calls since the start by their number of images."""
        return self._batcher.by_size.copy()

    @property
    def mean_batch(self) -> float:
        """Images a model call, since the start; 0 before the first."""
        return self._batcher.images / self._batcher.batches if self._batcher.batches else 0.0

    def recognise_task(self, **delivered: Any) -> Record:
        """Answer one delivery given as the fields of :class:`Work`; see :meth:`recognise`."""
        return self.recognise(Work(**delivered))

    def recognise(self, work: Work) -> Record:
        """Answer one image: store its record, send the news, return the record. Safe to run twice.

        Raises:
            Cancelled: nobody waits for it any more; nothing was stored.
            PassingError: something outside did not answer; nothing was stored.
            Exception: unexpected; nothing was stored, but at the last receive a ``failed`` record, code ``internal``.
        """
        draft = _Draft(
            {"name": None if work.name is None else _readable(work.name), "key": _readable(work.image)},
            {"submitted": work.sent_at, "queued": max(0.0, time.time() - work.sent_at) if work.sent_at else None},
            until=(work.received_at or time.monotonic()) + self._patience_s,
        )
        self.last_queued_s = draft.timing["queued"]
        with self._counted(work):
            try:
                self._check_wanted(work.task_id)
                record = self._answer(work, draft)
            except Cancelled:
                raise
            except RequestError as error:
                record = self._failed(work, draft, error)
            except PassingError:
                raise
            except BaseException as error:
                if work.receives >= self.settings.max_receives:
                    self._finish(self._failed(work, draft, error), draft.until)
                raise
            return self._finish(record, draft.until)

    def drops(self, task_id: str) -> bool:
        """Whether the task is cancelled; it is counted as dropped then, so the caller must drop it."""
        if task_id not in self._cancelled:
            return False
        with self._lock:
            self.dropped += 1
        self.counts.note_dropped()
        log.debug("dropped", extra={"task_id": task_id})
        return True

    def drain(self, within_s: float) -> None:
        """Stop waiting for what is away: every image in work ends within ``within_s``."""
        self._stop_at = self._stop_at or time.monotonic() + within_s
        self._gate.close()

    def close(self) -> None:
        """End the threads and send the last news."""
        self._gate.close()
        self._batcher.close()
        self._news.close()

    def _answer(self, work: Work, draft: _Draft) -> Record:
        if work.misuse:
            raise BadOptions(work.misuse)
        options = Options.checked(dict(work.options))
        self.answers.check(options)
        with self._fetched(work.image, draft) as body:
            computed = self._computed(work, body, options, draft)
        answer = self.answers.answer(computed.probabilities, options)
        return Record(
            **self._common(work, draft),
            status="ok",
            labels=answer.labels,
            hedged=answer.hedged,
            sure=answer.sure,
            thumbnail=computed.thumbnail,
        )

    @contextmanager
    def _fetched(self, image: str, draft: _Draft) -> Iterator[bytes]:
        """Yield the image's bytes, holding as much of the byte budget."""
        bucket, key = self._locate(image)
        began = time.monotonic()
        self._batcher.expect(+1)
        taken = 0
        try:
            opened = self._gate.call(lambda: bucket.open(key), until=draft.until, is_read=True)
            size = opened.size
            if size > self.limits.bytes:
                draft.image["bytes"] = size
                raise TooLarge(size, self.limits.bytes)
            first: list[Callable[[], bytes]] = [opened.read]
            del opened
            if not self._budget.try_take(size):
                # Not with a connection open meanwhile: it would time out.
                first.clear()
                self._budget.take(size, within_s=self._left_s(draft.until - time.monotonic()))
            taken = size
            body = self._gate.call(lambda: first.pop()() if first else bucket.get(key), until=draft.until, is_read=True)
        except BaseException:
            self._budget.give_back(taken)
            raise
        finally:
            self._batcher.expect(-1)
        try:
            draft.image.update(bytes=len(body), sha256=hashlib.sha256(body).hexdigest())
            draft.timing["fetch"] = time.monotonic() - began
            yield body
        finally:
            self._budget.give_back(taken)

    def _locate(self, image: str) -> tuple[Bucket, str]:
        if not isinstance(image, str) or not image:
            raise BadOptions("image must be a key of the input bucket or s3://bucket/key")
        name, key = self.settings.input_bucket, image
        if image.startswith("s3://"):
            name, _, key = image.removeprefix("s3://").partition("/")
        if name not in self.settings.allowed_buckets:
            raise Forbidden(image)
        # S3 answers such a key with 400, which would look like an outage, or the client library refuses to ask.
        if not key or key != _readable(key) or "\0" in key or len(key.encode()) > MOST_KEY_BYTES:
            raise NotFound(image)
        return self._cloud.bucket(name), key

    def _check_wanted(self, task_id: str) -> None:
        if self.drops(task_id):
            raise Cancelled

    def _computed(self, work: Work, body: bytes, options: Options, draft: _Draft) -> Computed:
        sha256 = draft.image["sha256"]
        if not options.thumbnail and (kept := self._cache.find(sha256)):
            draft.image.update(format=kept.format, width=kept.width, height=kept.height)
            draft.cached = True
            return Computed(kept.probabilities, None, 0.0, 0.0, 0.0)
        opened = open_image(body, self.limits)
        header = opened.header
        draft.image.update(format=header.format, width=header.width, height=header.height)
        future = self._batcher.submit(lambda: self._decoded(work, opened, options), is_large=header.is_large)
        left_s = draft.until - time.monotonic()
        computed = self._awaited(future, left_s if header.is_large else min(left_s, self.settings.compute_seconds))
        draft.timing.update(decode=computed.decode_s, batch=computed.batch_s, model=computed.model_s)
        if computed.batch is not None:
            draft.batch = BatchFacts(number=computed.batch[0], size=computed.batch[1])
        self._cache.keep(sha256, Answered(header.format, header.width, header.height, computed.probabilities))
        return computed

    def _decoded(self, work: Work, opened: Opened, options: Options) -> Decoded:
        self._check_wanted(work.task_id)
        preprocess = self.model.preprocess
        # The thumbnail makes do with what the model needs: asking for one must not change a label.
        image = decode_opened(opened, side_px=preprocess.resize)
        small = thumbnail(image, options.thumbnail) if options.thumbnail else None
        return Decoded(fit(image, preprocess), small)

    def _awaited(self, future: Future[Computed], within_s: float) -> Computed:
        batches = self._batcher.batches
        try:
            return future.result(timeout=self._left_s(within_s))
        except FutureTimeout:
            future.cancel()
            if self._stop_at is None:
                self.last_stuck_at = time.monotonic()
                # Not one batch meanwhile: no compute thread is left that works.
                self.is_hung = self.is_hung or self._batcher.batches == batches
            raise StageTimeout(f"no answer from the model within {within_s:g} s") from None

    def _left_s(self, within_s: float) -> float:
        """Return how long one stage may wait: less when the worker drains."""
        if self._stop_at is None:
            return max(0.0, within_s)
        return max(0.0, min(within_s, self._stop_at - time.monotonic()))

    def _common(self, work: Work, draft: _Draft) -> dict[str, Any]:
        job, number = records.split_task_id(work.task_id) or (None, None)
        return {
            "task_id": _readable(work.task_id),
            "job": job,
            "number": number,
            "image": ImageFacts(**draft.image),
            "model": self.facts,
            "timing": Timing(**draft.timing),
            "worker": f"irs@{self.settings.instance_id}",
            "receives": work.receives,
            "batch": draft.batch,
            "cached": draft.cached,
        }

    def _failed(self, work: Work, draft: _Draft, error: BaseException) -> Record:
        if not isinstance(error, RequestError | InternalError):
            error = InternalError(type(error).__name__)
        fault = Fault(code=error.code, message=_readable(error))
        return Record(**self._common(work, draft), status="failed", error=fault)

    def _finish(self, record: Record, until: float) -> Record:
        """Store the record, then send the news. If one stood already it is returned, and nobody told again."""
        self._check_wanted(record.task_id)
        began = time.monotonic()
        # A stored record cannot tell how long storing it took: the news and the log do.
        if standing := self._gate.call(lambda: self._stored(record), until=until):
            return standing
        store_s = time.monotonic() - began
        with self._lock:
            if record.status == "ok":
                self.completed += 1
            else:
                self.failed += 1
        self.counts.note_answered(record, store_s)
        self._news.add(record, more_coming=self._busy > 1)
        # A line an image costs as much as storing its record: told one by one only when asked for, or when it failed.
        level = logging.INFO if record.status == "failed" else logging.DEBUG
        if log.isEnabledFor(level):
            log.log(
                level,
                "stored",
                extra={
                    "task_id": record.task_id,
                    "job": record.job,
                    "number": record.number,
                    "status": record.status,
                    "label": record.labels[0].label if record.labels else None,
                    "error": record.error.code if record.error else None,
                    "store_s": round(store_s, 4),
                    "receives": record.receives,
                },
            )
        return record

    def _stored(self, record: Record) -> Record | None:
        """Store the record; if one stood already return that."""
        try:
            if self._records.put(record):
                return None
            return self._records.get(record.task_id)
        except (Forbidden, NotFound) as error:
            # Of the service and not of the image: it waits until an operator has mended it. Or what stood was removed
            # since, to be answered anew: without a record the message must not go.
            raise StorageUnavailable(f"Records cannot be stored: {error}") from None

    @contextmanager
    def _counted(self, work: Work) -> Iterator[None]:
        with self._lock:
            self._busy += 1
        try:
            yield
        except Cancelled:
            raise
        except BaseException as error:
            # At its last receive an unexpected fault is recorded, and counted as that.
            if isinstance(error, PassingError) or work.receives < self.settings.max_receives:
                self.counts.note_returned(error.code if isinstance(error, PassingError) else InternalError.code)
            raise
        finally:
            with self._lock:
                self._busy -= 1


def _readable(value: object) -> str:
    """Return what a caller sent as text that a record can hold: names of files need not be UTF-8."""
    return str(value).encode(errors="replace").decode()
