"""How long to wait before S3 is asked again, and when to stop asking."""

from __future__ import annotations

import time

from irs.errors import PassingError

#: S3 may be away for this long while somebody waits.
PATIENCE_S = 30.0
GROWTH = 1.5


class Backoff:
    """Pauses that grow by half while nothing comes, up to ``longest_s``, and end ``timeout`` seconds from now."""

    def __init__(self, *, first_s: float = 0.1, longest_s: float = 2.0, timeout: float | None = None) -> None:
        self._end = float("inf") if timeout is None else time.monotonic() + timeout
        self._first_s, self._longest_s, self._next_s = first_s, longest_s, first_s
        self._failing_since: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self._end

    def pause_s(self) -> float:
        """Return how long to sleep now: at most up to the end."""
        pause_s, self._next_s = self._next_s, min(self._longest_s, self._next_s * GROWTH)
        return max(0.0, min(pause_s, self._end - time.monotonic()))

    def note_answer(self, *, is_new: bool) -> None:
        """S3 answered; if something new came, more is near."""
        self._failing_since = None
        if is_new:
            self._next_s = self._first_s

    def note_failure(self, error: PassingError) -> None:
        """S3 did not answer: raise the error once that lasts longer than 30 s."""
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        elif now - self._failing_since > PATIENCE_S:
            raise error
