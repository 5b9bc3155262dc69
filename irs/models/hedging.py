"""How well a model hedges: accuracy against specificity of ``hedged``, for model cards and ``docs/labels.md``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from irs.models.labels import Answers
from irs.models.model import Model
from irs.records import Options

THRESHOLDS = (0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hedging:
    """What ``hedged`` answers at one threshold; all figures are 0 to 1.

    Attributes:
        answered: share of pictures with an answer.
        accuracy: share of these answers that the truth is, or is below.
        specificity: mean over all pictures of how much the answer says, right or wrong: 1 a label, 0 no answer, else
            log(labels / labels below it) / log(labels).
        gain: the same, but nothing for a wrong answer: what a reader learns. Deng's normalised information gain.
        flat_answered, flat_accuracy: of first labels whose own confidence reaches the threshold.
    """

    threshold: float
    answered: float
    accuracy: float
    specificity: float
    gain: float
    flat_answered: float
    flat_accuracy: float


def hedging_report(
    probabilities: npt.NDArray[np.float32],
    truth: npt.NDArray[np.integer],
    model: Model,
    thresholds: Sequence[float] = THRESHOLDS,
) -> tuple[Hedging, ...]:
    """Return figures for each threshold, or none for a model without a label tree.

    Args:
        probabilities: (N, classes), calibrated, N at least 1.
        truth: (N,) the right output of each picture.
    """
    answers = Answers(model)
    if not answers.can_hedge:
        return ()
    return tuple(_at(threshold, answers, probabilities, truth) for threshold in thresholds)


def hedging_table(report: Sequence[Hedging]) -> list[str]:
    """Return the report as lines of a Markdown table."""
    return [
        "| hedge | answered | right | specificity | gain | first label alone: answered | right |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| {one.threshold:g} | {one.answered:.1%} | {one.accuracy:.1%} | {one.specificity:.2f} | {one.gain:.2f} "
            f"| {one.flat_answered:.1%} | {one.flat_accuracy:.1%} |"
            for one in report
        ),
    ]


def _at(threshold: float, answers: Answers, probabilities: npt.NDArray[np.float32], truth: npt.NDArray[np.integer]) -> Hedging:
    options = Options(hedge=threshold)
    found = [answers.hedge(row, options) for row in probabilities]
    outputs = [one[1] if one else () for one in found]
    classes = probabilities.shape[1]
    says = np.array([math.log(classes / len(below)) / math.log(classes) if below else 0.0 for below in outputs])
    is_right = np.array([right in below for right, below in zip(truth, outputs, strict=True)])
    is_answered = np.array([bool(below) for below in outputs])
    is_flat = probabilities.max(axis=1) >= threshold
    is_flat_right = probabilities.argmax(axis=1) == truth
    return Hedging(
        threshold=threshold,
        answered=float(is_answered.mean()),
        accuracy=_share(is_right, is_answered),
        specificity=float(says.mean()),
        gain=float((says * is_right).mean()),
        flat_answered=float(is_flat.mean()),
        flat_accuracy=_share(is_flat_right, is_flat),
    )


def _share(is_right: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_]) -> float:
    """Return the share; 1 of nothing, as no answer is wrong."""
    return float(is_right[among].mean()) if among.any() else 1.0
