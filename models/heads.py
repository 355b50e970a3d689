"""Heads: what makes a task's prediction of the last feature map of a trunk.

Every head maps `(batch, in_channels, h, w)` to the prediction. Dense heads end with a bilinear upsampling
(align_corners=False) to the picture's size; the class scores or depths themselves are linear, without activation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gatedeploy.errors import InputError


class LinearHead(nn.Module):
    """Global average pooling and one linear layer (He et al. 2016): `(batch, out_channels)` scores.

    Args:
        in_channels: channels of the feature map.
        out_channels: how many scores.

    Raises:
        InputError: one of them is no positive integer.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        check_counts("linear head", in_channels=in_channels, out_channels=out_channels)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, in_channels, h, w)` to `(batch, out_channels)`."""
        return self.linear(self.flatten(self.pool(x)))  # type: ignore[no-any-return]


class DenseHead(nn.Module):
    """A light head for small pictures: 3×3 convolution, norm, ReLU, 1×1 convolution, upsampling.

    Args:
        in_channels: channels of the feature map.
        out_channels: channels of the prediction.
        size: (height, width) of the prediction.
        width: channels in between.

    Raises:
        InputError: one of them is no positive integer, or `size` is no pair of such.
    """

    def __init__(self, in_channels: int, out_channels: int, size: Sequence[int], width: int = 32) -> None:
        super().__init__()
        check_counts("dense head", in_channels=in_channels, out_channels=out_channels, width=width)
        self.conv = conv_norm_relu(in_channels, width, 3)
        self.predict = nn.Conv2d(width, out_channels, 1)
        self.size = check_size("dense head", size)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, in_channels, h, w)` to `(batch, out_channels, height, width)`."""
        return upsample(self.predict(self.conv(x)), self.size)


class ASPPHead(nn.Module):
    """The head of DeepLabv3: atrous spatial pyramid pooling, 3×3 convolution, norm, ReLU, 1×1 convolution, upsampling.

    Sources: Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017, section 3.3, for the
    pyramid; the 3×3 convolution before the classifier and the dropout are in the MTL survey's code (Vandenhende et al.,
    "Multi-Task Learning for Dense Prediction Tasks: A Survey", TPAMI 2021) and in torchvision, not in the paper.
    This gives InterroGate's published costs to within 0.2 %.

    Args:
        in_channels: channels of the feature map.
        out_channels: channels of the prediction.
        size: (height, width) of the prediction.
        rates: dilations of the three atrous convolutions: (12, 24, 36) at output stride 8, (6, 12, 18) at 16.
        width: channels of every convolution but the last.

    Raises:
        InputError: a count is no positive integer, `rates` are not three of them, or `size` is not two.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: Sequence[int],
        rates: Sequence[int] = (12, 24, 36),
        width: int = 256,
    ) -> None:
        super().__init__()
        check_counts("aspp head", in_channels=in_channels, out_channels=out_channels, width=width)
        self.pyramid = ASPP(in_channels, width, rates)
        self.conv = conv_norm_relu(width, width, 3)
        self.predict = nn.Conv2d(width, out_channels, 1)
        self.size = check_size("aspp head", size)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, in_channels, h, w)` to `(batch, out_channels, height, width)`."""
        return upsample(self.predict(self.conv(self.pyramid(x))), self.size)


class HRNetHead(nn.Module):
    """All maps brought to the size of the first and concatenated, a 1×1 convolution, norm, ReLU, and another.

    Source: Wang et al., "Deep High-Resolution Representation Learning for Visual Recognition", 2020, figure 4 (b); with
    it InterroGate's published costs come out to within 0.1 %.

    Args:
        in_channels: channels of the maps, finest first.
        out_channels: channels of the prediction.
        size: (height, width) of the prediction.

    Raises:
        InputError: a count is no positive integer, there are fewer than two maps, or `size` is no pair.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int, size: Sequence[int]) -> None:
        super().__init__()
        if not isinstance(in_channels, Sequence) or len(in_channels) < 2:
            raise InputError(f"hrnet head: reads several feature maps, got in_channels {in_channels!r}")
        for channels in in_channels:
            check_counts("hrnet head", in_channels=channels, out_channels=out_channels)
        self.conv = conv_norm_relu(sum(in_channels), sum(in_channels), 1)
        self.predict = nn.Conv2d(sum(in_channels), out_channels, 1)
        self.size = check_size("hrnet head", size)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Map `(batch, in_channels[k], hₖ, wₖ)` for each k to `(batch, out_channels, height, width)`."""
        first, *others = maps
        brought = [upsample(x, first.shape[2:]) for x in others]
        return upsample(self.predict(self.conv(torch.cat([first, *brought], dim=1))), self.size)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (Chen et al. 2017, figure 5): five looks at the map, concatenated and projected.

    A 1×1 convolution, three 3×3 convolutions dilated by `rates`, and the global average; dropout of ½ at the end.
    The norm after the global average sees one value per picture and channel, so training needs a batch of at least 2.
    """

    def __init__(self, in_channels: int, width: int, rates: Sequence[int]) -> None:
        super().__init__()
        if not isinstance(rates, Sequence) or len(rates) != 3:
            raise InputError(f"aspp head: rates must be three dilations such as (12, 24, 36), got {rates!r}")
        for rate in rates:
            check_counts("aspp head", rates=rate)
        self.point = conv_norm_relu(in_channels, width, 1)
        self.atrous = nn.ModuleList(conv_norm_relu(in_channels, width, 3, rate) for rate in rates)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.image = conv_norm_relu(in_channels, width, 1)
        self.project = conv_norm_relu(5 * width, width, 1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, in_channels, h, w)` to `(batch, width, h, w)`."""
        everywhere = self.image(self.pool(x)).expand(-1, -1, x.shape[2], x.shape[3])
        looks = [self.point(x), *[conv(x) for conv in self.atrous], everywhere]
        return self.dropout(self.project(torch.cat(looks, dim=1)))  # type: ignore[no-any-return]


def conv_norm_relu(in_channels: int, out_channels: int, kernel_size: int, dilation: int = 1) -> nn.Sequential:
    """A convolution that keeps the map's size, batch norm, ReLU."""
    padding = dilation * (kernel_size // 2)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


def check_counts(where: str, **counts: int) -> None:
    """Raise `InputError` when one of the named counts is no positive integer."""
    for name, count in counts.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise InputError(f"{where}: {name} must be an integer of at least 1, got {count!r}")


def check_size(where: str, size: Sequence[int]) -> tuple[int, int]:
    """`size` as (height, width), or `InputError`."""
    if not isinstance(size, Sequence) or len(size) != 2:
        raise InputError(f"{where}: size must be (height, width), got {size!r}")
    height, width = size
    check_counts(where, height=height, width=width)
    return height, width


def upsample(x: Tensor, size: Sequence[int]) -> Tensor:
    """`x` at another size, bilinearly."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)
