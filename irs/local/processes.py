"""Workers as child processes: waited for, drained, and nothing is begun without them."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from irs.cloud import Cloud
from irs.errors import NotFound, PassingError, SetupError
from irs.local.daemon import Daemon, Say
from irs.local.signals import Signals
from irs.records import Beat, beat_key

#: Beyond the drain itself, for the last beat and the last news.
GRACE_S = 5.0


class WorkerEnded(SetupError):
    """A worker could not start; ``exit_code`` is its own."""

    code = "worker_ended"

    def __init__(self, sentence: str, exit_code: int) -> None:
        Exception.__init__(self, sentence, exit_code)
        self.sentence, self.exit_code = sentence, exit_code


class Worker(Daemon):
    """One ``irs worker``. ``digest``: hex, of the model it served last; empty before it was ready."""

    def __init__(
        self,
        number: int,
        instance: str,
        say: Say,
        *,
        log: Path,
        cloud: Cloud,
        at_parents_end: signal.Signals,
        environment: Mapping[str, str],
    ) -> None:
        told = {**environment, "IRS_INSTANCE_ID": instance}
        super().__init__(f"worker {number} ", ["worker"], say, log=log, at_parents_end=at_parents_end, environment=told)
        self._number, self._instance, self._cloud = number, instance, cloud
        self.is_ready = self.was_ready = False
        self.digest = ""

    def tend(self) -> None:
        """As :meth:`Daemon.tend`; asks S3 once until the worker is ready.

        Raises:
            WorkerEnded: it ended before it was ever ready.
        """
        super().tend()
        if not self.is_ready and (beat := self._find_beat()):
            model = beat.model.name if beat.model else "no model"
            # Before it counts as ready: who follows rolls reads both from another thread.
            self.digest = beat.model.digest.removeprefix("sha256:") if beat.model else ""
            self.is_ready = self.was_ready = True
            self._say(f"{self._label} ready after {time.monotonic() - self._began_s:.1f} s, {model}, log {self.log}")

    def drain(self) -> None:
        """Ask it to finish what it holds and end. One that is not ready yet holds nothing, and is killed."""
        if self.is_ready:
            super().drain()
        else:
            self.kill()

    def _ended(self, code: int) -> None:
        self.is_ready = False
        if not self.was_ready:
            raise WorkerEnded(f"Worker {self._number} could not start: {self._last_words()} (log {self.log})", code or 1)
        super()._ended(code)

    def _find_beat(self) -> Beat | None:
        if self._process is None:
            return None
        with suppress(NotFound, PassingError, ValueError):
            beat = Beat.from_json(self._cloud.output.get(beat_key(self._instance)))
            # Of the process of now: the one before has left a beat under the same name.
            return beat if beat.pid == self._process.pid and beat.phase in ("ready", "busy") else None
        return None


class Crew:
    """The workers of one ``irs up``."""

    def __init__(self, workers: list[Worker], *, drain_s: float) -> None:
        self.workers, self._drain_s = workers, drain_s

    @property
    def is_ready(self) -> bool:
        """Whether each worker has been ready."""
        return all(worker.was_ready for worker in self.workers)

    @property
    def has_given_up(self) -> bool:
        """Whether no worker is left that could work again."""
        return bool(self.workers) and all(worker.has_given_up for worker in self.workers)

    def tend(self) -> None:
        """Tend each worker; raises as :meth:`Worker.tend`."""
        for worker in self.workers:
            worker.tend()

    def end(self, signals: Signals) -> None:
        """Drain all workers; kill what is left after the drain's time, or at once at one more signal."""
        for worker in self.workers:
            worker.drain()
        if not signals.wait_until(self._has_ended, within_s=self._drain_s + GRACE_S):
            for worker in self.workers:
                worker.kill()
            signals.wait_until(self._has_ended, within_s=GRACE_S)

    def _has_ended(self) -> bool:
        return not any(worker.is_running for worker in self.workers)
