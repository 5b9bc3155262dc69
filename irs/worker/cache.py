"""Answers to bytes that come again: probabilities by SHA-256, least recently used first out."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Answered:
    """What is kept of one picture: its header and its probabilities, shape (classes,)."""

    format: str
    width: int
    height: int
    probabilities: npt.NDArray[np.floating]


class AnswerCache:
    """At most ``entries`` answers of one model, in half precision (2 KB each for 1000 classes). Safe for threads."""

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._kept: OrderedDict[str, Answered] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, sha256: str) -> Answered | None:
        """Return what was answered to these bytes, probabilities as float32."""
        with self._lock:
            if (kept := self._kept.get(sha256)) is None:
                return None
            self._kept.move_to_end(sha256)
        return Answered(kept.format, kept.width, kept.height, kept.probabilities.astype(np.float32))

    def keep(self, sha256: str, answered: Answered) -> None:
        """Remember an answer; the one unused for longest gives way."""
        if not self._entries:
            return
        half = Answered(answered.format, answered.width, answered.height, answered.probabilities.astype(np.float16))
        with self._lock:
            self._kept[sha256] = half
            self._kept.move_to_end(sha256)
            while len(self._kept) > self._entries:
                self._kept.popitem(last=False)
