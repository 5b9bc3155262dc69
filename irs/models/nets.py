"""Nets of our own, built by the architecture name ``irs:NAME``; made for small pictures and few cores."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

_STEM = 32
_WIDTHS = (32, 96, 192, 384)
_BLOCKS = (1, 2, 3, 2)


class Block(nn.Module):
    """Two 3x3 convolutions beside a short cut; with ``stride`` 2 the short cut averages before it widens (ResNet-D)."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or width_in != width:
            self.shortcut = nn.Sequential(
                # An odd side keeps its last row: sides that are no multiple of 16 work as well.
                nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity(),
                nn.Conv2d(width_in, width, 1, bias=False),
                nn.BatchNorm2d(width),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        added: torch.Tensor = self.relu(out + self.shortcut(x))
        return added


class NetM(nn.Module):
    """6.95 million parameters, 285 million multiply-adds at 64 px: (N, 3, side, side) to logits (N, classes).

    Plain 3x3 blocks on purpose: on a CPU they run near its limit, bottlenecks and depthwise ones at half of it.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, _STEM, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(_STEM), nn.ReLU(inplace=True)
        )
        blocks: list[nn.Module] = []
        width_in = _STEM
        for stage, (width, count) in enumerate(zip(_WIDTHS, _BLOCKS, strict=True)):
            for block in range(count):
                blocks.append(Block(width_in, width, stride=2 if stage > 0 and block == 0 else 1))
                width_in = width
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(width_in, classes)
        self._initialise()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.pool(self.blocks(self.stem(x)))
        logits: torch.Tensor = self.head(torch.flatten(features, 1))
        return logits

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, Block):
                # Each block begins as its short cut: the deep net learns from the first step.
                nn.init.zeros_(module.bn2.weight)


#: Builders by NAME; each takes the number of classes.
NETS: dict[str, Callable[[int], nn.Module]] = {"m": NetM}
