"""Which jobs and tasks are cancelled, known to this worker without a request an image."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Set
from contextlib import suppress

from irs import records
from irs.cloud import Cloud

#: The tombstone of a clock that is behind, or of a PUT that took long, sorts before newer ones that are known already.
OVERLAP_S = 3600.0


class CancelledIds:
    """The cancelled ids: ``task_id in ids`` is true for a cancelled task, and for each task of a cancelled job.

    A look-up costs a set's; it never blocks. Safe for threads.
    """

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._ids: frozenset[str] = frozenset()
        self._newest_at = 0.0
        self._lock = threading.Lock()

    def __contains__(self, task_id: object) -> bool:
        ids = self._ids
        return bool(ids) and (task_id in ids or str(task_id).partition(".")[0] in ids)

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, ids: Iterable[str]) -> None:
        """Learn of cancelled jobs and tasks from who cancelled them; what is stored is learned by :meth:`refresh`."""
        self._learn(frozenset(ids))

    def refresh(self) -> None:
        """Learn what was cancelled since the last time: one LIST, of all tombstones the first time.

        Raises:
            StorageUnavailable: S3 does not answer.
            NotFound: there is no output bucket.
        """
        after = ""
        if self._newest_at:
            # Of a clock that is ahead the future is not believed: it would hide what comes until then.
            begin_at = min(self._newest_at, time.time()) - OVERLAP_S
            after = records.TOMBSTONES + records.ulid_at(begin_at)
        found: set[str] = set()
        for listed in self._cloud.output.list(records.TOMBSTONES, after=after):
            if (tombstone := records.read_tombstone_key(listed.key)) is None:
                continue
            ulid, id = tombstone
            with suppress(ValueError):
                self._newest_at = max(self._newest_at, records.time_of_ulid(ulid))
            found.add(id)
        self._learn(found)

    def _learn(self, ids: Set[str]) -> None:
        # A new set each time: who looks one up takes no lock.
        with self._lock:
            if not ids <= self._ids:
                self._ids |= ids
