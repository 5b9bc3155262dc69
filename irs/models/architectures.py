"""Nets by the name of their architecture, and weights put into them."""

from __future__ import annotations

import difflib
from collections import OrderedDict
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


def load(net: nn.Module, state: OrderedDict[str, torch.Tensor], *, classes: int, origin: str) -> nn.Module:
    """Return ``net`` with the weights ``state``; ``origin`` names them in errors.

    Raises:
        ModelError: the weights do not fit the net, answer other than ``classes`` classes, or are not finite.
    """
    _check_shapes(net.state_dict(), state, classes=classes, origin=origin)
    for key, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise ModelError(f"{origin} is broken: {key!r} holds numbers that are not finite.")
    # Not strict: modules rename and add what older versions of them wrote before the keys are compared.
    missing, extra = net.load_state_dict(state, strict=False)
    if missing:
        raise ModelError(f"{origin} does not fit the architecture: {len(missing)} tensors are missing, first {missing[0]!r}.")
    if extra:
        raise ModelError(f"{origin} does not fit the architecture: it has {len(extra)} tensors too many, first {extra[0]!r}.")
    return net.eval()


def _check_shapes(wanted: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor], *, classes: int, origin: str) -> None:
    wrong = {
        key: (state[key].shape, wanted[key].shape) for key in wanted if key in state and wanted[key].shape != state[key].shape
    }
    outputs = {is_[:1] for is_, should_be in wrong.values() if should_be[:1] == (classes,)}
    if len(outputs) == 1 and all(is_[1:] == should_be[1:] for is_, should_be in wrong.values()):
        raise ModelError(
            f"{origin} answers {outputs.pop().numel()} classes, but {classes} labels are given: one line of labels a class."
        )
    for key, (is_, should_be) in wrong.items():
        raise ModelError(f"{origin} does not fit the architecture: {key!r} has the shape {tuple(is_)}, not {tuple(should_be)}.")
