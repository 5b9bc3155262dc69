"""Batches made of the tiles: cut, resized, mirrored and coloured by matrix products, cheaper than any picture library.

Every draw comes from the seed and the step's number alone: a step can be made again, in any process.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from irs.models.train.plan import Plan

Floats = npt.NDArray[np.float32]

MEAN = (0.480, 0.449, 0.398)
STD = (0.274, 0.267, 0.280)
_LUMA = np.array((0.299, 0.587, 0.114))
_ASPECT = np.log(4 / 3)
_LEAST_AREA, _LEAST_AREA_STRONG = 0.35, 0.25
_BRIGHTNESS, _CONTRAST, _SATURATION = 0.3, 0.3, 0.4
_GREY_SHARE, _ERASED_SHARE = 0.05, 0.25
_ERASED_AREA = (0.02, 0.25)
_MIXUP_ALPHA = 0.2
#: Streams of random numbers that must not meet.
_SHUFFLE, _DRAW = 0, 1


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures (B, 3, side, side), normalised, channels last; ``share`` of each is of ``targets``, the rest of ``others``."""

    pictures: torch.Tensor
    targets: torch.Tensor
    others: torch.Tensor
    share: float


class Augmenter:
    """The batches of one plan.

    Args:
        pixels: (N, 3, S, S) uint8, on the device that makes the batches.
        rows: the pictures of the plan, as rows of ``pixels``.
        targets: the class of each of ``rows``.
        dtype: of the pictures; bfloat16 holds bytes exactly.
    """

    def __init__(
        self, plan: Plan, pixels: torch.Tensor, rows: npt.NDArray[np.int64], targets: npt.NDArray[np.int64], dtype: torch.dtype
    ) -> None:
        self._plan, self._pixels, self._rows, self._targets, self._dtype = plan, pixels, rows, targets, dtype
        self._orders: dict[int, npt.NDArray[np.int64]] = {}

    def batch(self, step: int) -> Batch:
        """Return the batch of one step."""
        moment = self._plan.at(step)
        rng = np.random.default_rng((self._plan.seed, _DRAW, step))
        chosen = self._chosen(moment.first, moment.batch)
        source = self._pixels[self._put(self._rows[chosen])].to(self._dtype)
        pictures = self._cut(source, moment.side_px, rng)
        pictures = self._colour(pictures, rng)
        targets = self._put(self._targets[chosen])
        others, share = targets, 1.0
        if self._plan.is_strong:
            self._erase(pictures, rng)
        if moment.is_mixed:
            # The order is random: the neighbour is a random partner.
            others = targets.roll(1)
            pictures, share = _mix(pictures, rng)
        return Batch(pictures.contiguous(memory_format=torch.channels_last), targets, others, share)

    def _chosen(self, first: int, count: int) -> npt.NDArray[np.int64]:
        """Return places ``first`` to ``first + count`` of the endless row of shuffled epochs."""
        places = np.arange(first, first + count)
        epochs = places // self._plan.pictures
        return np.concatenate(
            [self._order(int(epoch))[places[epochs == epoch] % self._plan.pictures] for epoch in np.unique(epochs)]
        )

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        if epoch not in self._orders:
            self._orders = {known: order for known, order in self._orders.items() if known >= epoch - 1}
            rng = np.random.default_rng((self._plan.seed, _SHUFFLE, epoch))
            self._orders[epoch] = rng.permutation(self._plan.pictures)
        return self._orders[epoch]

    def _cut(self, source: torch.Tensor, side_px: int, rng: np.random.Generator) -> torch.Tensor:
        """Return a random part of each picture at ``side_px``, half of them mirrored."""
        count, full_px = len(source), source.shape[-1]
        least = _LEAST_AREA_STRONG if self._plan.is_strong else _LEAST_AREA
        area = rng.uniform(least, 1, count) * full_px**2
        aspect = np.exp(rng.uniform(-_ASPECT, _ASPECT, count))
        width, height = np.minimum(np.sqrt(area * aspect), full_px), np.minimum(np.sqrt(area / aspect), full_px)
        left, top = rng.uniform(0, full_px - width), rng.uniform(0, full_px - height)
        columns = resampling(left, width, side_px, full_px)
        is_mirrored = rng.random(count) < 0.5
        columns[is_mirrored] = columns[is_mirrored, ::-1]
        rows = self._put(resampling(top, height, side_px, full_px)).to(self._dtype)
        across = torch.matmul(source, self._put(columns).to(self._dtype).transpose(1, 2).unsqueeze(1))
        return torch.matmul(rows.unsqueeze(1), across)

    def _colour(self, pictures: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Return the pictures normalised, with other colours in a strong plan: one 3x3 matrix each does both."""
        count, side_px = len(pictures), pictures.shape[-1]
        matrix, offset = np.tile(np.eye(3), (count, 1, 1)), np.zeros((count, 3, 1))
        mean, std = np.array(MEAN)[:, None], np.array(STD)[:, None]
        if self._plan.is_strong:
            brightness, contrast, saturation = (
                rng.uniform(1 - by, 1 + by, (count, 1, 1)) for by in (_BRIGHTNESS, _CONTRAST, _SATURATION)
            )
            saturation[rng.random(count) < _GREY_SHARE] = 0
            matrix = brightness * contrast * (saturation * matrix + (1 - saturation) * _LUMA)
            offset = offset + brightness * (1 - contrast) * float(_LUMA @ mean[:, 0])
        matrix, offset = matrix / (255 * std), (offset - mean) / std
        flat = pictures.reshape(count, 3, -1)
        done = torch.baddbmm(self._put(offset).to(self._dtype), self._put(matrix).to(self._dtype), flat)
        return done.view(count, 3, side_px, side_px)

    def _erase(self, pictures: torch.Tensor, rng: np.random.Generator) -> None:
        """Put the mean colour into a rectangle of a quarter of the pictures."""
        count, side_px = len(pictures), pictures.shape[-1]
        boxes = _boxes(rng.uniform(*_ERASED_AREA, count), side_px, rng)
        boxes[rng.random(count) >= _ERASED_SHARE] = False
        pictures.masked_fill_(self._put(boxes).unsqueeze(1), 0)

    def _put(self, array: npt.NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._pixels.device)


def resampling(start: npt.NDArray[np.float64], length: npt.NDArray[np.float64], side_px: int, full_px: int) -> Floats:
    """Return (B, side_px, full_px) matrices that resize ``length`` px from ``start`` on; rows sum to 1.

    A triangle as wide as a target pixel: antialiased as Pillow's bilinear, which the serving side uses.
    """
    scale = (length / side_px)[:, None, None]
    centres = start[:, None, None] + (np.arange(side_px)[None, :, None] + 0.5) * scale
    distance = np.abs(np.arange(full_px)[None, None, :] + 0.5 - centres) / np.maximum(scale, 1)
    weights = np.maximum(1 - distance, 0)
    whole: Floats = (weights / weights.sum(2, keepdims=True)).astype(np.float32)
    return whole


def _boxes(area: npt.NDArray[np.float64], side_px: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Return (B, side, side) masks of rectangles, each of a share ``area`` of the picture."""
    count = len(area)
    aspect = np.exp(rng.uniform(-_ASPECT, _ASPECT, count))
    lines = []
    for length in (np.sqrt(area / aspect), np.sqrt(area * aspect)):
        length_px = np.minimum(length, 1) * side_px
        start_px = rng.uniform(0, side_px - length_px)
        places = np.arange(side_px) + 0.5
        lines.append((places >= start_px[:, None]) & (places < (start_px + length_px)[:, None]))
    inside: npt.NDArray[np.bool_] = lines[0][:, :, None] & lines[1][:, None, :]
    return inside


def _mix(pictures: torch.Tensor, rng: np.random.Generator) -> tuple[torch.Tensor, float]:
    """Return each picture with its neighbour laid over it (mixup) or pasted in (cutmix), and the share that is its own."""
    partners = pictures.roll(1, dims=0)
    if rng.random() < 0.5:
        share = float(rng.beta(_MIXUP_ALPHA, _MIXUP_ALPHA))
        return torch.lerp(partners, pictures, share), share
    box = _boxes(np.array([1 - rng.random()]), pictures.shape[-1], rng)
    mask = torch.from_numpy(box).to(pictures.device).unsqueeze(1)
    return torch.where(mask, partners, pictures), 1 - float(box.mean())
