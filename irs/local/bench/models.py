"""One run of ``irs bench model``: each model's forms, a process a model, and the speeds that ``irs models list`` shows."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from irs.errors import SetupError
from irs.local.bench.pairs import run_program
from irs.models.choice import BUNDLED, find_bundled
from irs.models.speeds import Speed, write_speed

#: Those of the table in docs/models.md, with random weights: as quick as trained ones, and nothing to download.
ARCHITECTURES = (
    "resnet18",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "squeezenet1_0",
    "efficientnet_b0",
    "vit_b_16",
)
HEAD = ("model", "form", "batch", "one core, images/s", "all cores, images/s", "first labels equal", "largest change")


def all_models() -> list[str]:
    """Return the names that ``--all`` stands for."""
    return [f"{name}@random" for name in ARCHITECTURES] + ([BUNDLED] if find_bundled(BUNDLED) else [])


def bench_models(names: Sequence[str], *, photos: Path | None, seconds: float, home: Path) -> Iterator[dict[str, Any]]:
    """Yield each model's figures when they are measured, and keep its speed; some 15 s each, large ones a minute.

    Args:
        photos: a folder of JPEGs to compare labels over; labels of random weights are not compared.
        home: the folder that keeps the speeds.

    Raises:
        SetupError: a model cannot be opened or run.
    """
    for name in names:
        command = [sys.executable, "-m", "irs.local.bench.forms", "--model", name, "--seconds", str(seconds)]
        with_photos = ["--photos", str(photos)] if photos else []
        figures = run_program([*command, *with_photos], f"{name} cannot be measured")
        quickest = max(figures["forms"], key=_rate)
        speed = Speed(images_per_s=_rate(quickest), at=time.time(), device="cpu", precision=quickest["precision"])
        # Under the name in the list of models: weights, random or not, do not change the speed.
        listed = str(figures["model"]).partition("@")[0]
        try:
            write_speed(home, listed, speed)
        except OSError as error:
            raise SetupError(f"The speed of {listed} cannot be kept in {home} ({error}): name another IRS_HOME.") from None
        yield figures


def to_cells(figures: dict[str, Any]) -> list[list[str]]:
    """Return one line for each form and batch size, in the columns of ``HEAD``."""
    return [
        [
            str(figures["model"]),
            str(form["form"]),
            str(rate["batch"]),
            _short(rate["one_thread_per_s"]),
            _short(rate["all_cores_per_s"]),
            f"{form['labels']['equal']:.1%}" if form["labels"] else "",
            f"{form['labels']['far']:.3f}" if form["labels"] else "",
        ]
        for form in figures["forms"]
        for rate in form["rates"]
    ]


def _rate(form: dict[str, Any]) -> float:
    """Return the images a second of all cores at the largest batch."""
    return float(form["rates"][-1]["all_cores_per_s"])


def _short(per_s: float) -> str:
    return f"{per_s:.0f}" if per_s >= 100 else f"{per_s:.1f}"
