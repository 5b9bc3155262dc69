"""Workers of ``irs up`` follow the rolls of their model: replaced one by one, so that images are answered meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from irs.cloud import Cloud
from irs.errors import IrsError, ModelError
from irs.local.processes import Worker
from irs.models.reference import SCHEME, Reference
from irs.models.registry import Registry
from irs.models.rolls import find_current
from irs.models.shared import get_shared

LOOK_S = 10.0


class RollFollower:
    """Notices when the name that ``IRS_MODEL`` holds is rolled: workers say themselves what they serve.

    The new model is fetched and checked first, in a thread: while it cannot be had, all stay with the old one. Then
    each worker drains and is started again, the next one when it is ready; none where one cannot start with it.
    """

    def __init__(self, cloud: Cloud, workers: list[Worker], say: Callable[[str], None], *, look_s: float = LOOK_S) -> None:
        self._cloud, self._workers, self._say, self._look_s = cloud, workers, say, look_s
        model = cloud.settings.model
        reference = Reference.of(model, cloud.settings.models_bucket) if model.startswith(SCHEME) else None
        #: None where nothing can be rolled: any other model is what it is.
        self._reference = reference if reference is not None and not reference.digest else None
        self._refused: str | None = None
        self._look: threading.Thread | None = None
        self._fetched: str | None = None
        self._new: str | None = None
        self._last_s = time.monotonic()
        self._old: list[Worker] = []
        self._followed: list[Worker] = []
        self._is_draining = False

    def tend(self) -> None:
        """Look now and then, and replace the next worker when it is time; never blocks."""
        if self._reference is None:
            return
        if self._old:
            self._replace_next()
        elif self._fetched is not None:
            self._say(f"model  {self._reference} is {self._fetched[:12]} now, workers follow one by one")
            # Not those that came by themselves meanwhile, having ended and started again.
            self._old, self._followed = self._others(self._fetched), []
            self._new, self._fetched = self._fetched, None
        elif (self._look is None or not self._look.is_alive()) and time.monotonic() - self._last_s >= self._look_s:
            self._last_s = time.monotonic()
            self._look = threading.Thread(target=self._fetch_new, name="irs-rolls", daemon=True)
            self._look.start()

    def _replace_next(self) -> None:
        if any(worker.has_given_up for worker in self._followed):
            # Whole in the bucket, and yet no model for this release: one worker is lost, not all.
            self._say(f"model  {self._reference} cannot be served here, the others stay with the model before: roll it back")
            self._old, self._is_draining, self._refused = [], False, self._new
            return
        worker = self._old[0]
        if worker.has_given_up or (self._is_draining and not worker.is_ready):
            # It has ended; the next one waits below until it is back.
            self._old.pop(0)
            self._is_draining = False
        elif not self._is_draining and all(one.is_ready or one.has_given_up for one in self._workers):
            worker.drain()
            self._followed.append(worker)
            self._is_draining = True

    def _fetch_new(self) -> None:
        digest = self._find_digest()
        if digest is None or digest == self._refused:
            return
        # The name stands for another one: who rolls to the refused one again has mended it.
        self._refused = None
        if not self._others(digest):
            return
        try:
            get_shared(self._cloud, f"{self._reference}/{digest}")
        except ModelError as error:
            self._refused = digest
            self._say(f"model  stays as it is: {error}")
        except IrsError:
            # The bucket does not answer now: the next look tries again.
            return
        else:
            self._fetched = digest

    def _others(self, digest: str) -> list[Worker]:
        """Return the workers that serve another model."""
        return [worker for worker in self._workers if worker.is_ready and worker.digest != digest]

    def _find_digest(self) -> str | None:
        assert self._reference is not None
        try:
            current = find_current(Registry(self._cloud, self._reference.bucket), self._reference.name)
        except IrsError:
            # The bucket does not answer now; a worker that starts says so itself.
            return None
        return current.digest if current else None
