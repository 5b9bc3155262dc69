"""A picture to the square of pixels a model was made for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True, slots=True)
class Preprocess:
    """What a model expects: short side to ``resize`` px, centre square of ``crop`` px, then (rgb / 255 - mean) / std.

    Raises:
        ValueError: a value is out of its range.
    """

    resize: int = 256
    crop: int = 224
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if not 1 <= self.crop <= self.resize:
            raise ValueError(f"crop {self.crop} must be 1 to resize {self.resize}")
        if self.interpolation not in FILTERS:
            raise ValueError(f"interpolation {self.interpolation!r} must be one of {', '.join(FILTERS)}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError("mean and std must be three numbers each, std above 0")


def fit(image: Image.Image, preprocess: Preprocess) -> npt.NDArray[np.uint8]:
    """Return the pixels (crop, crop, 3) that torchvision's Resize and CenterCrop would give, from RGB.

    Only what the crop shows is resized: a third less work, and a picture of 1 x 5000 px stays small.
    """
    width, height = image.size
    crop, short = preprocess.crop, preprocess.resize
    # The reference's sizes and offsets are whole numbers: without them the pixels shift by up to half a pixel.
    if width <= height:
        resized_width, resized_height = short, int(short * height / width)
    else:
        resized_width, resized_height = int(short * width / height), short
    left, top = round((resized_width - crop) / 2), round((resized_height - crop) / 2)
    x_scale, y_scale = width / resized_width, height / resized_height
    box = (
        left * x_scale,
        top * y_scale,
        min((left + crop) * x_scale, width),
        min((top + crop) * y_scale, height),
    )
    return np.asarray(image.resize((crop, crop), FILTERS[preprocess.interpolation], box=box))
