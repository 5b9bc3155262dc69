"""``irs train``."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from irs.cli.outcome import Code, answer, note

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from irs.models.train import Trained, TrainingProgress

LINE_EVERY_S = 30.0


def train(
    images: Annotated[Path, typer.Argument(help="A folder with a folder of pictures for each label.")],
    out: Annotated[Path, typer.Option(help="Model directory to write.")],
    architecture: Annotated[
        str | None, typer.Option(help="Net from random weights: irs:m (as without), or a torchvision name.", show_default=False)
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            "--from", help="Keep this model, directory or torchvision name, and train its last layer only.", show_default=False
        ),
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the pictures; else 30.", show_default=False)] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Budget in place of --epochs, by a speed test.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="All that is random follows from it.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Pictures in one step.")] = 256,
    side: Annotated[int, typer.Option(help="Side in px of the pictures that the model will take.")] = 64,
    work_dir: Annotated[
        Path | None, typer.Option(help="Folder of checkpoints; else the model directory's name with -run.", show_default=False)
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="CSV file wnid,label (or folder,label); else classes.csv in or beside the folder.", show_default=False),
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(help="Folder of class folders for the figures; else pictures held back.", show_default=False)
    ] = None,
    name: Annotated[str, typer.Option(help="Name in the records; else that of the model directory.", show_default=False)] = "",
    license: Annotated[str, typer.Option(help="License of the model, for its card.", show_default=False)] = "",
    source: Annotated[str, typer.Option(help="Where it comes from, for its card.", show_default=False)] = "",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train a model on your own pictures and write its directory.

    SIGTERM and Ctrl-C keep what is done; the same command again goes on from there.
    """
    from irs.cli.operate import require_worker_extra

    require_worker_extra("irs train")
    from irs.models.train import Listener, TrainingOptions, TrainingStopped
    from irs.models.train import train as run

    options = TrainingOptions(
        images=images,
        out=out,
        architecture=architecture,
        backbone=backbone,
        epochs=epochs,
        minutes=minutes,
        seed=seed,
        batch=batch_size,
        side_px=side,
        work=work_dir,
        labels=labels,
        validation=validation,
        name=name,
        license=license,
        source=source,
        device=device,
        command=shlex.join(["irs", *sys.argv[1:]]),
    )
    with _stop_asked() as stop, _Shown() as shown:
        try:
            trained = run(options, Listener(say=shown.say, show=shown.show, is_stopped=stop.is_set))
        except TrainingStopped as stopped:
            shown.say(f"irs: {stopped}")
            raise typer.Exit(Code.INTERRUPTED) from None
    _tell(out, trained)


def _tell(out: Path, trained: Trained) -> None:
    seen = trained.figures
    answer(f"{out}: {seen.top1:.1%} of {seen.pictures:,} pictures right, {seen.top5:.1%} within five, calibration {seen.ece:.3f}")


@contextmanager
def _stop_asked() -> Iterator[threading.Event]:
    """Yield what the first SIGTERM or Ctrl-C sets; the second ends the process as usual."""
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def ask(number: int, _frame: FrameType | None) -> None:
        stop.set()
        # By no buffer of Python's: the signal may have come in the midst of one's writing.
        os.write(2, b"irs: stops as soon as what is done is kept; Ctrl-C once more ends it at once\n")
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Shown:
    """How far it is: a bar on a terminal, a plain line now and then in a pipe; on standard error."""

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._shown_s = -LINE_EVERY_S

    def __enter__(self) -> _Shown:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[detail]}"), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._bar.add_task("reading", total=None, detail="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, line: str) -> None:
        """Show one line, above the bar."""
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False)
        else:
            note(line)

    def show(self, progress: TrainingProgress) -> None:
        """Show where it stands."""
        if self._bar is not None:
            task = self._bar.task_ids[0]
            self._bar.update(
                task, description=progress.doing, completed=progress.done, total=progress.total, detail=progress.detail
            )
        elif (now_s := time.monotonic()) - self._shown_s >= LINE_EVERY_S or progress.done == progress.total:
            self._shown_s = now_s
            left = "" if progress.remaining_s is None else f", {progress.remaining_s / 60:.0f} min left"
            detail = f": {progress.detail}" if progress.detail else ""
            note(f"{progress.doing} {progress.done:,}/{progress.total:,}{detail}{left}")
