"""The two pictures of a model card: what is taken for what, and whether confidence can be believed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from irs.models.train.judge import Judgement

CONFUSION, RELIABILITY = "confusion.png", "reliability.png"
#: More names than this along an edge cannot be read.
_NAMED_CLASSES = 40


def draw_charts(folder: Path, judged: Judgement, labels: tuple[str, ...], say: Callable[[str], None]) -> None:
    """Write both pictures into ``folder``; says so and writes none where matplotlib is not installed."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        say("The charts of the model card need matplotlib: install irs[train] and run the same command again.")
        return
    folder.mkdir(exist_ok=True)
    _draw_confusion(folder / CONFUSION, judged, labels)
    _draw_reliability(folder / RELIABILITY, judged)


def _draw_confusion(file: Path, judged: Judgement, labels: tuple[str, ...]) -> None:
    from matplotlib.figure import Figure

    shares = judged.confusion / np.maximum(judged.confusion.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(len(labels) * 0.3, 5, 12))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    if len(labels) <= _NAMED_CLASSES:
        axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=7)
        axes.set_yticks(range(len(labels)), labels, fontsize=7)
    axes.set(xlabel="answered", ylabel="true", title=f"Shares of {judged.pictures:,} pictures")
    figure.colorbar(shown, ax=axes, shrink=0.7)
    figure.savefig(file, dpi=100)


def _draw_reliability(file: Path, judged: Judgement) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot((0, 1), (0, 1), color="0.7", linestyle="--", label="confidence as promised")
    sizes = [20 + 300 * one.count / judged.pictures for one in judged.bins]
    confidences, accuracies = [one.confidence for one in judged.bins], [one.accuracy for one in judged.bins]
    axes.plot(confidences, accuracies, color="tab:blue")
    axes.scatter(confidences, accuracies, s=sizes, color="tab:blue", label="pictures of like confidence")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="share right", title=f"Calibration error {judged.ece:.3f}")
    axes.legend(loc="upper left")
    figure.savefig(file, dpi=100)
