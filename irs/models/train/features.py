"""What a net sees in each picture, just before its last layer: reckoned once, kept over a stop."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from irs.errors import ModelError
from irs.imaging import Preprocess
from irs.models.train.folder import PictureFolder
from irs.models.train.kept import Kept, Pixels, tell_unreadable
from irs.models.train.options import Listener

Features = npt.NDArray[np.float32]

#: Places of a map that are kept beside its mean.
_PLACES = 8


@dataclass(frozen=True, slots=True)
class Backbone:
    """A net whose last layer is to be replaced.

    Attributes:
        head: the last layer's name in the net; a Linear, or a 1x1 convolution whose answers are averaged over the picture.
    """

    net: nn.Module
    head: str
    preprocess: Preprocess
    digest: str
    device: torch.device
    amp: torch.dtype

    @property
    def is_map(self) -> bool:
        """Whether the head sees a map (N, features, h, w) and not (N, features)."""
        return isinstance(self.net.get_submodule(self.head), nn.Conv2d)


@dataclass(frozen=True, slots=True)
class Seen:
    """Features of the readable pictures of a folder.

    Attributes:
        means: (N, 2, features): as they are, and mirrored; maps averaged over the picture.
        places: (N, 2, 8, features): of a map, some of its places; of none (N, 2, 0, features).
        targets: (N,).
    """

    means: Features
    places: Features
    targets: npt.NDArray[np.int64]
    unreadable: tuple[str, ...]


def find_head(net: nn.Module, classes: int, name: str) -> str:
    """Return the name of the layer that answers ``classes`` classes.

    Raises:
        ModelError: there is none that can be replaced.
    """
    heads = [
        layer
        for layer, module in net.named_modules()
        if (isinstance(module, nn.Linear) and module.out_features == classes)
        or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.out_channels == classes)
    ]
    if not heads:
        raise ModelError(
            f"{name} ends in no linear layer that could be trained: take another model for --from, such as resnet18."
        )
    return str(heads[-1])


def see(backbone: Backbone, folder: PictureFolder, file: Path, listener: Listener) -> Seen:
    """Return the features of all pictures of ``folder``, those in ``file`` not again.

    Raises:
        SetupError: the disk is too small, or no picture can be read.
        TrainingStopped: the listener asked for it; what is done is kept.
    """
    shape = (len(folder.names), 2, 1 + (_PLACES if backbone.is_map else 0), _head_inputs(backbone))
    kept = Kept.open(file, f"{folder.sha256()} {backbone.digest} {backbone.amp}", np.float32, shape)
    rows = partial(_features, backbone)
    kept.fill(folder, backbone.preprocess, rows, listener, doing="looking at pictures")
    tell_unreadable(kept.unreadable, listener.say)
    targets = kept.targets(folder)
    whole = np.asarray(kept.array)[: len(targets)]
    return Seen(whole[:, :, 0], whole[:, :, 1:], targets, tuple(kept.unreadable))


def _features(backbone: Backbone, pixels: Pixels) -> Features:
    """Return (B, 2, 1 or 9, features) of ``pixels`` (B, crop, crop, 3)."""
    device, preprocess = backbone.device, backbone.preprocess
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (preprocess.mean, preprocess.std))
    pictures = (torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 255 - mean) / std
    both = torch.stack([_inputs(backbone, pictures), _inputs(backbone, pictures.flip(3))], dim=1)
    seen: Features = both.cpu().numpy()
    return seen


def _inputs(backbone: Backbone, pictures: torch.Tensor) -> torch.Tensor:
    """Return what the head is given: (B, 1, features), or with places of the map behind its mean."""
    given: list[torch.Tensor] = []
    head = backbone.net.get_submodule(backbone.head)
    hook = head.register_forward_pre_hook(lambda _module, inputs: given.append(inputs[0].detach().float()))
    try:
        with (
            torch.inference_mode(),
            torch.autocast(backbone.device.type, backbone.amp, enabled=backbone.amp is not torch.float32),
        ):
            backbone.net(pictures.contiguous(memory_format=torch.channels_last))
    finally:
        hook.remove()
    if not backbone.is_map:
        return given[-1].unsqueeze(1)
    flat = given[-1].flatten(2)
    places = torch.linspace(0, flat.shape[2] - 1, _PLACES).long()
    return torch.cat([flat.mean(2, keepdim=True), flat[:, :, places]], dim=2).transpose(1, 2)


def _head_inputs(backbone: Backbone) -> int:
    head = backbone.net.get_submodule(backbone.head)
    return int(head.in_channels if isinstance(head, nn.Conv2d) else head.in_features)  # type: ignore[arg-type]
