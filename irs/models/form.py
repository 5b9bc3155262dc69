"""The form of a net that answers fastest: fused, narrow, channels last, packed, one frozen graph.

One graph from bytes to probabilities: a thread gives the interpreter lock away once a batch, not a hundred times.
"""

from __future__ import annotations

import copy
import logging
import warnings
from functools import cache
from typing import Any

import torch
from torch import nn

from irs.imaging import Preprocess

log = logging.getLogger(__name__)

#: How far a traced graph's probabilities may be from the net's own: rounding, no more.
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.02}
#: Pictures that a graph is traced with: two cost a quarter of eight, and the graph is the same.
_TRACED = 2
#: What oneDNN has a layout of its own for.
_PACKED = (torch.float32, torch.bfloat16)
_CONVOLVE = """
def convolve(x: Tensor, weight: Tensor, bias: Optional[Tensor],
             padding: List[int], stride: List[int], dilation: List[int], groups: int) -> Tensor:
    return torch.ops.mkldnn._convolution_pointwise(x, weight, bias, padding, stride, dilation, groups, "none", [], "")
"""


class Whole(nn.Module):
    """Pixels (N, crop, crop, 3) uint8 RGB to calibrated probabilities (N, classes) float32, around ``net``."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, net: nn.Module, preprocess: Preprocess, temperature: float, dtype: torch.dtype) -> None:
        super().__init__()
        mean, std = (torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1) for values in (preprocess.mean, preprocess.std))
        self.net = net.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)
        self.temperature, self.dtype = temperature, dtype

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        # Seen as channels last the bytes need no copy: one pass makes them numbers and normalises them.
        picture = torch.addcmul(self.shift, pixels.permute(0, 3, 1, 2), self.scale)
        logits = self.net(picture.to(self.dtype))
        return torch.softmax(logits.float() / self.temperature, dim=1)


def fused(net: nn.Module) -> nn.Module:
    """Return ``net`` with its batch norms folded into the convolutions before them; itself where it cannot be read."""
    try:
        with warnings.catch_warnings():
            # The import of fuse meets TorchScript, which is deprecated.
            warnings.simplefilter("ignore", DeprecationWarning)
            from torch.fx.experimental.optimization import fuse

            return fuse(net).eval()
    except Exception as error:  # torch.fx reads no net whose way depends on its input, and says so in many ways
        log.info("not_fused", extra={"reason": f"{type(error).__name__}: {error}"[:200]})
        return net


def packed(whole: Whole, pixels: torch.Tensor) -> nn.Module:
    """Return ``whole`` with the weights of its convolutions laid out as oneDNN computes with them; itself where it cannot be.

    Else oneDNN lays them out anew at each call, which takes as long for one picture as for a batch. Nothing is copied
    but those weights.

    Args:
        pixels: examples: their side decides the layout.
    """
    if pixels.is_cuda or whole.dtype not in _PACKED or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return whole
    try:
        # The tensors are shared, the modules are not: the net may be needed as it was.
        made = copy.deepcopy(whole, {id(tensor): tensor for tensor in (*whole.parameters(), *whole.buffers())})
        names = {module: name for name, module in made.named_modules() if _can_be_packed(module)}
        shapes: dict[nn.Module, list[int]] = {}
        hooks = [net.register_forward_pre_hook(lambda net, given: shapes.update({net: list(given[0].shape)})) for net in names]
        made(pixels)
        for hook in hooks:
            hook.remove()
        for net, shape in shapes.items():
            parent, _, name = names[net].rpartition(".")
            setattr(made.get_submodule(parent), name, _Packed(net, shape))
        return made
    except Exception as error:  # operators of torch's own compiler: another version may have none, or others
        log.info("not_packed", extra={"reason": f"{type(error).__name__}: {error}"[:200]})
        return whole


class _Packed(nn.Module):
    weight: torch.Tensor

    def __init__(self, convolution: Any, shape: list[int]) -> None:
        super().__init__()
        self.how = (list(convolution.padding), list(convolution.stride), list(convolution.dilation), convolution.groups)
        self.register_buffer("weight", torch.ops.mkldnn._reorder_convolution_weight(convolution.weight, *self.how, shape))
        self.register_buffer("bias", convolution.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = _convolve()(x, self.weight, self.bias, *self.how)
        return answer


def _can_be_packed(module: nn.Module) -> bool:
    return type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str)


@cache
def _convolve() -> Any:
    # As TorchScript: a trace cannot write down the operator's list of optional numbers.
    return torch.jit.CompilationUnit(_CONVOLVE).convolve


def frozen(whole: Whole, pixels: torch.Tensor, *, is_checked: bool = False) -> nn.Module:
    """Return ``whole`` as one frozen graph, packed where that can be; itself where the graph would answer differently.

    Args:
        pixels: examples, at least three.
        is_checked: an earlier start found that the graph answers as the net does.
    """
    with torch.inference_mode(), warnings.catch_warnings():
        # TorchScript is deprecated; its successor needs a C++ compiler where the model runs.
        # Tracing warns of each shape it reads, which is then checked.
        warnings.simplefilter("ignore")
        for net in dict.fromkeys((packed(whole, pixels[:_TRACED]), whole)):
            try:
                traced = torch.jit.trace(net, pixels[:_TRACED], check_trace=False)  # type: ignore[no-untyped-call]
                graph: nn.Module = torch.jit.freeze(traced.eval())
                if is_checked:
                    return graph
                # A shape that the trace took for a constant shows at a smaller or a larger batch.
                differ = max((graph(part) - whole(part)).abs().max().item() for part in (pixels[:1], pixels[: _TRACED + 1]))
            except Exception as error:  # tracing runs the net's own code: it may raise anything
                log.warning("not_frozen", extra={"reason": f"{type(error).__name__}: {error}"[:200]})
                continue
            # Not above: a comparison with a number that is none is false.
            if differ <= _TOLERANCE[whole.dtype]:
                return graph
            log.warning("not_frozen", extra={"reason": f"probabilities differ by {differ:.3f}"})
    return whole
