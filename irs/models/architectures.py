"""Nets by the name of their architecture, and weights put into them."""

from __future__ import annotations

import difflib
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import nn

from irs.errors import ModelError
from irs.models.nets import NETS

#: Begins the names of our own nets.
OWN = "irs:"
#: What torchvision's builders set when they are given their own weights, and what silences their advice.
_BUILT_WITH: dict[str, dict[str, Any]] = {
    "googlenet": {"transform_input": True, "init_weights": False},
    "inception_v3": {"transform_input": True, "init_weights": False},
}


#: Nets with a place for each patch: their builders must know the side of the pictures, and think it 224 px.
_SIDED: dict[str, Callable[[int], dict[str, Any]]] = {
    "vit_": lambda side_px: {"image_size": side_px},
    "maxvit_": lambda side_px: {"input_size": (side_px, side_px)},
}


@cache
def torchvision_models() -> Any:
    """Return the module ``torchvision.models``, beside a torch for CPU as well."""
    with _without_compiler():
        try:
            from torchvision import models
        except RuntimeError as error:
            if "operator torchvision::nms does not exist" not in str(error):
                raise
            _define_missing_operators()
            from torchvision import models
    return models


@contextmanager
def _without_compiler() -> Iterator[None]:
    """Let torchvision be imported without torch.compile: 0.2 s in place of 1.5.

    One of its operators, that no classifier calls, asks at import for a function that tells where it could be compiled.
    """
    name = "torch._dynamo.utils"
    if name in sys.modules:
        yield
        return
    stand_in = ModuleType(name)
    stand_in.is_compile_supported = lambda _: False  # type: ignore[attr-defined]
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        # Whoever compiles finds the real one.
        del sys.modules[name]


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
    if name.startswith(OWN):
        if name.removeprefix(OWN) not in NETS:
            raise ModelError(f"There is no net {name!r} of irs: it has {', '.join(OWN + own for own in NETS)}.")
        return
    if name in architectures():
        return
    near = difflib.get_close_matches(name, architectures(), n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"it knows {len(architectures())}, for example resnet18."
    raise ModelError(f"torchvision has no classification architecture {name!r}: {hint}")


def build(name: str, classes: int, *, side_px: int = 224) -> nn.Module:
    """Return a net with random weights and ``classes`` outputs: torchvision's, or one of ours by ``irs:NAME``.

    Args:
        side_px: of the square pictures it will answer; most nets take any.

    Raises:
        ModelError: there is no such architecture, or it takes no pictures of this side.
    """
    check_architecture(name)
    if name.startswith(OWN):
        return NETS[name.removeprefix(OWN)](classes).eval()
    sided = next((make(side_px) for family, make in _SIDED.items() if name.startswith(family)), {})
    given = {"weights": None, "num_classes": classes, **_BUILT_WITH.get(name, {}), **sided}
    try:
        net: nn.Module = torchvision_models().get_model(name, **given)
    except (AssertionError, ValueError) as error:
        if not sided:
            raise
        why = str(error).partition("\n")[0]
        raise ModelError(f"The architecture {name} takes no pictures of {side_px} px ({why}): choose another side.") from None
    return net.eval()


def load(net: nn.Module, state: OrderedDict[str, torch.Tensor], *, classes: int, origin: str) -> nn.Module:
    """Return ``net`` with the weights ``state``; ``origin`` names them in errors.

    Raises:
        ModelError: the weights do not fit the net, answer other than ``classes`` classes, or are not finite.
    """
    _check_shapes(net.state_dict(), state, classes=classes, origin=origin)
    # Not strict: modules rename and add what older versions of them wrote before the keys are compared.
    missing, extra = net.load_state_dict(state, strict=False)
    if missing:
        raise ModelError(f"{origin} does not fit the architecture: {len(missing)} tensors are missing, first {missing[0]!r}.")
    if extra:
        raise ModelError(f"{origin} does not fit the architecture: it has {len(extra)} tensors too many, first {extra[0]!r}.")
    # As the net holds them: what is stored may be of a kind that tells nothing about itself, or too large for it.
    for key, tensor in net.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise ModelError(f"{origin} is broken: {key!r} holds numbers that are not finite.")
    return net.eval()


def find_refusal(net: nn.Module, side_px: int) -> str | None:
    """Return why ``net``, on the CPU and in float32, does not answer a picture of this side; None where it does."""
    try:
        with torch.inference_mode():
            answer = net.eval()(torch.zeros(1, 3, side_px, side_px))
    except (RuntimeError, AssertionError, ValueError) as error:
        return str(error).partition("\n")[0][:200]
    return None if torch.isfinite(answer).all() else "its answer is no number"


def check_takes(net: nn.Module, side_px: int, name: str) -> nn.Module:
    """Return ``net`` if it answers pictures of this side; ``name`` is the model's in errors.

    Raises:
        ModelError: it does not.
    """
    if why := find_refusal(net, side_px):
        raise ModelError(
            f"The model {name} does not answer pictures of {side_px} px ({why}): mend `preprocess` in its model.json."
        )
    return net


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
