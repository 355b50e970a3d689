"""Residual networks without their classifier (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016).

A trunk maps a picture `(batch, in_channels, height, width)` to its last feature map
`(batch, out_channels, ⌈height / stride⌉, ⌈width / stride⌉)`; pooling and classifying are the heads' business.
Parameters are called what torchvision calls them (`layer1.0.conv1.weight`), so that its weights load.
Every activation is a module of its own and none works in place: a traced graph has one name for each.
"""

from __future__ import annotations

import math
from collections import OrderedDict

from torch import Tensor, nn

from gatedeploy.errors import InputError

OUTPUT_STRIDES = (8, 16, 32)

DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet20": (3, 3, 3), "resnet50": (3, 4, 6, 3)}
"""Blocks in each stage."""


class ResNet(nn.Sequential):
    """A trunk: stem, then the stages `layer1`, `layer2`, …, each a sequence of residual blocks.

    Attributes:
        out_channels: channels of the feature map it returns.
        stride: how many pixels of the picture lie between two neighbours of that map.
    """

    def __init__(self, layers: OrderedDict[str, nn.Module], out_channels: int, stride: int) -> None:
        super().__init__(layers)
        self.out_channels = out_channels
        self.stride = stride
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut (He et al. 2016, figure 5, left).

    Args:
        in_channels: channels of the input.
        channels: channels in the middle; the output has `expansion` times as many.
        stride: of the first convolution and the shortcut.
        entry_dilation: of the first 3×3 convolution.
        dilation: of the one after it.
    """

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int, entry_dilation: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_channels, channels, stride, entry_dilation)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = _conv3x3(channels, channels, 1, dilation)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(in_channels, channels, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, in_channels, height, width)` to `(batch, channels, height / stride, width / stride)`."""
        hidden = self.relu1(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(hidden))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu2(out + shortcut)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions beside a shortcut (He et al. 2016, figure 5, right).

    The stride sits on the 3×3 convolution, as in torchvision ("ResNet v1.5"), not on the first 1×1 as in the paper.
    Arguments are those of `BasicBlock`; the only 3×3 convolution takes `entry_dilation`, so `dilation` goes unused.
    """

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int, entry_dilation: int, dilation: int) -> None:
        super().__init__()
        del dilation
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = _conv3x3(channels, channels, stride, entry_dilation)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(channels, channels * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels * self.expansion)
        self.downsample = _shortcut(in_channels, channels * self.expansion, stride)
        self.relu3 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, in_channels, height, width)` to `(batch, 4 · channels, height / stride, width / stride)`."""
        hidden = self.relu1(self.bn1(self.conv1(x)))
        hidden = self.relu2(self.bn2(self.conv2(hidden)))
        out = self.bn3(self.conv3(hidden))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu3(out + shortcut)  # type: ignore[no-any-return]


def resnet20(width: float = 1.0, in_channels: int = 3) -> ResNet:
    """ResNet-20 for small pictures (He et al. 2016, section 4.2): 3 stages of 3 basic blocks, stride 4.

    The stem is one 3×3 convolution of stride 1 without pooling. Where a stage widens, the shortcut is a 1×1 convolution
    with norm (the paper's option B; its CIFAR nets use option A, zero padding, which leaves nothing to learn or gate).

    Args:
        width: multiplies the stages' 16, 32 and 64 channels; a multiple of 1/16.
        in_channels: channels of the picture.

    Raises:
        InputError: `width` does not give whole channels, or `in_channels` is no positive integer.
    """
    check_in_channels("resnet20", in_channels)
    base = _scaled("resnet20", 16, width)
    stem = OrderedDict[str, nn.Module](
        conv1=_conv3x3(in_channels, base, 1, 1),
        bn1=nn.BatchNorm2d(base),
        relu=nn.ReLU(),
    )
    return _with_stages(stem, BasicBlock, base, DEPTHS["resnet20"], stem_stride=1, output_stride=4)


def resnet18(output_stride: int = 32, in_channels: int = 3) -> ResNet:
    """ResNet-18 (He et al. 2016, table 1), dilated where `output_stride` asks for it.

    Dilation: a stage that may not stride any more keeps its resolution and dilates what follows the missing stride;
    its first 3×3 convolution keeps the dilation of the stage before. So does torchvision's
    `replace_stride_with_dilation` for bottlenecks, and the MTL survey's code (Vandenhende et al. 2021) for both blocks.
    The dilated trunk, sampled at every (32 / output_stride)-th pixel, *is* the undilated one.

    Args:
        output_stride: 32, 16 or 8.
        in_channels: channels of the picture.

    Raises:
        InputError: no such output stride, or `in_channels` is no positive integer.
    """
    return _imagenet("resnet18", BasicBlock, output_stride, in_channels)


def resnet50(output_stride: int = 32, in_channels: int = 3) -> ResNet:
    """ResNet-50 (He et al. 2016, table 1), dilated as `resnet18` is.

    Args:
        output_stride: 8, 16 or 32.
        in_channels: channels of the picture.

    Raises:
        InputError: no such output stride, or `in_channels` is no positive integer.
    """
    return _imagenet("resnet50", Bottleneck, output_stride, in_channels)


def _imagenet(name: str, block: type[BasicBlock | Bottleneck], output_stride: int, in_channels: int) -> ResNet:
    check_in_channels(name, in_channels)
    if output_stride not in OUTPUT_STRIDES:
        raise InputError(f"{name}: output_stride {output_stride!r} is not among {', '.join(map(str, OUTPUT_STRIDES))}")
    stem = OrderedDict[str, nn.Module](
        conv1=nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False),
        bn1=nn.BatchNorm2d(64),
        relu=nn.ReLU(),
        maxpool=nn.MaxPool2d(3, stride=2, padding=1),
    )
    return _with_stages(stem, block, 64, DEPTHS[name], stem_stride=4, output_stride=output_stride)


def _with_stages(
    layers: OrderedDict[str, nn.Module],
    block: type[BasicBlock | Bottleneck],
    base: int,
    depths: tuple[int, ...],
    stem_stride: int,
    output_stride: int,
) -> ResNet:
    """A stem of `base` channels and its stages; each after the first doubles the channels and strides if it may."""
    channels, reached, dilation = base, stem_stride, 1
    for number, depth in enumerate(depths):
        wanted = 1 if number == 0 else 2
        stride = wanted if reached * wanted <= output_stride else 1
        entry_dilation, dilation = dilation, dilation * wanted // stride
        middle = base * 2**number
        blocks = [block(channels, middle, stride, entry_dilation, dilation)]
        channels = middle * block.expansion
        blocks += [block(channels, middle, 1, dilation, dilation) for _ in range(depth - 1)]
        layers[f"layer{number + 1}"] = nn.Sequential(*blocks)
        reached *= stride
    return ResNet(layers, channels, reached)


def _conv3x3(in_channels: int, out_channels: int, stride: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=dilation, dilation=dilation, bias=False)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """Option B: a projection where the shape changes, else None for the identity."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


def _scaled(name: str, channels: int, width: float) -> int:
    """`channels · width`, which must be whole and at least 1."""
    if not isinstance(width, (int, float)) or not math.isfinite(width):
        raise InputError(f"{name}: width must be a number such as 0.5, got {width!r}")
    scaled = channels * width
    nearest = max(1, round(scaled))
    if scaled != nearest:
        raise InputError(
            f"{name}: width {width} makes {scaled:g} channels of {channels}, expected a whole number of at least 1; "
            f"the closest is {nearest / channels:g} ({nearest})"
        )
    return nearest


def check_in_channels(name: str, in_channels: int) -> None:
    """Raise `InputError` when a picture cannot have so many channels."""
    if not isinstance(in_channels, int) or in_channels < 1:
        raise InputError(f"{name}: in_channels must be an integer of at least 1, got {in_channels!r}")
