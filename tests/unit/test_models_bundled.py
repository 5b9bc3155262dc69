"""The model that comes with irs: what it promises, measured on pictures it was never trained on."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from irs.imaging import Limits, decode, fit
from irs.models import Forward, Model, open_model
from irs.models.choice import BUNDLED, find_bundled
from irs.models.train.judge import calibration

TILE_PX, COLUMNS = 64, 10
#: Every so many pictures of each kind: 2,000 of 10,000 tell within a point.
EVERY = 5
LIMITS = Limits(20 * 2**20, 100_000_000)
BATCH = 8


@pytest.fixture(scope="module", autouse=True)
def _one_thread_a_call() -> Iterator[None]:
    """As in a worker; OpenMP's own threads spin for one another where other work runs beside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> Model:
    return open_model(BUNDLED)


@pytest.fixture(scope="module")
def forward(model: Model) -> Forward:
    return Forward(model)


def tiles(folder: Path, every: int) -> Iterator[tuple[str, Image.Image]]:
    """Yield kinds' WordNet ids with every so-many-th validation picture."""
    for row in csv.DictReader((folder / "classes.csv").read_text().splitlines()):
        with Image.open(folder / "val" / f"{row['wnid']}.webp") as opened:
            mosaic = opened.convert("RGB")
        for number in range(0, int(row["val"]), every):
            left, top = TILE_PX * (number % COLUMNS), TILE_PX * (number // COLUMNS)
            yield row["wnid"], mosaic.crop((left, top, left + TILE_PX, top + TILE_PX))


def answers(model: Model, forward: Forward, pictures: list[Image.Image]) -> npt.NDArray[np.float32]:
    pixels = [fit(picture, model.preprocess) for picture in pictures]
    parts = [np.stack(pixels[first : first + BATCH]) for first in range(0, len(pixels), BATCH)]
    return np.concatenate([forward.probabilities(part) for part in parts])


def shares(probabilities: npt.NDArray[np.float32], truth: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Return the shares with the right label first, and within five."""
    hits = np.argsort(-probabilities, axis=1)[:, :5] == truth[:, None]
    return float(hits[:, 0].mean()), float(hits.any(axis=1).mean())


def test_the_bundled_model_is_small_and_says_what_it_knows(model: Model) -> None:
    folder = find_bundled(BUNDLED)
    assert folder is not None

    card = (folder / "README.md").read_text()

    assert (folder / "weights.safetensors").stat().st_size <= 15_000_000
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 16_000_000
    assert 200 == len(model.labels) == len(set(model.wnids or ()))
    assert all(label in card for label in model.labels)
    assert "irs train" in card
    assert "knows these 200 kinds and no other" in card


def test_the_bundled_model_names_pictures_it_was_never_trained_on(model: Model, forward: Forward, shared: Path) -> None:
    outputs = {wnid: output for output, wnid in enumerate(model.wnids or ())}
    found = list(tiles(shared / "imagenet200", EVERY))
    truth = np.array([outputs[wnid] for wnid, _ in found])

    probabilities = answers(model, forward, [picture for _, picture in found])

    first, within_five = shares(probabilities, truth)
    assert first >= 0.47
    assert within_five >= 0.72
    # Fewer pictures look a little worse calibrated than they are: 0.03 holds for all 10,000.
    assert calibration(probabilities, truth)[1] <= 0.04


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_bundled_model_keeps_its_word_on_all_validation_pictures(model: Model, forward: Forward, shared: Path) -> None:
    outputs = {wnid: output for output, wnid in enumerate(model.wnids or ())}
    found = list(tiles(shared / "imagenet200", 1))
    truth = np.array([outputs[wnid] for wnid, _ in found])

    probabilities = answers(model, forward, [picture for _, picture in found])

    first, within_five = shares(probabilities, truth)
    assert first >= 0.47
    assert within_five >= 0.72
    assert calibration(probabilities, truth)[1] <= 0.03


def test_real_photos_of_known_kinds_come_out_about_as_well(model: Model, forward: Forward, shared: Path) -> None:
    outputs = {wnid: output for output, wnid in enumerate(model.wnids or ())}
    rows = [row for row in csv.DictReader((shared / "photos" / "labels.csv").read_text().splitlines()) if row["wnid"] in outputs]
    truth = np.array([outputs[row["wnid"]] for row in rows])
    side_px = model.preprocess.resize

    pictures = [decode((shared / "photos" / row["file"]).read_bytes(), LIMITS, side_px=side_px) for row in rows]

    first, within_five = shares(answers(model, forward, pictures), truth)
    # One of 50 photos is two points: less than this is no noise.
    assert first >= 0.42
    assert within_five >= 0.64
