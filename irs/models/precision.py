"""How narrow a model's numbers may be here: half as wide where labels stay equal and it is quicker."""

from __future__ import annotations

import copy
import logging
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from irs.errors import IrsError, ModelError
from irs.imaging import Limits, decode, fit
from irs.models.form import Whole
from irs.models.model import Model

log = logging.getLogger(__name__)

Pixels = npt.NDArray[np.uint8]
Probabilities = npt.NDArray[np.float32]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
#: A label that changes with less than this between it and the first is a coin's toss in full precision too.
_MARGIN = 0.1
#: Confidences that move by more are no longer those that were calibrated.
_MOVED = 0.15
#: A narrow form is refused only where it is clearly slower: beside other work times move by a tenth.
_SLOWER = 1.2
#: Nets that are done sooner are bound by Python here, and by no precision in their graph.
_TOLD_S = 0.002
#: First calls compile: those that were short are timed once more.
_SHORT_S = 0.1
_CHECK_PICTURES = 4
_CHECK_LIMITS = Limits(20 * 2**20, 100_000_000)


def chosen(net: nn.Module, model: Model, *, device: torch.device, asked: str) -> tuple[Whole, str]:
    """Return ``net`` in the precision ``asked`` for, and which that is; ``auto`` compares two on a few pictures.

    The net is converted in place. On a CPU the comparison takes eight pictures' time in each, at most 0.1 s beyond a
    first call.
    """
    narrow = "fp16" if device.type == "cuda" else "bf16" if has_bf16() else "fp32"
    wanted = narrow if asked == "auto" else asked
    if asked != "auto" or wanted == "fp32":
        return made(net, model, device=device, precision=wanted), wanted
    # A copy, since the comparison needs both.
    quick = made(copy.deepcopy(net), model, device=device, precision=wanted)
    exact = made(net, model, device=device, precision="fp32")
    pixels = torch.from_numpy(check_pixels(model)).to(device)
    (right, exact_s), (answer, quick_s) = _timed(exact, pixels), _timed(quick, pixels)
    why = find_disagreement(right, answer)
    if not why and device.type == "cpu" and quick_s > _SLOWER * max(exact_s, _TOLD_S):
        why = f"it takes {quick_s / exact_s:.1f} times as long"
    if why:
        log.warning("precision_kept", extra={"precision": "fp32", "reason": f"{wanted}: {why}"})
        return exact, "fp32"
    return quick, wanted


def made(net: nn.Module, model: Model, *, device: torch.device, precision: str) -> Whole:
    """Return ``net`` with its preprocessing and calibration around it; converts it in place."""
    return Whole(net, model.preprocess, model.temperature, DTYPES[precision]).to(device).eval()


def find_disagreement(exact: Probabilities, quick: Probabilities) -> str | None:
    """Return why probabilities (N, classes) of a quicker form may not stand for the exact ones, or None."""
    if not np.isfinite(quick).all():
        return "a probability is not finite"
    rows = np.arange(len(exact))
    margins = exact[rows, exact.argmax(1)] - exact[rows, quick.argmax(1)]
    if (worst := float(margins.max())) > _MARGIN:
        return f"a first label changes that led by {worst:.2f}"
    if (moved := float(np.abs(exact - quick).max())) > _MOVED:
        return f"a probability moves by {moved:.2f}"
    return None


def check_pixels(model: Model) -> Pixels:
    """Return up to 4 pictures (N, crop, crop, 3) to compare two forms with: the model's own, or made-up ones."""
    own = [_fitted(path, model) for path in model.pictures[:_CHECK_PICTURES]]
    return np.stack(own or [_scene(seed, model) for seed in range(_CHECK_PICTURES)])


def has_bf16() -> bool:
    """Tell whether this CPU multiplies bf16 by itself; where it is emulated it is slower than float32."""
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})


def _timed(whole: Whole, pixels: torch.Tensor) -> tuple[Probabilities, float]:
    """Return probabilities, and the CPU seconds that this thread took for them."""
    with torch.inference_mode():
        began_s = time.thread_time()
        answer: Probabilities = whole(pixels).cpu().numpy()
        took_s = time.thread_time() - began_s
        if took_s < _SHORT_S:
            began_s = time.thread_time()
            whole(pixels).cpu()
            took_s = min(took_s, time.thread_time() - began_s)
    return answer, took_s


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
