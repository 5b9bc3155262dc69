"""How far a job is, told on standard error: a bar on a terminal, a plain line now and then in a pipe."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from irs.cli.outcome import note

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from irs.client import Progress
    from irs.cloud import Cloud

LINE_EVERY_S = 5.0
#: Waiting so long for the first answer, a person wants to know whether anyone works on it.
PATIENCE_S = 4.0


class ProgressShown:
    """While entered, :meth:`update` shows how far the job is.

    Args:
        beside_answers: answers come on the same terminal meanwhile: no bar may be in their way.
    """

    def __init__(self, cloud: Cloud, *, beside_answers: bool) -> None:
        self._cloud = cloud
        self._bar: Bar | None = None
        self._is_quiet = beside_answers and sys.stdout.isatty()
        self._said_s = time.monotonic()
        self._hint = threading.Timer(PATIENCE_S, self._hint_at_workers)
        self._hint.daemon = True

    def __enter__(self) -> Self:
        if sys.stderr.isatty() and not self._is_quiet:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._bar.add_task("handing in", total=None)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._hint.cancel()
        if self._bar is not None:
            self._bar.stop()

    def waiting(self) -> None:
        """All is handed in: from now on answers are waited for."""
        self._hint.start()

    def update(self, progress: Progress) -> None:
        """Show how far the job is now; from one thread at a time."""
        if progress.done:
            self._hint.cancel()
        doing = "recognising" if progress.count is not None else "handing in"
        if self._bar is not None:
            done = progress.done if progress.count is not None else progress.sent
            self._bar.update(self._bar.task_ids[0], description=doing, completed=done, total=progress.count)
        elif not self._is_quiet and (now_s := time.monotonic()) - self._said_s >= LINE_EVERY_S:
            self._said_s = now_s
            note(f"{doing}: {progress.sent} handed in, {progress.done} of {progress.count or '?'} answered")

    def _hint_at_workers(self) -> None:
        from irs.errors import IrsError
        from irs.monitoring.decisions import find_scaler
        from irs.monitoring.status import see_workers

        try:
            phases = [worker.phase for worker in see_workers(self._cloud)]
            scaler = find_scaler(self._cloud)
        except IrsError:
            # The job itself says what is wrong.
            return
        if not any(phase in ("ready", "busy", "retiring") for phase in phases):
            if any(phase in ("starting", "warming") for phase in phases):
                line = "A worker is starting."
            elif scaler is not None and scaler.is_leading:
                line = f"No worker runs yet, the scaler starts them: {scaler.reason}"
            else:
                line = "No worker is running: start one with `irs worker` or `irs up`."
            (self._bar.console.print if self._bar is not None else note)(line)
