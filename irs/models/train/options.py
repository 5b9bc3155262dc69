"""What a caller of a training sets, and what it tells meanwhile."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from irs.errors import SetupError

DEFAULT_ARCHITECTURE = "irs:m"
DEFAULT_EPOCHS = 30.0
_SIDES_PX = (32, 512)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """One training.

    Attributes:
        images: folder of class folders.
        out: the model directory to be written.
        architecture: of a net from random weights; None: ``irs:m``.
        backbone: model directory or torchvision name whose features a new last layer is trained on; None: from scratch.
        epochs, minutes: the budget, one of them; None for both: 30 epochs.
        side_px: of the pictures the model will take.
        work: folder of the array of pictures and the checkpoints; None: beside ``out``.
        labels: CSV file with the columns ``wnid`` (or ``folder``) and ``label``.
        validation: folder of class folders that the figures are measured on; None: those held back.
        name: of the model; empty: that of ``out``.
    """

    images: Path
    out: Path
    architecture: str | None = None
    backbone: str | None = None
    epochs: float | None = None
    minutes: float | None = None
    seed: int = 0
    batch: int = 256
    side_px: int = 64
    work: Path | None = None
    labels: Path | None = None
    validation: Path | None = None
    name: str = ""
    license: str = ""
    source: str = ""
    device: str = "auto"
    command: str = ""

    def __post_init__(self) -> None:
        if self.epochs is not None and self.minutes is not None:
            raise SetupError("Give the budget as --epochs or as --minutes, not both.")
        if self.backbone is not None and (self.epochs is not None or self.minutes is not None):
            raise SetupError("With --from the training ends by itself: leave --epochs and --minutes out.")
        for option, value in (("--epochs", self.epochs), ("--minutes", self.minutes), ("--batch-size", self.batch)):
            if value is not None and not 0 < value < math.inf:
                raise SetupError(f"{option} is {value}: it must be a number above 0.")
        if not _SIDES_PX[0] <= self.side_px <= _SIDES_PX[1] or self.side_px % 16:
            raise SetupError(f"--side is {self.side_px}: it must be a multiple of 16 px, {_SIDES_PX[0]} to {_SIDES_PX[1]}.")
        if self.architecture is not None and self.backbone is not None:
            raise SetupError(
                "Give --architecture for a net from random weights, or --from for the features of a model, not both."
            )

    @property
    def work_folder(self) -> Path:
        """Where what outlives a stop is kept."""
        return self.work or self.out.absolute().parent / f"{self.out.name}-run"

    @property
    def model_name(self) -> str:
        """What records call the model."""
        return self.name or self.out.absolute().name


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingProgress:
    """How far a training is: ``done`` of ``total`` of what ``doing`` names; ``remaining_s`` at the speed of now."""

    doing: str
    done: int
    total: int
    detail: str = ""
    remaining_s: float | None = None


@dataclass(frozen=True, slots=True)
class Listener:
    """Who is told: ``say`` takes a line, ``show`` where it stands, ``is_stopped`` tells whether to stop after this step."""

    say: Callable[[str], None] = field(default=lambda _line: None)
    show: Callable[[TrainingProgress], None] = field(default=lambda _progress: None)
    is_stopped: Callable[[], bool] = field(default=lambda: False)


class TrainingStopped(Exception):
    """It was asked to stop after ``done`` of ``total`` of what ``doing`` names, and kept them: no error."""

    def __init__(self, doing: str, done: int, total: int, work: Path) -> None:
        super().__init__(doing, done, total, work)
        self.doing, self.done, self.total, self.work = doing, done, total, work

    def __str__(self) -> str:
        return (
            f"Stopped after {self.doing} {self.done:,} of {self.total:,}, kept in {self.work}: "
            "the same command again goes on from there."
        )
