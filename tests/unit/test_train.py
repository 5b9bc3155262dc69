"""Whole trainings of a small set of coloured squares."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from shapes import COLOURS, make_shapes

from irs.errors import SetupError
from irs.imaging import fit
from irs.models import Forward, open_model
from irs.models.train import Listener, TrainingOptions, TrainingProgress, TrainingStopped, train
from irs.models.train.checkpoint import alone_in, load_checkpoint

#: A net of a third of a million parameters: the course of a training is the same.
SMALL = {"architecture": "shufflenet_v2_x0_5", "epochs": 2.0, "batch": 16, "side_px": 32}


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes(tmp_path_factory.mktemp("squares"))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small nets gain nothing from a second thread, and lose much where another process has the core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def options(images: Path, out: Path, **changes: Any) -> TrainingOptions:
    return TrainingOptions(**{**SMALL, "images": images, "out": out, **changes})


def stop_after(steps: int, run: Path) -> Callable[[], bool]:
    """Return what tells to stop when it was asked before so many steps of the training in ``run``."""
    asked = iter(range(steps + 1))
    return lambda: any(run.glob("checkpoint-*")) and next(asked, steps) >= steps


def state_of(run: Path) -> dict[str, torch.Tensor]:
    found = load_checkpoint(run)
    assert found is not None
    return found[0]


def test_a_trained_model_names_the_colours_and_its_directory_opens(tmp_path, squares):
    out = tmp_path / "colours"
    losses: list[float] = []

    def watch(progress: TrainingProgress) -> None:
        if progress.doing == "training":
            losses.append(float(progress.detail.partition("loss ")[2].partition(",")[0]))

    train(options(squares, out, architecture="irs:m", epochs=6.0), Listener(show=watch))

    model = open_model(str(out))
    assert tuple(COLOURS) == model.labels
    assert ("colours", "irs:m", 32) == (model.name, model.architecture, model.preprocess.crop)
    assert losses[-1] < math.log(len(COLOURS)) - 0.3
    fresh = make_shapes(tmp_path / "fresh", each=8, seed=9)
    forward = Forward(model)
    for label, colour in enumerate(COLOURS):
        pixels = np.stack([fit(Image.open(path), model.preprocess) for path in sorted((fresh / colour).iterdir())])
        assert (forward.probabilities(pixels).argmax(1) == label).mean() >= 0.75


def test_a_model_directory_holds_card_charts_and_weights_in_half_precision(tmp_path, squares):
    out = tmp_path / "colours"

    train(options(squares, out, architecture=None, epochs=1.0, license="CC0-1.0", command="irs train squares --out colours"))

    assert {"model.json", "weights.safetensors", "labels.txt", "README.md", "charts"} == {path.name for path in out.iterdir()}
    assert {"confusion.png", "reliability.png"} == {path.name for path in (out / "charts").iterdir()}
    assert (out / "weights.safetensors").stat().st_size < 15_000_000
    card = (out / "README.md").read_text()
    for told in ("irs train squares --out colours", "first label right", "calibration error", "images a second", "CC0-1.0"):
        assert told in card
    assert () == open_model(str(out)).pictures


def test_a_model_of_wordnet_kinds_says_what_its_hedged_labels_are_worth(tmp_path, squares):
    kinds = tmp_path / "kinds"
    # Two cats and a coffee: the cats have a parent.
    for colour, wnid in zip(COLOURS, ("n02123045", "n02124075", "n07920052"), strict=True):
        (kinds / wnid).parent.mkdir(exist_ok=True)
        (kinds / wnid).symlink_to(squares / colour, target_is_directory=True)
    (kinds / "classes.csv").write_text("wnid,label\nn02123045,tabby\nn02124075,Egyptian cat\nn07920052,espresso\n")

    trained = train(options(kinds, tmp_path / "cats", epochs=1.0))

    assert "| hedge | answered | right |" in (tmp_path / "cats" / "README.md").read_text()
    assert round(trained.figures.top1, 4) == json.loads((tmp_path / "cats" / "model.json").read_text())["accuracy"]


def test_a_stopped_training_goes_on_to_the_same_bits_as_one_that_never_stopped(tmp_path, squares):
    train(options(squares, tmp_path / "whole", epochs=3.0))
    parts = options(squares, tmp_path / "parts", epochs=3.0)
    for steps in (3, 2):
        with pytest.raises(TrainingStopped, match="the same command again goes on from there"):
            train(parts, Listener(is_stopped=stop_after(steps, parts.work_folder)))

    train(parts)

    whole, pieces = state_of(tmp_path / "whole-run"), state_of(tmp_path / "parts-run")
    assert whole.keys() == pieces.keys()
    assert [] == [name for name in whole if not torch.equal(whole[name], pieces[name])]
    assert (tmp_path / "whole" / "weights.safetensors").read_bytes() == (tmp_path / "parts" / "weights.safetensors").read_bytes()


def test_a_training_killed_before_its_first_step_begins_again(tmp_path, squares):
    given = options(squares, tmp_path / "colours", epochs=1.0)
    with pytest.raises(TrainingStopped):
        train(given, Listener(is_stopped=stop_after(0, given.work_folder)))

    train(given)

    assert (tmp_path / "colours" / "model.json").exists()


@pytest.mark.parametrize("backbone", [None, "mobilenet_v3_small@random"])
def test_a_stop_while_pictures_are_read_ends_at_once_and_none_is_read_twice(tmp_path, squares, backbone):
    changes = {"architecture": None, "backbone": backbone, "epochs": None} if backbone else {"epochs": 1.0}
    given = options(squares, tmp_path / "colours", **changes)
    with pytest.raises(TrainingStopped, match=r"Stopped after picture 32 of 72, kept in .*colours-run: the same command again"):
        train(given, Listener(is_stopped=lambda: True))
    seen: list[int] = []

    def watch(progress: TrainingProgress) -> None:
        if progress.doing != "training":
            seen.append(progress.done)

    train(given, Listener(show=watch))

    assert [64, 72] == seen


def test_a_work_folder_of_another_training_is_refused(tmp_path, squares):
    with pytest.raises(TrainingStopped):
        train(options(squares, tmp_path / "colours"), Listener(is_stopped=stop_after(0, tmp_path / "colours-run")))

    with pytest.raises(SetupError, match=r"holds a training with epochs 2.0, not 9.0: give the same command, another --work-dir"):
        train(options(squares, tmp_path / "colours", epochs=9.0))


def test_minutes_become_a_plan_by_the_speed_of_this_machine(tmp_path, squares):
    said: list[str] = []
    given = options(squares, tmp_path / "colours", epochs=None, minutes=0.1)

    with pytest.raises(TrainingStopped):
        train(given, Listener(say=said.append, is_stopped=stop_after(0, given.work_folder)))

    found = load_checkpoint(tmp_path / "colours-run")
    assert found is not None
    plan = json.loads(found[1]["plan"])
    assert [16, 24, 32] == [stage["side_px"] for stage in plan["stages"]]
    assert any("epochs of" in line for line in said)


def test_figures_come_from_a_validation_folder_where_one_is_given(tmp_path, squares):
    validation = make_shapes(tmp_path / "validation", each=7, seed=5)

    trained = train(options(squares, tmp_path / "colours", epochs=1.0, validation=validation))

    assert 21 == trained.figures.pictures
    assert "never trained on" in (tmp_path / "colours" / "README.md").read_text()


@pytest.mark.parametrize("backbone", ["resnet18@random", "squeezenet1_0@random"])
def test_a_new_last_layer_on_a_model_at_hand_names_the_colours(tmp_path, backbone):
    few = make_shapes(tmp_path / "few", each=10, side_px=64)

    trained = train(options(few, tmp_path / "colours", architecture=None, backbone=backbone, epochs=None))

    model = open_model(str(tmp_path / "colours"))
    assert backbone.partition("@")[0] == model.architecture
    assert tuple(COLOURS) == model.labels
    assert trained.held.top1 >= 0.8
    pixels = np.stack([fit(Image.open(path), model.preprocess) for path in sorted((few / "green").iterdir())])
    assert (Forward(model).probabilities(pixels).argmax(1) == 1).mean() >= 0.8


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"epochs": 1.0, "minutes": 1.0}, "as --epochs or as --minutes, not both"),
        ({"epochs": 0.0}, "--epochs is 0.0: it must be a number above 0"),
        ({"epochs": math.inf}, "--epochs is inf: it must be a number above 0"),
        ({"epochs": math.nan}, "--epochs is nan: it must be a number above 0"),
        ({"epochs": None, "minutes": math.inf}, "--minutes is inf: it must be a number above 0"),
        ({"side_px": 50}, "--side is 50: it must be a multiple of 16 px"),
        ({"architecture": "resnet18", "backbone": "resnet18", "epochs": None}, "not both"),
        ({"architecture": None, "backbone": "resnet18"}, "leave --epochs and --minutes out"),
    ],
)
def test_options_that_do_not_fit_together_are_told(tmp_path, changes, sentence):
    with pytest.raises(SetupError, match=sentence):
        options(tmp_path, tmp_path / "out", **changes)


def test_a_device_that_is_none_is_told_before_anything_is_read(tmp_path, squares):
    with pytest.raises(SetupError, match="There is no device 'cdua': set IRS_DEVICE or --device to auto, cpu or cuda"):
        train(options(squares, tmp_path / "out", device="cdua"))

    assert [] == list(tmp_path.iterdir())


def test_a_validation_folder_without_pictures_is_told_before_the_training(tmp_path, squares):
    (tmp_path / "validation" / "red").mkdir(parents=True)

    with pytest.raises(SetupError, match=r"validation has no pictures in its class folders"):
        train(options(squares, tmp_path / "out", validation=tmp_path / "validation"))

    assert ["validation"] == [path.name for path in tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("architecture", "sentence"),
    [
        ("inception_v3", "inception_v3 does not take pictures of 48 px: give another --side, 224 fits most"),
        ("vit_b_32", r"The architecture vit_b_32 takes no pictures of 48 px \(.+\): choose another side"),
    ],
)
def test_a_net_that_takes_no_such_pictures_is_told(tmp_path, squares, architecture, sentence):
    with pytest.raises(SetupError, match=sentence):
        train(options(squares, tmp_path / "out", architecture=architecture, side_px=48))


@pytest.mark.parametrize("changes", [{"epochs": 1.0}, {"architecture": None, "backbone": "resnet18@random", "epochs": None}])
def test_no_other_training_comes_into_the_work_folder_until_the_model_is_written(tmp_path, squares, monkeypatch, changes):
    def write(given: TrainingOptions, *_: Any) -> None:
        with pytest.raises(SetupError, match="Another irs train works in"), alone_in(given.work_folder):
            pass

    monkeypatch.setattr("irs.models.train.run.write_model", write)

    train(options(squares, tmp_path / "out", **changes))


def test_a_folder_with_files_of_others_is_not_written_to(tmp_path, squares):
    out = tmp_path / "precious"
    out.mkdir()
    (out / "thesis.txt").write_text("ten years")

    with pytest.raises(SetupError, match="holds files that irs train did not write: name another folder"):
        train(options(squares, out))

    assert ["thesis.txt"] == [path.name for path in out.iterdir()]


def test_a_model_that_does_not_fit_on_the_disk_is_told_and_leaves_the_one_before(tmp_path, squares, monkeypatch):
    given = options(squares, tmp_path / "out", epochs=1.0)
    train(given)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("irs.models.train.write.draw_charts", full)

    with pytest.raises(SetupError, match=r"cannot be written to .*No space left on device.*: make room"):
        train(given)
    assert {"out", "out-run"} == {path.name for path in tmp_path.iterdir()}
    open_model(str(tmp_path / "out"))


def test_a_model_that_a_killed_process_had_set_aside_is_back_and_then_replaced(tmp_path, squares):
    given = options(squares, tmp_path / "out", epochs=1.0)
    train(given)
    # As a kill between its two steps leaves it.
    (tmp_path / "out").rename(tmp_path / ".out.old")
    seen: list[bool] = []

    def watch(_: TrainingProgress) -> None:
        seen.append((tmp_path / "out" / "model.json").exists())

    train(options(squares, tmp_path / "out", epochs=1.0, name="second", work=tmp_path / "again"), Listener(show=watch))

    assert {True} == set(seen)
    assert "second" == open_model(str(tmp_path / "out")).name
    assert {"out", "out-run", "again"} == {path.name for path in tmp_path.iterdir()}


def test_names_are_written_as_utf8_whatever_the_locale(tmp_path, squares, monkeypatch):
    monkeypatch.setattr("io.text_encoding", lambda encoding, *_: encoding or "latin-1")
    folder = tmp_path / "set"
    shutil.copytree(squares, folder)
    (folder / "red").rename(folder / "röt")

    train(options(folder, tmp_path / "out", architecture=None, backbone="squeezenet1_0@random", epochs=None, name="Bär"))

    assert ("Bär", ("blue", "green", "röt")) == ((model := open_model(str(tmp_path / "out"))).name, model.labels)


def test_a_file_in_place_of_the_model_folder_is_told(tmp_path, squares):
    (tmp_path / "out").write_text("")

    with pytest.raises(SetupError, match="is a file: name a folder for the model"):
        train(options(squares, tmp_path / "out"))


def test_a_model_that_irs_train_wrote_is_replaced(tmp_path, squares):
    given = options(squares, tmp_path / "out", epochs=1.0)
    train(given)

    train(options(squares, tmp_path / "out", epochs=1.0, name="second"))

    assert "second" == open_model(str(tmp_path / "out")).name


def test_a_torchvision_net_trains_from_random_weights(tmp_path, squares):
    trained = train(options(squares, tmp_path / "out", epochs=1.0))

    assert "shufflenet_v2_x0_5" == open_model(str(tmp_path / "out")).architecture == trained.architecture
