"""``irs bench model``: forms, rates, agreement, and where the speeds end up."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from irs.cli import app
from irs.imaging import Preprocess
from irs.local.bench.forms import all_cores_per_s, measure, one_thread_per_s
from irs.local.bench.models import ARCHITECTURES, all_models
from irs.local.bench.reference import agreement, reference_probabilities, served_probabilities
from irs.models import Forward, open_model
from irs.models.architectures import architectures, build
from irs.models.speeds import read_speeds
from irs.settings import get_settings

CLASSES = 4


@pytest.fixture(autouse=True)
def _one_thread_a_call() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A model directory: irs's own net at 32 px, random weights that tell pictures apart."""
    directory = tmp_path / "tiny"
    directory.mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = build("irs:m", CLASSES)
        torch.nn.init.normal_(net.head.weight, std=0.2)  # type: ignore[union-attr, arg-type]
    save_file(net.state_dict(), directory / "weights.safetensors")
    description = {
        "name": "tiny",
        "architecture": "irs:m",
        "preprocess": {"resize": 36, "crop": 32},
        "sha256": hashlib.sha256((directory / "weights.safetensors").read_bytes()).hexdigest(),
    }
    (directory / "model.json").write_text(json.dumps(description))
    (directory / "labels.txt").write_text("\n".join("abcd") + "\n")
    return directory


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Eleven JPEGs, not square: more than one batch, and the last one not full."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(11):
        patches = np.random.default_rng(number).integers(0, 256, (3 + number, 5, 3), dtype=np.uint8)
        Image.fromarray(patches).resize((90, 60), Image.Resampling.BICUBIC).save(folder / f"{number:02d}.jpg", quality=95)
    return sorted(folder.iterdir())


def test_the_served_form_agrees_with_the_reference_on_photos(tiny: Path, photos: list[Path]) -> None:
    model = open_model(str(tiny))
    exact = reference_probabilities(model, photos)

    found = agreement(exact, served_probabilities(model, Forward(model, device="cpu", precision="fp32"), photos))

    assert (11, 1.0) == (found["photos"], found["equal"])
    assert 0 < found["far"] < 0.05


def test_the_reference_prepares_photos_as_the_model_says(tiny: Path, photos: list[Path]) -> None:
    description = json.loads((tiny / "model.json").read_text())
    model = open_model(str(tiny))
    (tiny / "model.json").write_text(json.dumps({**description, "preprocess": {"resize": 90, "crop": 32}}))
    closer = open_model(str(tiny))

    assert Preprocess(resize=90, crop=32) == closer.preprocess
    assert np.abs(reference_probabilities(model, photos) - reference_probabilities(closer, photos)).max() > 0.01


def test_agreement_counts_first_labels_and_how_far_they_moved() -> None:
    exact = np.float32([[0.7, 0.3], [0.4, 0.6], [0.9, 0.1], [0.5, 0.5]])
    served = np.float32([[0.6, 0.4], [0.55, 0.45], [0.9, 0.1], [0.5, 0.5]])

    found = agreement(exact, served)

    assert 0.75 == found["equal"]
    assert 0.15 == pytest.approx(found["far"])


def test_each_form_is_measured_at_each_batch_and_compared_over_the_photos(tiny: Path, photos: list[Path]) -> None:
    forms = list(measure(open_model(str(tiny)), photos, seconds=0.01))

    assert ["eager fp32", "graph fp32"] == [form["form"] for form in forms[:2]]
    assert [[1, 8]] * len(forms) == [[rate["batch"] for rate in form["rates"]] for form in forms]
    assert all(rate["one_thread_per_s"] > 0 and rate["all_cores_per_s"] > 0 for form in forms for rate in form["rates"])
    assert 1.0 == forms[1]["labels"]["equal"]


def busy(pixels: np.ndarray) -> np.ndarray:
    """Use 10 ms of CPU."""
    end_s = time.thread_time() + 0.01
    while time.thread_time() < end_s:
        pass
    return pixels


def test_the_rate_of_one_thread_counts_its_cpu_time_alone() -> None:
    rate = one_thread_per_s(busy, np.zeros((8, 1, 1, 3), np.uint8), 0.05)

    # 800 a second, whatever else runs here.
    assert 600 < rate <= 800


def test_the_rate_of_all_cores_counts_each_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    meet = threading.Barrier(4, timeout=30)

    def together(pixels: np.ndarray) -> np.ndarray:
        meet.wait()
        return pixels

    # Four threads, each at least two batches of eight: it ends only if they run at once.
    began_s = time.monotonic()
    rate = all_cores_per_s(together, np.zeros((8, 1, 1, 3), np.uint8), 0.0)

    assert rate >= 4 * 2 * 8 / (time.monotonic() - began_s)


def test_the_command_shows_a_table_and_keeps_the_speed(
    tiny: Path, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRS_HOME", str(tmp_path / "home"))
    get_settings.cache_clear()
    file = tmp_path / "out.json"

    ran = CliRunner().invoke(
        app, ["bench", "model", str(tiny), "--photos", str(photos[0].parent), "--seconds", "0.01", "--json", str(file)]
    )
    get_settings.cache_clear()

    assert 0 == ran.exit_code, ran.output
    assert "graph fp32" in ran.output
    written = json.loads(file.read_text())["models"][0]
    speed = read_speeds(tmp_path / "home")["tiny"]
    assert "tiny" == written["model"]
    assert max(form["rates"][-1]["all_cores_per_s"] for form in written["forms"]) == speed.images_per_s


def test_a_model_that_cannot_be_opened_is_told_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = CliRunner().invoke(app, ["bench", "model", str(tmp_path / "none")])

    assert "cannot be measured" in str(ran.exception)
    assert "There is no model directory" in str(ran.exception)
    assert "\n" not in str(ran.exception)


def test_no_model_named_is_told_in_one_sentence() -> None:
    ran = CliRunner().invoke(app, ["bench", "model"])

    assert "name some, or say --all" in str(ran.exception)


def test_all_stands_for_architectures_that_torchvision_has() -> None:
    assert set(ARCHITECTURES) <= set(architectures())
    assert [f"{name}@random" for name in ARCHITECTURES] == all_models()[: len(ARCHITECTURES)]
