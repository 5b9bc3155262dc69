"""The forward pass: pixels in, calibrated probabilities out, as fast as the machine allows with equal labels."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from irs.errors import SetupError
from irs.models.architectures import check_takes
from irs.models.form import Whole, frozen, fused
from irs.models.model import Model
from irs.models.precision import check_pixels, chosen, made
from irs.models.remembered import Form, find_form, form_key, remember

Device = Literal["auto", "cpu", "cuda"]
DEVICES: tuple[str, ...] = get_args(Device)
Precision = Literal["auto", "fp32", "bf16"]
Pixels = npt.NDArray[np.uint8]

#: A GPU is idle at the batch that fits a core's cache: this many times more are tried there, as long as it pays.
_CUDA_TIMES = (1, 2, 4, 8, 16)
#: An image may take this much longer than at the best batch size, for a batch half as large.
_NEARLY = 1.1
#: A graph is profiled in its first call and optimised in its second; from then on it does not get quicker.
_WARM_RUNS = 2


class Forward:
    """One model in memory. Loads and compiles when it is made: seconds. Safe for several threads at once.

    Args:
        device: ``auto`` takes CUDA when there is one.
        precision: ``auto`` takes half precision on CUDA, and bf16 on a CPU that has it, if the labels stay equal.
        batch_size: most pictures in one call on a CPU; on CUDA up to 16 times as many, by measurement.
        home: a folder that remembers which form was found best here, so that the next start need not look again.

    Attributes:
        sizes: the batch sizes it is made for, falling, ending with 1. Others work, but their first calls take longer.
        device: ``cpu`` or ``cuda``.
        precision: ``fp32``, ``bf16`` or ``fp16``.

    Raises:
        ModelError: the weights cannot be used, or the net takes no such pictures.
        SetupError: CUDA is asked for and there is none.
    """

    def __init__(
        self,
        model: Model,
        *,
        device: Device = "auto",
        precision: Precision = "auto",
        batch_size: int = 8,
        home: Path | None = None,
    ) -> None:
        self.device = choose_device(device)
        self._device = torch.device(self.device)
        self._crop = model.preprocess.crop
        key = form_key(model.digest, device=self.device, asked=precision, batch_size=batch_size)
        known = find_form(home, key) if home else None
        net = model.build()
        if known is None:
            check_takes(net, self._crop, model.name)
        net = fused(net).to(self._device)
        if known:
            whole, self.precision = made(net, model, device=self._device, precision=known.precision), str(known.precision)
        else:
            whole, self.precision = chosen(net, model, device=self._device, asked=precision)
        del net
        self._run: nn.Module = whole
        if known is None or known.is_frozen:
            pictures = np.resize(check_pixels(model), (3, self._crop, self._crop, 3))
            self._run = frozen(whole, self._put(pictures), is_checked=known is not None)
        self.sizes = _sizes(known.batch if known else self._find_batch(batch_size))
        if home and known is None:
            is_frozen = not isinstance(self._run, Whole)
            remember(home, key, Form(precision=self.precision, is_frozen=is_frozen, batch=self.sizes[0]))  # type: ignore[arg-type]

    def warm(self) -> None:
        """Run each batch size twice, on all cores: the first calls of each compile."""
        with ThreadPoolExecutor(1 if self.device == "cuda" else os.cpu_count()) as threads:
            list(threads.map(self._warm, self.sizes))

    def probabilities(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """Return probabilities (N, classes), rows summing to 1, of ``pixels`` (N, crop, crop, 3) RGB."""
        with torch.inference_mode():
            answer: npt.NDArray[np.float32] = self._run(self._put(pixels)).cpu().numpy()
        return answer

    def _put(self, pixels: Pixels) -> torch.Tensor:
        # torch shares memory only with arrays that may be written to.
        tensor = torch.from_numpy(np.require(pixels, np.uint8, ["C", "W"]))
        # From pinned memory the GPU fetches by itself, while the thread goes on to launch the graph.
        return tensor.pin_memory().to(self._device, non_blocking=True) if self.device == "cuda" else tensor

    def _warm(self, size: int) -> None:
        blank = np.zeros((size, self._crop, self._crop, 3), np.uint8)
        for _ in range(_WARM_RUNS):
            self.probabilities(blank)

    def _find_batch(self, batch_size: int) -> int:
        if self.device == "cpu":
            return batch_size
        return quickest_batch(self._seconds, [times * batch_size for times in _CUDA_TIMES])

    def _seconds(self, size: int) -> float:
        """Return the wall seconds of a batch, or infinity where memory is too small for it."""
        blank = np.zeros((size, self._crop, self._crop, 3), np.uint8)
        try:
            self._warm(size)
            began_s = time.perf_counter()
            self.probabilities(blank)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return float("inf")
        return time.perf_counter() - began_s


def quickest_batch(seconds: Callable[[int], float], sizes: Sequence[int]) -> int:
    """Return the smallest of ``sizes``, rising, whose time an image is nearly the best; stops where none is better.

    Args:
        seconds: of a batch of that size; asked once for each size.
    """
    each_s: dict[int, float] = {}
    for size in sizes:
        each_s[size] = seconds(size) / size
        if each_s[size] > _NEARLY * min(each_s.values()):
            break
    return next(size for size, took_s in each_s.items() if took_s <= _NEARLY * min(each_s.values()))


def choose_device(device: str) -> str:
    """Return ``cpu`` or ``cuda``.

    Raises:
        SetupError: CUDA is asked for and there is none, or no such device is known.
    """
    if device not in DEVICES:
        raise SetupError(
            f"There is no device {device!r}: set IRS_DEVICE or --device to {', '.join(DEVICES[:-1])} or {DEVICES[-1]}."
        )
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise SetupError("torch finds no CUDA device: set IRS_DEVICE or --device to auto or cpu.")
    return "cuda" if has_cuda and device != "cpu" else "cpu"


def _sizes(largest: int) -> tuple[int, ...]:
    powers = [2**n for n in range(largest.bit_length()) if 2**n < largest]
    return (largest, *reversed(powers))
