"""torchvision's models by name, with its own weights and preprocessing.

``resnet18`` has the weights that torchvision recommends, ``resnet50@IMAGENET1K_V1`` named ones, and
``resnet18@random`` random ones, always the same: for measuring speed without a download.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import socket
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import nn

from irs.errors import ModelError
from irs.imaging import Preprocess
from irs.models import architectures
from irs.models.model import Model

RANDOM = "random"
_SEED = 0
_SILENCE_S = 30.0
# torchvision's DenseNets were trained before module names could hold no dots.
_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.(?:weight|bias|running_mean|running_var))$")


def open_zoo(name: str) -> Model:
    """Return torchvision's model ``ARCHITECTURE``, ``ARCHITECTURE@WEIGHTS`` or ``ARCHITECTURE@random``.

    The weights are downloaded once into torch hub's folder; with them there no network is touched.

    Raises:
        ModelError: no such architecture or weights; the download failed; the downloaded file is broken.
    """
    architecture, _, wanted = name.partition("@")
    weights = find_weights(architecture, "" if wanted == RANDOM else wanted)
    labels = tuple(weights.meta["categories"])
    preprocess = preprocess_of(weights)
    facts = json.dumps([architecture, str(weights), asdict(preprocess), labels])
    if wanted == RANDOM:
        digest = hashlib.sha256(f"{facts} seed {_SEED} torch {torch.__version__}".encode()).hexdigest()
    else:
        digest = hashlib.sha256(f"{facts} {_sha256(_downloaded(weights), weights.url)}".encode()).hexdigest()
    return Model(
        name=name,
        architecture=architecture,
        digest=f"sha256:{digest}",
        preprocess=preprocess,
        labels=labels,
        license=license_of(weights),
        source="random numbers" if wanted == RANDOM else weights.url,
        build=(lambda: _random(architecture, len(labels))) if wanted == RANDOM else (lambda: _trained(architecture, weights)),
    )


def find_weights(architecture: str, name: str = "") -> Any:
    """Return torchvision's weights of this name, or those it recommends.

    Raises:
        ModelError: there are none.
    """
    architectures.check_architecture(architecture)
    all_weights = architectures.torchvision_models().get_model_weights(architecture)
    names = [item.name for item in all_weights]
    if name and name not in names:
        raise ModelError(f"torchvision has no weights {name!r} for {architecture}: choose {RANDOM} or {' or '.join(names)}.")
    return all_weights[name] if name else all_weights.DEFAULT


def preprocess_of(weights: Any) -> Preprocess:
    """Return what torchvision does to a picture before these weights see it."""
    transforms = weights.transforms()
    return Preprocess(
        resize=transforms.resize_size[0],
        crop=transforms.crop_size[0],
        interpolation=transforms.interpolation.value,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )


def license_of(weights: Any) -> str:
    """Return what torchvision says: only weights of others have a licence of their own."""
    return str(weights.meta.get("license", "BSD-3-Clause (torchvision); trained on ImageNet"))


def cached_path(weights: Any) -> Path:
    """Return where torch hub keeps the file of these weights, there or not."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(weights.url).path).name


def _random(architecture: str, classes: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        return architectures.build(architecture, classes)


def _trained(architecture: str, weights: Any) -> nn.Module:
    state = _state(weights)
    for key in [key for key in state if _OLD_DENSENET.match(key)]:
        state[_OLD_DENSENET.sub(r"\1\2", key)] = state.pop(key)
    net = architectures.build(architecture, len(weights.meta["categories"]))
    return architectures.load(net, state, classes=len(weights.meta["categories"]), origin=str(cached_path(weights)))


def _downloaded(weights: Any) -> Path:
    path = cached_path(weights)
    if not path.exists():
        _state(weights)
    return path


def _state(weights: Any) -> OrderedDict[str, torch.Tensor]:
    path = cached_path(weights)
    try:
        with _silence_ends():
            return weights.get_state_dict(progress=False, check_hash=True, weights_only=True, map_location="cpu")  # type: ignore[no-any-return]
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        if "invalid hash value" in str(error):
            raise ModelError(f"{weights.url} came damaged: try again.") from None
        raise ModelError(f"{path} is no file of weights ({type(error).__name__}): delete it, and it is fetched again.") from None
    except OSError as error:
        raise ModelError(
            f"The weights {weights} cannot be fetched from {weights.url} ({error}): "
            f"put the file at {path}, or set IRS_MODEL to a model directory."
        ) from None


@contextmanager
def _silence_ends() -> Iterator[None]:
    """Let a download end when nothing comes for a while: torch hub sets no time-out."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SILENCE_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _sha256(path: Path, url: str) -> str:
    """Return the file's SHA-256; the first of its digits stand in the address, as torch hub checks after a download."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    expected = path.stem.rpartition("-")[2]
    if not sha256.startswith(expected):
        raise ModelError(f"{path} is not what {url} holds: delete it, and it is fetched again.")
    return sha256
