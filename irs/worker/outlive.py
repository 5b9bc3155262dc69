"""A worker that its scaler has left behind: it ends itself, for nobody else would.

Only one that a scaler has started, or that has seen one at work: ``irs worker`` by hand stays.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from irs.cloud import Cloud
from irs.errors import NotFound
from irs.records import SCALER_STATE_KEY

#: Looks at the scaler's state in the time after which the worker ends.
LOOKS = 10


class Outliving:
    """Follows the scaler's sign of life, its state: written anew every few seconds while one leads.

    Args:
        limit_s: seconds without a message and without a sign of life after which nobody needs this worker; 0: never.
        is_named: the worker was given a name, so a scaler may have started it; else the state is not asked for.
        clock: in seconds.
    """

    def __init__(self, cloud: Cloud, *, limit_s: float, is_named: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._cloud, self._limit_s, self._is_named, self._clock = cloud, limit_s, is_named, clock
        self._state: bytes | None = None
        self._was_seen = False
        self._needed_at = self._looked_at = self._clock()

    def note_work(self) -> None:
        """A message is in hand: the worker is needed."""
        self._needed_at = self._clock()

    def is_due(self, launch: str | None) -> bool:
        """Whether it is time for :meth:`look`."""
        is_followed = self._limit_s > 0 and (self._is_named or launch is not None)
        return is_followed and self._clock() - self._looked_at >= self._limit_s / LOOKS

    def look(self) -> None:
        """Ask for the state once. Blocks.

        Raises:
            StorageUnavailable: S3 does not answer, which is no sign of life.
        """
        self._looked_at = self._clock()
        try:
            state = self._cloud.output.get(SCALER_STATE_KEY)
        except NotFound:
            return
        if self._state is not None and state != self._state:
            self._was_seen = True
            self._needed_at = self._clock()
        self._state = state

    def is_over(self, launch: str | None) -> bool:
        """Whether nobody needs this worker: asked only while it has no work."""
        if self._limit_s <= 0 or not (launch is not None or self._was_seen):
            return False
        return self._clock() - self._needed_at >= self._limit_s
