"""torchvision's models by name, with its own weights and preprocessing.

``resnet18`` has the weights that torchvision recommends, ``resnet50@IMAGENET1K_V1`` named ones, and
``resnet18@random`` random ones, always the same: for measuring speed without a download.
"""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import re
from collections import OrderedDict
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import nn

from irs.errors import ModelError
from irs.imaging import Preprocess
from irs.models import architectures
from irs.models.download import download, shown
from irs.models.files import sha256_of
from irs.models.model import Model
from irs.models.tree import find_imagenet_wnids

log = logging.getLogger(__name__)

RANDOM = "random"
_SEED = 0
#: Of the largest, 1.3 GB, at the slowest that is worth waiting for.
_DOWNLOAD_S = 3600.0
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
    wnids = find_imagenet_wnids(labels)
    facts = json.dumps([architecture, str(weights), asdict(preprocess), labels, wnids])
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
        wnids=wnids,
        license=license_of(weights),
        source="random numbers" if wanted == RANDOM else weights.url,
        build=(lambda: _random(architecture, len(labels), preprocess.crop))
        if wanted == RANDOM
        else (lambda: _trained(architecture, weights)),
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


def _random(architecture: str, classes: int, side_px: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        return architectures.build(architecture, classes, side_px=side_px)


def _trained(architecture: str, weights: Any) -> nn.Module:
    state = _state(weights)
    for key in [key for key in state if _OLD_DENSENET.match(key)]:
        state[_OLD_DENSENET.sub(r"\1\2", key)] = state.pop(key)
    net = architectures.build(architecture, len(weights.meta["categories"]), side_px=preprocess_of(weights).crop)
    return architectures.load(net, state, classes=len(weights.meta["categories"]), origin=str(cached_path(weights)))


def _downloaded(weights: Any) -> Path:
    path = cached_path(weights)
    if path.exists():
        return path
    log.info("weights_fetch", extra={"url": weights.url, "kept_in": str(path)})
    try:
        with shown(f"{weights}") as arrived:
            download(weights.url, path, sha256_start=_first_digits(path), within_s=_DOWNLOAD_S, arrived=arrived)
    except OSError as error:
        raise ModelError(
            f"The weights {weights} cannot be fetched from {weights.url} ({error}): "
            f"put the file at {path}, or set IRS_MODEL to a model directory."
        ) from None
    return path


def _state(weights: Any) -> OrderedDict[str, torch.Tensor]:
    path = _downloaded(weights)
    try:
        # The file is here: torch hub only reads it.
        return weights.get_state_dict(progress=False, weights_only=True, map_location="cpu")  # type: ignore[no-any-return]
    except (pickle.UnpicklingError, EOFError, RuntimeError, OSError) as error:
        raise ModelError(f"{path} is no file of weights ({type(error).__name__}): delete it, and it is fetched again.") from None


def _first_digits(path: Path) -> str:
    """Return the first digits of the SHA-256 that the name of a published file holds."""
    return path.stem.rpartition("-")[2]


def _sha256(path: Path, url: str) -> str:
    """Return the file's SHA-256; the first of its digits stand in the address, as torch hub checks after a download."""
    sha256 = sha256_of(path)
    if not sha256.startswith(_first_digits(path)):
        raise ModelError(f"{path} is not what {url} holds: delete it, and it is fetched again.")
    return sha256
