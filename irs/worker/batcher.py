"""Compute threads: decode what was fetched, run the model on up to a batch of it, answer each image on its own.

Decoding happens in the compute threads, one a core: with a pool of its own the batches starved and the
threads fought for the caches. A picture that cannot be decoded leaves its batch before the model runs.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from irs.errors import InternalError

log = logging.getLogger(__name__)

Pixels = npt.NDArray[np.uint8]
Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Decoded:
    """One picture as the model takes it: ``pixels`` (crop, crop, 3) uint8 RGB, and a thumbnail if asked for."""

    pixels: Pixels
    thumbnail: str | None = None


@dataclass(frozen=True, slots=True)
class Computed:
    """One picture's answer: ``probabilities`` (classes,), and how long it took in seconds.

    Attributes:
        batch: which model call it was, counted from 1, and of how many pictures; None without one.
    """

    probabilities: Probabilities
    thumbnail: str | None
    decode_s: float
    batch_s: float
    model_s: float
    batch: tuple[int, int] | None = None


@dataclass(slots=True)
class _Item:
    decode: Callable[[], Decoded]
    future: Future[Computed] = field(default_factory=Future)
    decoded: Decoded | None = None
    decode_s: float = 0.0
    ready_at: float = field(default_factory=time.monotonic)
    #: Of the task's thread: what is logged of this picture names it.
    context: Context = field(default_factory=copy_context)


class Batcher:
    """Runs pictures through ``forward`` in batches.

    Args:
        forward: pixels (N, crop, crop, 3) uint8 to probabilities (N, classes) float32; N is one of ``sizes``.
        sizes: the batch sizes the model was warmed for, falling, ending with 1.
        threads: compute threads, one a core.
        wait_s: longest wait for a batch to fill; only while :attr:`coming` says that more is on its way.
    """

    def __init__(self, forward: Callable[[Pixels], Probabilities], *, sizes: Sequence[int], threads: int, wait_s: float) -> None:
        self._forward, self._sizes, self._wait_s = forward, tuple(sizes), wait_s
        self._largest = self._sizes[0]
        # Full: put() blocks the task threads, so pollers stop and messages stay in SQS where the scaler sees them.
        self._waiting: queue.Queue[_Item | None] = queue.Queue(maxsize=4 * self._largest)
        self._slow: queue.Queue[_Item | None] = queue.Queue()
        self._coming = 0
        self._lock = threading.Lock()
        self.images = 0
        self.batches = 0
        #: Model calls by their number of pictures.
        self.by_size: Counter[int] = Counter()
        self._threads = [threading.Thread(target=self._compute, name=f"irs-compute-{n}", daemon=True) for n in range(threads)]
        self._threads.append(threading.Thread(target=self._decode_slowly, name="irs-slow-lane", daemon=True))
        for thread in self._threads:
            thread.start()

    def expect(self, change: int) -> None:
        """Tell that an image is being fetched (+1), or that it came or never will (-1)."""
        with self._lock:
            self._coming += change

    def submit(self, decode: Callable[[], Decoded], *, is_large: bool = False) -> Future[Computed]:
        """Queue one picture; blocks while the queue is full.

        Args:
            decode: makes the pixels, raising one of our errors; called once in another thread.
            is_large: decode it apart, one such at a time, so that it holds up no batch.
        """
        item = _Item(decode)
        (self._slow if is_large else self._waiting).put(item)
        return item.future

    def close(self) -> None:
        """End the threads after what is queued."""
        self._slow.put(None)
        for _ in range(len(self._threads) - 1):
            # Full only when the threads hang: nothing could end them.
            with suppress(queue.Full):
                self._waiting.put_nowait(None)

    def _decode_slowly(self) -> None:
        while (item := self._slow.get()) is not None:
            if self._decoded(item):
                self._waiting.put(item)

    def _compute(self) -> None:
        is_last = False
        while not is_last:
            items, is_last = self._take()
            ready = [item for item in items if item.decoded is not None or self._decoded(item)]
            # What could not be decoded leaves gaps: a batch of seven would run as four, two and one.
            while not is_last and len(ready) < len(items):
                more, is_last = self._take_waiting(len(items) - len(ready))
                if not more:
                    break
                ready += [item for item in more if item.decoded is not None or self._decoded(item)]
            while ready:
                size = next(size for size in self._sizes if size <= len(ready))
                piece, ready = ready[:size], ready[size:]
                self._run(piece)

    def _take(self) -> tuple[list[_Item], bool]:
        """Return at least one picture, as many as are there, at most a batch; and whether it is the end."""
        items: list[_Item] = []
        end: float | None = None
        while len(items) < self._largest:
            try:
                if not items:
                    item = self._waiting.get()
                elif end is None:
                    item = self._waiting.get_nowait()
                else:
                    item = self._waiting.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                if end is None and self._coming > 0 and self._wait_s:
                    end = time.monotonic() + self._wait_s
                    continue
                break
            if item is None:
                return items, True
            items.append(item)
        return items, False

    def _take_waiting(self, most: int) -> tuple[list[_Item], bool]:
        """Return at most ``most`` pictures that wait now, maybe none; and whether it is the end."""
        items: list[_Item] = []
        while len(items) < most:
            try:
                item = self._waiting.get_nowait()
            except queue.Empty:
                break
            if item is None:
                return items, True
            items.append(item)
        return items, False

    def _decoded(self, item: _Item) -> bool:
        # From here on it cannot be cancelled: an answer to a cancelled future would end this thread.
        if not item.future.set_running_or_notify_cancel():
            return False
        began = time.monotonic()
        try:
            item.decoded = item.context.run(item.decode)
        except BaseException as error:  # the edge of a stage: whatever it is, it is this image's own
            item.future.set_exception(error)
            return False
        item.decode_s = time.monotonic() - began
        item.ready_at = began + item.decode_s
        return True

    def _run(self, piece: list[_Item]) -> None:
        began = time.monotonic()
        try:
            pixels = np.stack([item.decoded.pixels for item in piece if item.decoded is not None])
            probabilities = self._forward(pixels)
        except BaseException as error:  # the edge of a stage: blame only the images that fail alone
            if len(piece) == 1:
                piece[0].context.run(log.exception, "model_failed", extra={"batch": self.batches + 1, "size": 1})
                piece[0].future.set_exception(InternalError(f"the model raised {type(error).__name__}"))
                return
            for item in piece:
                self._run([item])
            return
        model_s = (time.monotonic() - began) / len(piece)
        with self._lock:
            self.images += len(piece)
            self.batches += 1
            self.by_size[len(piece)] += 1
            batch = (self.batches, len(piece))
        finite: npt.NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(probabilities), axis=1)
        for item, row, is_finite in zip(piece, probabilities, finite, strict=True):
            if not is_finite:
                item.future.set_exception(InternalError("the model's answer is not finite"))
                continue
            thumbnail = item.decoded.thumbnail if item.decoded else None
            item.future.set_result(Computed(row, thumbnail, item.decode_s, began - item.ready_at, model_s, batch))
