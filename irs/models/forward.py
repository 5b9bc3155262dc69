"""The forward pass: pixels in, calibrated probabilities out, as fast as the machine allows with equal labels."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from irs.errors import IrsError, ModelError, SetupError
from irs.imaging import Limits, decode, fit
from irs.models.form import Whole, frozen, fused
from irs.models.model import Model

log = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16"]
Pixels = npt.NDArray[np.uint8]

#: A GPU is idle at the batch that fits a core's cache; this many times more are in work at once by default.
_CUDA_TIMES = 4
_WARM_RUNS = 3
#: A label that changes with less than this between it and the first is a coin's toss in full precision too.
_MARGIN = 0.1
_CHECK_PICTURES = 4
_CHECK_LIMITS = Limits(20 * 2**20, 100_000_000)
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Forward:
    """One model in memory. Loads and compiles when it is made: seconds. Safe for several threads at once.

    Args:
        device: ``auto`` takes CUDA when there is one.
        precision: ``auto`` takes half precision on CUDA, and bf16 on a CPU that has it if the labels stay equal.
        batch_size: most pictures in one call on a CPU; on CUDA four times as many.

    Attributes:
        sizes: the batch sizes it is made for, falling, ending with 1. Others work, but their first calls take long.
        device: ``cpu`` or ``cuda``.
        precision: ``fp32``, ``bf16`` or ``fp16``.

    Raises:
        ModelError: the weights cannot be used.
        SetupError: CUDA is asked for and there is none.
    """

    def __init__(self, model: Model, *, device: Device = "auto", precision: Precision = "auto", batch_size: int = 8) -> None:
        self.device = _choose_device(device)
        self.sizes = _sizes(batch_size * (_CUDA_TIMES if self.device == "cuda" else 1))
        self.precision: str = precision
        self._crop = model.preprocess.crop
        self._device = torch.device(self.device)
        net = fused(model.build()).to(self._device)
        if precision == "auto":
            self.precision = "fp16" if self.device == "cuda" else "bf16" if _has_bf16() else "fp32"
        pictures = check_pixels(model)
        exact = whole = self._whole(net, model, "fp32")
        if self.precision != "fp32":
            # A copy: the net is converted in place, and the check needs both.
            whole = self._whole(copy.deepcopy(net), model, self.precision)
        if precision == "auto" and whole is not exact:
            pixels = self._put(pictures)
            with torch.inference_mode():
                why = find_disagreement(exact(pixels).cpu().numpy(), whole(pixels).cpu().numpy())
            if why:
                log.warning("precision_kept", extra={"precision": "fp32", "reason": f"{self.precision}: {why}"})
                self.precision, whole = "fp32", exact
        del net, exact
        self._run: nn.Module = frozen(whole, self._put(np.resize(pictures, (self.sizes[0], *pictures.shape[1:]))))

    def warm(self) -> None:
        """Run each batch size three times: the first calls of each compile, and take twice as long."""
        for size in self.sizes:
            for _ in range(_WARM_RUNS):
                self.probabilities(self._blank(size))

    def probabilities(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """Return probabilities (N, classes), rows summing to 1, of ``pixels`` (N, crop, crop, 3) RGB."""
        with torch.inference_mode():
            answer: npt.NDArray[np.float32] = self._run(self._put(pixels)).cpu().numpy()
        return answer

    def _whole(self, net: nn.Module, model: Model, precision: str) -> Whole:
        whole = Whole(net, model.preprocess, model.temperature, _DTYPES[precision])
        return whole.to(self._device).eval()

    def _put(self, pixels: Pixels) -> torch.Tensor:
        # torch shares memory only with arrays that may be written to.
        return torch.from_numpy(np.require(pixels, np.uint8, ["C", "W"])).to(self._device)

    def _blank(self, size: int) -> Pixels:
        return np.zeros((size, self._crop, self._crop, 3), np.uint8)


def find_disagreement(exact: npt.NDArray[np.float32], quick: npt.NDArray[np.float32]) -> str | None:
    """Return why probabilities (N, classes) of a quicker form may not stand for the exact ones, or None."""
    if not np.isfinite(quick).all():
        return "a probability is not finite"
    rows = np.arange(len(exact))
    margins = exact[rows, exact.argmax(1)] - exact[rows, quick.argmax(1)]
    if (worst := float(margins.max())) > _MARGIN:
        return f"a first label changes that led by {worst:.2f}"
    return None


def check_pixels(model: Model) -> Pixels:
    """Return up to 4 pictures (N, crop, crop, 3) to compare two forms with: the model's own, or made-up ones."""
    own = [_fitted(path, model) for path in model.pictures[:_CHECK_PICTURES]]
    return np.stack(own or [_scene(seed, model) for seed in range(_CHECK_PICTURES)])


def _fitted(path: Path, model: Model) -> Pixels:
    try:
        image = decode(path.read_bytes(), _CHECK_LIMITS, side_px=model.preprocess.resize)
    except (IrsError, OSError) as error:
        raise ModelError(f"The model's picture {path} cannot be read ({error}): copy the model again.") from None
    return fit(image, model.preprocess)


def _scene(seed: int, model: Model) -> Pixels:
    """Return blurred patches of colour, coarser or finer by ``seed``: nearer to photos than noise is."""
    side = 3 + 2 * seed
    patches = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return fit(Image.fromarray(patches).resize((256, 256), Image.Resampling.BICUBIC), model.preprocess)


def _choose_device(device: Device) -> str:
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise SetupError("IRS_DEVICE is cuda, but torch finds no CUDA device: set it to auto or cpu.")
    return "cuda" if has_cuda and device != "cpu" else "cpu"


def _sizes(largest: int) -> tuple[int, ...]:
    powers = [2**n for n in range(largest.bit_length()) if 2**n < largest]
    return (largest, *reversed(powers))


def _has_bf16() -> bool:
    """Tell whether this CPU multiplies bf16 by itself; where it is emulated it is slower than float32."""
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})
