"""Nets by the name of their architecture, and weights put into them."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import nn

from irs.errors import ModelError

#: What torchvision's builders set when they are given their own weights, and what silences their advice.
_BUILT_WITH: dict[str, dict[str, Any]] = {
    "googlenet": {"transform_input": True, "init_weights": False},
    "inception_v3": {"transform_input": True, "init_weights": False},
}


@cache
def torchvision_models() -> Any:
    """Return the module ``torchvision.models``, beside a torch for CPU as well."""
    try:
        from torchvision import models
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
        _define_missing_operators()
        from torchvision import models
    return models


#: Operators vanish with the library that defined them.
_libraries: list[torch.library.Library] = []


def _define_missing_operators() -> None:
    """Name the operators of torchvision's compiled part: built for CUDA, it does not load beside a torch for CPU.

    torchvision only describes their shapes at import, and no classifier calls them.
    """
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    _libraries.append(library)


@cache
def architectures() -> tuple[str, ...]:
    """Return the names of torchvision's classification architectures."""
    models = torchvision_models()
    return tuple(models.list_models(module=models))


def check_architecture(name: str) -> None:
    """Raise ModelError unless a net of this name can be built."""
    if name in architectures():
        return
    near = difflib.get_close_matches(name, architectures(), n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"it knows {len(architectures())}, for example resnet18."
    raise ModelError(f"torchvision has no classification architecture {name!r}: {hint}")


def build(name: str, classes: int) -> nn.Module:
    """Return a net with random weights and ``classes`` outputs.

    Raises:
        ModelError: there is no such architecture.
    """
    check_architecture(name)
    net: nn.Module = torchvision_models().get_model(name, weights=None, num_classes=classes, **_BUILT_WITH.get(name, {}))
    return net.eval()


def load(net: nn.Module, state: Mapping[str, torch.Tensor], *, classes: int, origin: str) -> nn.Module:
    """Return ``net`` with the weights ``state``; ``origin`` names them in errors.

    Raises:
        ModelError: the weights do not fit the net, answer other than ``classes`` classes, or are not finite.
    """
    wanted = net.state_dict()
    if missing := wanted.keys() - state.keys():
        raise ModelError(f"{origin} does not fit the architecture: {len(missing)} tensors are missing, first {min(missing)!r}.")
    if extra := state.keys() - wanted.keys():
        raise ModelError(f"{origin} does not fit the architecture: it has {len(extra)} tensors too many, first {min(extra)!r}.")
    wrong = [key for key in wanted if wanted[key].shape != state[key].shape]
    outputs = {state[key].shape[0] if state[key].ndim else 0 for key in wrong if wanted[key].shape[:1] == (classes,)}
    if len(outputs) == 1 and all(wanted[key].shape[1:] == state[key].shape[1:] for key in wrong):
        raise ModelError(f"{origin} answers {outputs.pop()} classes, but {classes} labels are given: one line of labels a class.")
    if wrong:
        key = wrong[0]
        shapes = f"{tuple(state[key].shape)}, not {tuple(wanted[key].shape)}"
        raise ModelError(f"{origin} does not fit the architecture: {key!r} has the shape {shapes}.")
    for key, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise ModelError(f"{origin} is broken: {key!r} holds numbers that are not finite.")
    with warnings.catch_warnings():
        # Old weights lack what newer nets count; torchvision's nets say so in load_state_dict.
        warnings.simplefilter("ignore", UserWarning)
        net.load_state_dict(dict(state))
    return net.eval()
