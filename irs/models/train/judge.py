"""How good a net is: accuracy, and confidence that says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from irs.models.train.augment import MEAN, STD

Logits = npt.NDArray[np.float32]
Targets = npt.NDArray[np.int64]

BINS = 15
#: As measured: more change nothing.
BATCH_NORM_PICTURES = 8250
_BATCH = 250
_TEMPERATURES = np.arange(0.40, 2.505, 0.01)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Pictures of like confidence: their number, mean confidence and the share that is right."""

    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Figures of one set of pictures; all shares are 0 to 1.

    Attributes:
        ece: expected calibration error in 15 bins; ``ece_before`` at temperature 1.
        bins: for the reliability curve, those that hold pictures.
        confusion: (classes, classes) counts, row the truth, column the answer.
        probabilities, targets: (pictures, classes) and (pictures,): what all of it was reckoned from.
    """

    pictures: int
    top1: float
    top5: float
    nll: float
    ece: float
    ece_before: float
    bins: tuple[Bin, ...]
    confusion: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]
    targets: Targets


def logits_of(net: nn.Module, pixels: torch.Tensor, rows: npt.NDArray[np.int64], amp: torch.dtype) -> Logits:
    """Return the logits (len(rows), classes) of plain pictures, float32; ``net`` is in evaluation mode afterwards.

    Args:
        pixels: (N, 3, side, side) uint8.
        amp: what convolutions are reckoned in.
    """
    net.eval()
    with torch.inference_mode():
        return np.concatenate([_forward(net, pixels, part, amp).float().cpu().numpy() for part in _parts(rows)])


def recompute_batch_norm(net: nn.Module, pixels: torch.Tensor, rows: npt.NDArray[np.int64], amp: torch.dtype) -> None:
    """Let batch norms hold the statistics of plain pictures, as they are served.

    Those of a training belong to its crops and, under an average of weights, to no net at all: 6 points at 64 px.
    """
    norms = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    # Each batch must hold all kinds; the rows of a folder stand by class.
    mixed = np.random.default_rng(0).permutation(rows)[:BATCH_NORM_PICTURES]
    net.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        # None: the plain mean over all batches.
        norm.momentum = None
        norm.train()
    parts = _parts(mixed)
    with torch.no_grad():
        for part in parts[:-1] if len(parts) > 1 and len(parts[-1]) < _BATCH // 2 else parts:
            _forward(net, pixels, part, amp)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    net.eval()


def fit_temperature(logits: Logits, targets: Targets) -> float:
    """Return the temperature with the least negative log likelihood."""
    scores = torch.from_numpy(logits)
    truth = torch.from_numpy(targets)
    nll = [float(functional.cross_entropy(scores / temperature, truth)) for temperature in _TEMPERATURES]
    return round(float(_TEMPERATURES[int(np.argmin(nll))]), 2)


def judge(logits: Logits, targets: Targets, temperature: float) -> Judgement:
    """Return the figures of ``logits`` (N, classes) divided by ``temperature``."""
    classes = logits.shape[1]
    order = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    hits = order == targets[:, None]
    probabilities = softmax(logits / temperature)
    bins, ece = calibration(probabilities, targets)
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (targets, order[:, 0]), 1)
    return Judgement(
        pictures=len(targets),
        top1=float(hits[:, 0].mean()),
        top5=float(hits.any(axis=1).mean()),
        nll=float(functional.cross_entropy(torch.from_numpy(logits / np.float32(temperature)), torch.from_numpy(targets))),
        ece=ece,
        ece_before=calibration(softmax(logits), targets)[1],
        bins=bins,
        confusion=confusion,
        probabilities=probabilities,
        targets=targets,
    )


def calibration(probabilities: Logits, targets: Targets) -> tuple[tuple[Bin, ...], float]:
    """Return the bins of a reliability curve, and the expected calibration error."""
    confidence, answers = probabilities.max(axis=1), probabilities.argmax(axis=1)
    is_right = answers == targets
    places = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins = [
        Bin(count=int(inside.sum()), confidence=float(confidence[inside].mean()), accuracy=float(is_right[inside].mean()))
        for inside in (places == number for number in range(BINS))
        if inside.any()
    ]
    ece = sum(one.count * abs(one.confidence - one.accuracy) for one in bins) / len(targets)
    return tuple(bins), float(ece)


def softmax(logits: Logits) -> Logits:
    """Return probabilities (N, classes)."""
    return torch.softmax(torch.from_numpy(np.asarray(logits, np.float32)), dim=1).numpy()


def first_output(answer: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the logits: nets with auxiliary heads answer several in training."""
    return answer if isinstance(answer, torch.Tensor) else answer[0]


def _parts(rows: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    return [rows[first : first + _BATCH] for first in range(0, len(rows), _BATCH)]


def _forward(net: nn.Module, pixels: torch.Tensor, rows: npt.NDArray[np.int64], amp: torch.dtype) -> torch.Tensor:
    device = pixels.device
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (MEAN, STD))
    pictures = (pixels[torch.from_numpy(rows).to(device)].float() / 255 - mean) / std
    with torch.autocast(device.type, amp, enabled=amp is not torch.float32):
        return first_output(net(pictures.contiguous(memory_format=torch.channels_last)))
