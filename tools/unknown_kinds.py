"""Measure how well a model tells photos of its own kinds from photos of others, and write the table of ``docs/models.md``.

From the repository's root::

    python tools/unknown_kinds.py PHOTOS_DIR MODEL_DIR TRAIN_DIR

``PHOTOS_DIR`` holds photos of both and ``labels.csv`` with the columns ``file`` and ``wnid``; ``TRAIN_DIR`` the pictures
the model was trained on, a folder for each wnid. The area under the curve is the chance that a photo of a known kind
scores higher than one of another; 0.5 is a coin's toss.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from irs.imaging import Limits, decode, fit
from irs.models import Model, open_model
from irs.models.train.features import find_head

Array = npt.NDArray[np.float64]

_LIMITS = Limits(20 * 2**20, 100_000_000)
_BATCH = 64
_NEIGHBOURS = 50
#: Pictures of each class that its mean and its neighbours are taken from.
_EACH = 100


class Seer:
    """A net that tells what it saw beside what it answers."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._net = model.build().eval()
        head = self._net.get_submodule(find_head(self._net, len(model.labels), model.name))
        if not isinstance(head, nn.Linear):
            sys.exit(f"{model.name} does not end in a linear layer: its features cannot be taken.")
        self._seen: list[torch.Tensor] = []
        head.register_forward_pre_hook(lambda _, inputs: self._seen.append(inputs[0].detach()))

    def see(self, paths: list[Path]) -> tuple[Array, Array]:
        """Return features (N, width) and logits (N, classes) divided by the temperature."""
        self._seen.clear()
        parts = [self._batch(paths[first : first + _BATCH]) for first in range(0, len(paths), _BATCH)]
        logits = torch.cat(parts).double().numpy() / self._model.temperature
        return torch.cat(self._seen).double().numpy(), logits

    def _batch(self, paths: list[Path]) -> torch.Tensor:
        preprocess = self._model.preprocess
        pixels = [fit(decode(path.read_bytes(), _LIMITS, side_px=preprocess.resize), preprocess) for path in paths]
        pictures = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (preprocess.mean, preprocess.std))
        with torch.inference_mode():
            answer: torch.Tensor = self._net((pictures - mean) / std)
        return answer


def scores(features: Array, logits: Array, train: Array, classes: npt.NDArray[np.int64]) -> dict[str, Array]:
    """Return scores (N,) by name, higher for what looks more like a known kind.

    Args:
        train: features (M, width) of training pictures, of the ``classes`` (M,).
    """
    shifted = logits - logits.max(axis=1, keepdims=True)
    sums = np.exp(shifted).sum(axis=1)
    probabilities = np.exp(shifted) / sums[:, None]
    count = int(classes.max()) + 1
    means = np.stack([train[classes == one].mean(axis=0) for one in range(count)])
    centred = train - means[classes]
    width = train.shape[1]
    covariance = centred.T @ centred / len(train)
    covariance += 0.01 * np.trace(covariance) / width * np.eye(width)
    inverse = np.linalg.inv(covariance)
    whole = np.cov(train.T) + 0.01 * np.trace(covariance) / width * np.eye(width)
    to_class = np.min([_quadratic(features - mean, inverse) for mean in means], axis=0)
    to_all = _quadratic(features - train.mean(axis=0), np.linalg.inv(whole))
    near, far = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (train, features))
    cosine = far @ near.T
    directions = means - train.mean(axis=0)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    turned = features - train.mean(axis=0)
    return {
        "largest probability (served)": probabilities.max(axis=1),
        "less entropy": (probabilities * np.log(probabilities + 1e-12)).sum(axis=1),
        "largest logit": logits.max(axis=1),
        "log-sum-exp of logits (energy)": logits.max(axis=1) + np.log(sums),
        "length of the features": np.linalg.norm(features, axis=1),
        "distance to the nearest class mean (Mahalanobis)": -to_class,
        "the same, less the distance to the mean of all (relative)": to_all - to_class,
        "angle to the nearest class mean": (turned @ directions.T / np.linalg.norm(turned, axis=1, keepdims=True)).max(axis=1),
        f"angle to the {_NEIGHBOURS}th neighbour": np.partition(cosine, -_NEIGHBOURS, axis=1)[:, -_NEIGHBOURS],
    }


def area_under_curve(known: Array, unknown: Array) -> float:
    """Return the chance that a score of ``known`` is above one of ``unknown``; ties count half."""
    above = (known[:, None] > unknown[None, :]).mean() + 0.5 * (known[:, None] == unknown[None, :]).mean()
    return float(above)


def _quadratic(rows: Array, inverse: Array) -> Array:
    product: Array = np.einsum("nd,de,ne->n", rows, inverse, rows, optimize=True)
    return product


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("model")
    parser.add_argument("train", type=Path)
    asked = parser.parse_args()
    torch.manual_seed(0)
    model = open_model(asked.model)
    if not model.wnids:
        sys.exit(f"{model.name} has no wnids: which photos it knows cannot be told.")
    rows = list(csv.DictReader((asked.photos / "labels.csv").read_text().splitlines()))
    seer = Seer(model)
    known = np.array([row["wnid"] in model.wnids for row in rows])
    features, logits = seer.see([asked.photos / row["file"] for row in rows])
    paths = [(path, number) for number, wnid in enumerate(model.wnids) for path in sorted((asked.train / wnid).iterdir())[:_EACH]]
    train, _ = seer.see([path for path, _ in paths])
    found = scores(features, logits, train, np.array([number for _, number in paths]))
    print(f"{model.name}: {known.sum()} photos of its kinds, {(~known).sum()} of others.\n")  # noqa: T201
    print("| score | area under the curve |\n| --- | --- |")  # noqa: T201
    for name, score in found.items():
        print(f"| {name} | {area_under_curve(score[known], score[~known]):.2f} |")  # noqa: T201


if __name__ == "__main__":
    main()
