"""High-resolution networks (Wang et al., "Deep High-Resolution Representation Learning for Visual Recognition", 2020).

A trunk keeps four feature maps side by side, at strides 4, 8, 16 and 32, and has them exchange what they see again and
again. It returns all four, so its heads read several maps (`gatedeploy.models.heads.HRNetHead`).
Parameters are called what the authors' code and timm call them (`stage2.0.fuse_layers.0.1.0.weight`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from gatedeploy.models.resnet import BasicBlock, Bottleneck, check_in_channels

MODULES = (1, 4, 3)
"""How many exchanges the stages of two, three and four maps have (Wang et al. 2020, section 3.4)."""

BLOCKS = 4
"""Residual blocks per map between two exchanges, and in the first stage."""


class HRNet(nn.Module):
    """A trunk: a stem of stride 4, one stage of bottlenecks, then stages of two, three and four maps.

    Args:
        widths: channels of the four maps, from the finest to the coarsest.
        in_channels: channels of the picture.

    Attributes:
        out_channels: the same `widths`.
        stride: how many pixels of the picture lie between two neighbours of the finest map.
    """

    def __init__(self, widths: tuple[int, int, int, int], in_channels: int) -> None:
        super().__init__()
        self.out_channels = widths
        self.stride = 4
        self.conv1 = _conv3x3(in_channels, 64, 2)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu1 = nn.ReLU()
        self.conv2 = _conv3x3(64, 64, 2)
        self.bn2 = nn.BatchNorm2d(64)
        self.relu2 = nn.ReLU()
        self.layer1 = nn.Sequential(*(Bottleneck(256 if number else 64, 64, 1, 1, 1) for number in range(BLOCKS)))
        coarser = nn.Sequential(_conv_norm_relu(256, widths[1], 2))
        self.transition1 = nn.ModuleList([_conv_norm_relu(256, widths[0], 1), coarser])
        self.stage2 = _stage(widths[:2], MODULES[0])
        self.transition2 = _transition(widths[:3])
        self.stage3 = _stage(widths[:3], MODULES[1])
        self.transition3 = _transition(widths[:4])
        self.stage4 = _stage(widths[:4], MODULES[2])
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Map `(batch, in_channels, height, width)` to four maps, of `widths[k]` channels at stride 4 · 2ᵏ."""
        x = self.relu1(self.bn1(self.conv1(image)))
        x = self.layer1(self.relu2(self.bn2(self.conv2(x))))
        maps = self.stage2([transition(x) for transition in self.transition1])
        maps = self.stage3([*maps, self.transition2[-1](maps[-1])])
        maps = self.stage4([*maps, self.transition3[-1](maps[-1])])
        return tuple(maps)


class Exchange(nn.Module):
    """Residual blocks on each map, then each map becomes the sum of all, brought to its size (figure 4).

    A finer map comes by 3×3 convolutions of stride 2, a coarser one by a 1×1 convolution and the nearest neighbour.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width, width, 1, 1, 1) for _ in range(BLOCKS))) for width in widths
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_bring(widths, source, target) for source in range(len(widths)))
            for target in range(len(widths))
        )
        self.relus = nn.ModuleList(nn.ReLU() for _ in widths)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """One map per width, from the finest to the coarsest, and as many out."""
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        fused = []
        for target, layers in enumerate(self.fuse_layers):
            total = None
            for source, (layer, x) in enumerate(zip(cast(nn.ModuleList, layers), maps, strict=True)):
                brought = layer(x)
                if source > target:
                    brought = F.interpolate(brought, size=maps[target].shape[2:], mode="nearest")
                total = brought if total is None else total + brought
            fused.append(self.relus[target](total))
        return fused


def hrnet18(in_channels: int = 3) -> HRNet:
    """HRNet-W18: maps of 18, 36, 72 and 144 channels.

    Args:
        in_channels: channels of the picture.

    Raises:
        InputError: `in_channels` is no positive integer.
    """
    check_in_channels("hrnet18", in_channels)
    return HRNet((18, 36, 72, 144), in_channels)


def _stage(widths: Sequence[int], modules: int) -> nn.Sequential:
    return nn.Sequential(*(Exchange(widths) for _ in range(modules)))


def _transition(widths: Sequence[int]) -> nn.ModuleList:
    """What makes one coarser map of the coarsest; the others stay as they are."""
    kept: list[nn.Module] = [nn.Identity() for _ in widths[:-1]]
    return nn.ModuleList([*kept, nn.Sequential(_conv_norm_relu(widths[-2], widths[-1], 2))])


def _bring(widths: Sequence[int], source: int, target: int) -> nn.Module:
    """The layers that bring one map to the channels, and a finer one to the size, of another."""
    if source == target:
        return nn.Identity()
    if source > target:
        return nn.Sequential(nn.Conv2d(widths[source], widths[target], 1, bias=False), nn.BatchNorm2d(widths[target]))
    halvings = [_conv_norm_relu(widths[source], widths[source], 2) for _ in range(target - source - 1)]
    last = nn.Sequential(_conv3x3(widths[source], widths[target], 2), nn.BatchNorm2d(widths[target]))
    return nn.Sequential(*halvings, last)


def _conv3x3(in_channels: int, out_channels: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)


def _conv_norm_relu(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(_conv3x3(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels), nn.ReLU())
