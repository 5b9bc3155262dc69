"""The reference that labels are held against: torchvision's own transform, the net in eager float32, one image a call."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from irs.imaging import Preprocess
    from irs.models import Forward, Model


def reference_transform(preprocess: Preprocess) -> Any:
    """Return what torchvision's evaluation does to a PIL image: a callable to a tensor (3, crop, crop)."""
    from irs.models.architectures import torchvision_models

    # First: it mends torchvision's import beside a torch without CUDA.
    torchvision_models()
    from torchvision import transforms

    return transforms.Compose(
        [
            transforms.Resize(preprocess.resize, transforms.InterpolationMode(preprocess.interpolation)),
            transforms.CenterCrop(preprocess.crop),
            transforms.ToTensor(),
            transforms.Normalize(preprocess.mean, preprocess.std),
        ]
    )


def reference_probabilities(model: Model, photos: list[Path]) -> npt.NDArray[np.float32]:
    """Return calibrated probabilities (photos, classes) by the reference."""
    import torch
    from PIL import Image, ImageOps

    net, transform = model.build().eval(), reference_transform(model.preprocess)
    rows = []
    with torch.inference_mode():
        for photo in photos:
            with Image.open(photo) as opened:
                # The one step that torchvision leaves to others, and that changes no form.
                image = ImageOps.exif_transpose(opened).convert("RGB")
            rows.append(torch.softmax(net(transform(image)[None]) / model.temperature, dim=1)[0].numpy())
    return np.stack(rows)


def served_probabilities(model: Model, forward: Forward, photos: list[Path]) -> npt.NDArray[np.float32]:
    """Return probabilities (photos, classes) as a worker makes them: its decoder, its fit, batches of its sizes."""
    from irs.imaging import Limits, decode, fit

    limits = Limits(20 * 2**20, 100_000_000)
    pixels = [fit(decode(photo.read_bytes(), limits, side_px=model.preprocess.resize), model.preprocess) for photo in photos]
    most = forward.sizes[0]
    return np.concatenate([forward.probabilities(np.stack(pixels[n : n + most])) for n in range(0, len(pixels), most)])


def agreement(exact: npt.NDArray[np.float32], served: npt.NDArray[np.float32]) -> dict[str, float]:
    """Return ``equal``, the share of equal first labels, and ``far``, the largest change of a first label's probability."""
    rows, first = np.arange(len(exact)), exact.argmax(1)
    return {
        "photos": len(exact),
        "equal": float((served.argmax(1) == first).mean()),
        "far": float(np.abs(exact[rows, first] - served[rows, first]).max()),
    }
