"""Measure how a model hedges over labelled photos, and write the tables of ``docs/labels.md``.

From the repository's root, for model directories and torchvision's names alike::

    python tools/hedging_table.py PHOTOS_DIR MODEL...

``PHOTOS_DIR`` holds photos and ``labels.csv`` with the columns ``file`` and ``wnid``.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from irs.imaging import Limits, decode, fit
from irs.models import Answers, Forward, Model, open_model
from irs.models.hedging import hedging_report, hedging_table
from irs.records import Options

_LIMITS = Limits(20 * 2**20, 100_000_000)
_BATCH = 8


def measure(photos: Path, model: Model) -> list[str]:
    """Return the lines of one model's table; ends the program with a sentence where photos and model do not fit."""
    rows = list(csv.DictReader((photos / "labels.csv").read_text().splitlines()))
    outputs = {wnid: output for output, wnid in enumerate(model.wnids or ())}
    known = [row for row in rows if row["wnid"] in outputs]
    if not known:
        sys.exit(f"{model.name} knows none of the wnids in {photos / 'labels.csv'}: choose a model with such labels.")
    truth = np.array([outputs[row["wnid"]] for row in known])
    probabilities = forward(model, [photos / row["file"] for row in known])
    right = (probabilities.argmax(axis=1) == truth).mean()
    within = (np.argsort(-probabilities, axis=1)[:, :5] == truth[:, None]).any(axis=1).mean()
    return [
        f"**{model.name}**, {len(truth)} photos: first label right {right:.1%}, within five {within:.1%}.",
        "",
        *hedging_table(hedging_report(probabilities, truth, model)),
        "",
        f"An image's answer takes {cost_us(model, probabilities):.0f} us more with `hedge=0.9` than with `hedge=0`.",
        "",
    ]


def forward(model: Model, paths: list[Path]) -> npt.NDArray[np.float32]:
    """Return probabilities (N, classes), in full precision."""
    net = Forward(model, device="cpu", precision="fp32", batch_size=_BATCH)
    side_px = model.preprocess.resize
    pixels = [fit(decode(path.read_bytes(), _LIMITS, side_px=side_px), model.preprocess) for path in paths]
    parts = [np.stack(pixels[first : first + _BATCH]) for first in range(0, len(pixels), _BATCH)]
    return np.concatenate([net.probabilities(part) for part in parts])


def cost_us(model: Model, probabilities: npt.NDArray[np.float32], times: int = 20) -> float:
    """Return what hedging adds to an image's answer, in microseconds: the best of a few rounds."""
    answers = Answers(model)
    took = {hedge: min(_round_s(answers, probabilities, hedge) for _ in range(times)) for hedge in (0.0, 0.9)}
    return (took[0.9] - took[0.0]) / len(probabilities) * 1e6


def _round_s(answers: Answers, probabilities: npt.NDArray[np.float32], hedge: float) -> float:
    options = Options(hedge=hedge)
    began = time.perf_counter()
    for row in probabilities:
        answers.answer(row, options)
    return time.perf_counter() - began


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("models", nargs="+")
    asked = parser.parse_args()
    for name in asked.models:
        sys.stdout.write("\n".join(measure(asked.photos, open_model(name))) + "\n")


if __name__ == "__main__":
    main()
