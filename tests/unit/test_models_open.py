"""Models by directory and by name: what opens, and what is refused in one sentence."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from irs.errors import ModelError
from irs.imaging import Preprocess
from irs.models import list_models, open_model, show_model
from irs.models.architectures import architectures, build, check_takes, load, torchvision_models
from irs.models.zoo import cached_path, find_weights, preprocess_of

CLASSES = 3


def write(directory: Path, *, state: dict[str, torch.Tensor] | None = None, **description: object) -> Path:
    """Write a model of three classes; ``description`` changes its model.json."""
    directory.mkdir(exist_ok=True)
    save_file(state or build("squeezenet1_1", CLASSES).state_dict(), directory / "weights.safetensors")
    (directory / "labels.txt").write_text("cat\ndog\nBär\n")
    (directory / "wnids.txt").write_text("n1\nn2\nn3\n")
    described = {
        "name": "three",
        "architecture": "squeezenet1_1",
        "preprocess": {"resize": 72, "crop": 64, "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.25] * 3},
        "sha256": hashlib.sha256((directory / "weights.safetensors").read_bytes()).hexdigest(),
        "temperature": 1.5,
        "sure_above": 0.7,
        "license": "CC0",
        **description,
    }
    (directory / "model.json").write_text(json.dumps({key: value for key, value in described.items() if value is not None}))
    return directory


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write(tmp_path / "three")


def test_a_directory_opens_as_it_describes_itself(directory: Path) -> None:
    model = open_model(str(directory))

    assert ("three", "squeezenet1_1", ("cat", "dog", "Bär"), ("n1", "n2", "n3")) == (
        model.name,
        model.architecture,
        model.labels,
        model.wnids,
    )
    assert (1.5, 0.7) == (model.temperature, model.sure_above)
    assert Preprocess(72, 64, "bilinear", (0.5,) * 3, (0.25,) * 3) == model.preprocess
    assert (1, 3) == tuple(model.build()(torch.zeros(1, 3, 64, 64)).shape)


def test_the_digest_is_over_description_and_weights(directory: Path) -> None:
    both = (directory / "model.json").read_bytes() + (directory / "weights.safetensors").read_bytes()

    assert f"sha256:{hashlib.sha256(both).hexdigest()}" == open_model(str(directory)).digest


def test_temperature_and_preprocess_have_defaults(tmp_path: Path) -> None:
    model = open_model(str(write(tmp_path / "plain", temperature=None, sure_above=None, preprocess=None)))

    assert (1.0, 0.5, Preprocess()) == (model.temperature, model.sure_above, model.preprocess)


def changed(name: str, text: str) -> Callable[[Path], Any]:
    return lambda directory: (directory / name).write_text(text)


def missing(name: str) -> Callable[[Path], Any]:
    return lambda directory: (directory / name).unlink()


def with_state(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], Any]:
    def make(directory: Path) -> None:
        state = build("squeezenet1_1", CLASSES).state_dict()
        change(state)
        write(directory, state=state)

    return make


def eight_bits(state: dict[str, torch.Tensor]) -> None:
    """Hold no number, in a kind that torch cannot tell it of."""
    state["classifier.1.bias"] = torch.full((CLASSES,), torch.nan).to(torch.float8_e4m3fn)


def cut(directory: Path) -> None:
    path = directory / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    described = json.loads((directory / "model.json").read_text())
    described["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (directory / "model.json").write_text(json.dumps(described))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (missing("model.json"), "model.json is missing"),
        (missing("weights.safetensors"), "weights.safetensors is missing"),
        (missing("labels.txt"), "labels.txt is missing"),
        (changed("model.json", "{"), "model.json is broken: .*JSON"),
        (
            changed("model.json", '{"architecture": "resnet18", "sha256": "' + 64 * "0" + '"}'),
            "model.json is broken: name: Field required",
        ),
        (lambda directory: write(directory, preprocess={"resize": 10, "crop": 64}), "crop 64 must be 1 to resize 10"),
        (lambda directory: write(directory, temperature=0), "temperature: Input should be greater than or equal to 0.01"),
        (lambda directory: write(directory, temperature=1e300), "temperature: Input should be less than or equal to 100"),
        (lambda directory: write(directory, temperature=float("nan")), "temperature: "),
        (lambda directory: write(directory, sha256="0" * 64), "sha256 differs"),
        (lambda directory: write(directory, sha256="no digest"), "sha256: String should match pattern"),
        (lambda directory: write(directory, architecture="squeezenet1_2"), "'squeezenet1_2': did you mean squeezenet1_"),
        (lambda directory: write(directory, architecture="irs:unheard"), "There is no net .irs:unheard. of irs: it has irs:m"),
        (lambda directory: write(directory, architecture="resnet18"), "does not fit the architecture: .* tensors are missing"),
        (changed("wnids.txt", "n1\n"), "wnids.txt has 1 lines and labels.txt 3"),
        (changed("labels.txt", "cat\n\nbear\n"), "labels.txt is empty or has an empty line"),
        (lambda directory: (directory / "labels.txt").write_bytes(b"\xff\xfe\n"), "labels.txt is no UTF-8 text"),
        (changed("labels.txt", "cat\nd\x1b[2Jog\nbear\n"), "Line 2 of .*labels.txt is none to read: write up to 200 letters"),
        (changed("labels.txt", f"cat\ndog\n{'r' * 201}\n"), "Line 3 of .*labels.txt is none to read"),
        (lambda directory: os.truncate(directory / "labels.txt", 2**24 + 1), "labels.txt is larger than 16 MiB"),
        (lambda directory: os.truncate(directory / "model.json", 2**24 + 1), "model.json is larger than 16 MiB"),
        (changed("model.json", '{"deep": ' + 10_000 * "[" + 10_000 * "]" + "}"), "model.json is broken: "),
        (
            with_state(lambda state: state.update({"classifier.1.bias": torch.full((CLASSES,), 1e300, dtype=torch.float64)})),
            "not finite",
        ),
        (with_state(eight_bits), "'classifier.1.bias' holds .* not finite"),
        (cut, "weights.safetensors cannot be read"),
        (with_state(lambda state: state["classifier.1.bias"].fill_(torch.nan)), "'classifier.1.bias' holds .* not finite"),
        (with_state(lambda state: state.update(more=torch.zeros(1))), "1 tensors too many, first 'more'"),
        (with_state(lambda state: state.update({"features.0.weight": torch.zeros(2)})), "'features.0.weight' has the shape"),
        (
            with_state(lambda state: state.update(build("squeezenet1_1", CLASSES + 1).state_dict())),
            "answers 4 classes, but 3 labels are given",
        ),
    ],
)
def test_a_spoilt_directory_is_refused_in_one_sentence(spoil: Callable[[Path], Any], said: str, directory: Path) -> None:
    spoil(directory)

    with pytest.raises(ModelError, match=said) as caught:
        open_model(str(directory)).build()

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "No model is named"),
        ("/nowhere/at/all", "There is no model directory /nowhere/at/all"),
        ("resnet19", "no classification architecture 'resnet19': did you mean resnet1"),
        ("fasterrcnn_resnet50_fpn", "no classification architecture"),
        ("resnet18@IMAGENET22K", "no weights 'IMAGENET22K' for resnet18: choose random or IMAGENET1K_V1"),
    ],
)
def test_a_name_of_no_model_is_refused_in_one_sentence(name: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        open_model(name)


def test_random_weights_are_the_same_each_time_and_leave_the_generator_alone() -> None:
    model = open_model("squeezenet1_1@random")
    torch.manual_seed(1)
    expected = torch.rand(1)

    torch.manual_seed(1)
    first, second = model.build().state_dict(), model.build().state_dict()

    assert expected == torch.rand(1)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert (1000, "tench") == (len(model.labels), model.labels[0])
    assert model.digest == open_model("squeezenet1_1@random").digest != open_model("squeezenet1_0@random").digest


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of torch hub, and no network: its proxy is a closed port."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    (tmp_path / "checkpoints").mkdir()
    return tmp_path


def test_weights_that_cannot_be_fetched_are_told_in_one_sentence(hub: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot be fetched from https://.*squeezenet1_1.*put the file at .* or set IRS_MODEL"):
        open_model("squeezenet1_1")


def test_weights_that_do_not_match_their_name_are_told_in_one_sentence(hub: Path) -> None:
    cached_path(find_weights("squeezenet1_1")).write_bytes(b"broken")

    with pytest.raises(ModelError, match="delete it, and it is fetched again"):
        open_model("squeezenet1_1")


def of_2017(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """DenseNet's tensors as its published file names them, which knows no counters of batches and no versions."""
    old = re.compile(r"(denselayer\d+\.(?:norm|conv))([12]\.)")
    return OrderedDict((old.sub(r"\1.\2", key), state[key]) for key in state if "num_batches" not in key)


def of_2021(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The vision transformer's tensors as its published file names them."""
    names = {".mlp.0.": ".mlp.linear_1.", ".mlp.3.": ".mlp.linear_2."}
    return OrderedDict((re.sub(r"\.mlp\.[03]\.", lambda found: names[found[0]], key), tensor) for key, tensor in state.items())


@pytest.mark.parametrize(
    ("architecture", "published"),
    [("squeezenet1_1", None), ("mnasnet0_5", None), ("densenet121", of_2017)],
)
def test_cached_weights_load_without_a_network(
    architecture: str, published: Callable[[Any], Any] | None, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = find_weights(architecture)
    state = build(architecture, 1000).state_dict()
    torch.save(published(state) if published else state, hub / "weights.pth")
    digits = hashlib.sha256((hub / "weights.pth").read_bytes()).hexdigest()[:8]
    renamed = replace(weights.value, url=f"https://example.invalid/net-{digits}.pth")
    monkeypatch.setattr(weights, "_value_", renamed)
    (hub / "weights.pth").rename(cached_path(weights))

    loaded = open_model(architecture).build().state_dict()

    assert loaded.keys() == state.keys()
    assert [] == [key for key in state if not torch.equal(state[key], loaded[key])]


def test_weights_of_an_older_transformer_find_their_places() -> None:
    net = torchvision_models().VisionTransformer(32, 16, num_layers=1, num_heads=1, hidden_dim=8, mlp_dim=8, num_classes=2)
    state = {key: tensor + 1 for key, tensor in net.state_dict().items()}

    loaded = load(net, of_2021(state), classes=2, origin="the file").state_dict()

    assert [] == [key for key in state if not torch.equal(state[key], loaded[key])]


def test_a_directory_holds_nets_whose_modules_have_versions(tmp_path: Path) -> None:
    state = build("mnasnet0_5", CLASSES).state_dict()
    model = open_model(str(write(tmp_path / "mnasnet", state=state, architecture="mnasnet0_5")))

    assert torch.equal(state["layers.0.weight"], model.build().state_dict()["layers.0.weight"])


def test_every_published_file_bears_the_first_digits_of_its_sha256() -> None:
    names = [cached_path(find_weights(name)).stem.rpartition("-")[2] for name in architectures()]

    assert [] == [name for name in names if len(name) < 8 or set(name) - set("0123456789abcdef")]


def test_torchvisions_preprocessing_comes_with_its_weights() -> None:
    assert Preprocess(384, 380, "bicubic") == open_model("efficientnet_b4@random").preprocess
    assert Preprocess(255, 240, "bilinear") == open_model("efficientnet_b1@random").preprocess


def test_the_list_names_directories_and_torchvision_and_says_what_is_broken(directory: Path) -> None:
    write(directory.parent / "broken", name=None)
    write(directory.parent / "latin").joinpath("labels.txt").write_bytes("Bär\n".encode("latin-1"))

    entries = {entry.name: entry for entry in list_models([directory.parent])}

    assert ("squeezenet1_1", 3, "CC0", None) == (
        entries["three"].architecture,
        entries["three"].classes,
        entries["three"].license,
        entries["three"].problem,
    )
    assert "name: Field required" in str(entries["broken"].problem)
    assert "labels.txt is no UTF-8 text" in str(entries["latin"].problem)
    assert (0.69758, 1000) == (entries["resnet18"].accuracy, entries["resnet18"].classes)
    # Three written here, and the one that comes with irs.
    assert len(torchvision_models().list_models(module=torchvision_models())) + 3 + 1 == len(entries)


def test_one_model_is_shown_with_its_digest(directory: Path) -> None:
    assert open_model(str(directory)).digest == show_model(str(directory)).digest
    assert open_model("resnet18@random").digest == show_model("resnet18@random").digest


def test_only_the_missing_operators_of_torchvision_are_made_up() -> None:
    """Another fault of torchvision must not be hidden; a fresh process, for imports happen once."""
    code = (
        "import builtins\n"
        "real = builtins.__import__\n"
        "def broken(name, *rest):\n"
        "    if name == 'torchvision': raise RuntimeError('other fault')\n"
        "    return real(name, *rest)\n"
        "from irs.models import architectures\n"
        "builtins.__import__ = broken\n"
        "try: architectures.torchvision_models()\n"
        "except RuntimeError as error: print(error, len(architectures._libraries))\n"
    )

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "other fault 0\n" == ran.stdout


def test_a_vision_transformer_is_built_for_the_side_of_its_weights() -> None:
    """It has a place for each patch: torchvision's builders take 224 px for granted, its best weights 384 or 518."""
    weights = find_weights("vit_b_16", "IMAGENET1K_SWAG_E2E_V1")

    net = build("vit_b_16", 10, side_px=preprocess_of(weights).crop)

    assert 1 + (384 // 16) ** 2 == net.encoder.pos_embedding.shape[1]


def test_a_net_with_a_place_for_each_patch_takes_other_sides_too() -> None:
    check_takes(build("vit_b_32", 3, side_px=96), 96, "vit_b_32")


@pytest.mark.parametrize("name", ["vit_b_32", "maxvit_t"])
def test_a_side_that_cannot_be_cut_into_patches_is_told(name: str) -> None:
    with pytest.raises(ModelError, match=rf"The architecture {name} takes no pictures of 100 px \(.+\): choose another side\."):
        build(name, 3, side_px=100)
