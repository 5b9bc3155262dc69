"""Workers as child processes: started, waited for, started again, drained."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from irs.cloud import Cloud
from irs.errors import NotFound, PassingError, SetupError
from irs.local import child
from irs.local.signals import Signals
from irs.monitoring.logs import last_words
from irs.records import Beat, beat_key

#: A worker that ends with it says that it cannot work as it is set up: once more would say the same.
WRONG_USE = 2
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
#: Having run for so long it is trusted again: the next pause is the first.
TRUSTED_S = 60.0
#: Beyond the drain itself, for the last beat and the last news.
GRACE_S = 5.0
LOG_DAYS = 7


class WorkerEnded(SetupError):
    """A worker could not start; ``exit_code`` is its own."""

    code = "worker_ended"

    def __init__(self, sentence: str, exit_code: int) -> None:
        Exception.__init__(self, sentence, exit_code)
        self.sentence, self.exit_code = sentence, exit_code


class Worker:
    """One ``irs worker`` that is to run: the process of now, or the pause before the next.

    Args:
        at_parents_end: what the kernel sends it when this process has gone.
    """

    def __init__(
        self, number: int, environment: Mapping[str, str], *, log: Path, cloud: Cloud, at_parents_end: signal.Signals
    ) -> None:
        self.number, self.log = number, log
        self.instance = environment["IRS_INSTANCE_ID"]
        self._environment, self._cloud, self._at_parents_end = environment, cloud, at_parents_end
        self._process: subprocess.Popen[bytes] | None = None
        self._began_s = self._start_at_s = 0.0
        self._pause_s = FIRST_PAUSE_S
        self._log_from = 0
        self.is_ready = self.was_ready = self.given_up = False
        #: Hex, of the model it served last; empty before it was ready.
        self.digest = ""

    @property
    def is_running(self) -> bool:
        """Whether its process runs now."""
        return self._process is not None and self._process.poll() is None

    def tend(self, say: Callable[[str], None]) -> None:
        """Start what is to be started, notice what has changed; asks S3 once until the worker is ready.

        Raises:
            WorkerEnded: it ended before it was ever ready.
        """
        if self.given_up:
            return
        if self._process is None:
            if time.monotonic() >= self._start_at_s:
                self._start()
        elif (code := self._process.poll()) is not None:
            self._ended(128 - code if code < 0 else code, say)
        elif not self.is_ready and (beat := self._find_beat(self._process.pid)):
            model = beat.model.name if beat.model else "no model"
            # Before it counts as ready: who follows rolls reads both from another thread.
            self.digest = beat.model.digest.removeprefix("sha256:") if beat.model else ""
            self.is_ready = self.was_ready = True
            say(f"worker {self.number}  ready after {time.monotonic() - self._began_s:.1f} s, {model}, log {self.log}")

    def drain(self) -> None:
        """Ask it to finish what it holds and end. One that is not ready yet holds nothing, and is killed."""
        self._send(signal.SIGTERM if self.is_ready else signal.SIGKILL)

    def kill(self) -> None:
        """End it at once; what it holds comes back to the queue when its leases end."""
        self._send(signal.SIGKILL)

    def _start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._log_from = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as output:
            self._process = child.start(
                [sys.executable, "-m", "irs.cli", "worker"],
                environment=self._environment,
                at_parents_end=self._at_parents_end,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C at the terminal is for `irs up`, which drains its workers.
                start_new_session=True,
            )
        self._began_s = time.monotonic()

    def _ended(self, code: int, say: Callable[[str], None]) -> None:
        ran_s = time.monotonic() - self._began_s
        self._process, self.is_ready = None, False
        words = self._last_words()
        if not self.was_ready:
            raise WorkerEnded(f"Worker {self.number} could not start: {words} (log {self.log})", code or 1)
        if code == WRONG_USE:
            self.given_up = True
            say(f"worker {self.number}  cannot start again: {words} (log {self.log})")
            return
        self._pause_s = FIRST_PAUSE_S if ran_s > TRUSTED_S else min(2 * self._pause_s, LONGEST_PAUSE_S)
        self._start_at_s = time.monotonic() + self._pause_s
        say(f"worker {self.number}  ended with {code}, starts again in {self._pause_s:g} s, log {self.log}")

    def _find_beat(self, pid: int) -> Beat | None:
        with suppress(NotFound, PassingError, ValueError):
            beat = Beat.from_json(self._cloud.output.get(beat_key(self.instance)))
            # Of the process of now: the one before has left a beat under the same name.
            return beat if beat.pid == pid and beat.phase in ("ready", "busy") else None
        return None

    def _last_words(self) -> str:
        with self.log.open("rb") as log:
            log.seek(self._log_from)
            words = last_words(log.read().decode(errors="replace"))
        return words.removeprefix("irs: ") or "it said nothing"

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            # The whole group: it was started as the leader of its own.
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


class Crew:
    """The workers of one ``irs up``."""

    def __init__(self, workers: list[Worker], say: Callable[[str], None], *, drain_s: float) -> None:
        self.workers, self._say, self._drain_s = workers, say, drain_s

    @property
    def is_ready(self) -> bool:
        """Whether each worker has been ready."""
        return all(worker.was_ready for worker in self.workers)

    @property
    def has_given_up(self) -> bool:
        """Whether no worker is left that could work again."""
        return bool(self.workers) and all(worker.given_up for worker in self.workers)

    def tend(self) -> None:
        """Tend each worker; raises as :meth:`Worker.tend`."""
        for worker in self.workers:
            worker.tend(self._say)

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


def forget_old_logs(folder: Path) -> None:
    """Remove logs of workers that nobody wrote to for a week."""
    for log in folder.glob("worker-*.log"):
        with suppress(FileNotFoundError):
            if log.stat().st_mtime < time.time() - LOG_DAYS * 86_400:
                log.unlink()
