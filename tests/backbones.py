"""Small convolutional backbones of the known families, for tests that hold for every network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ConvNormAct(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )


class PerTask(nn.Module):
    """What a user would write without gates: one network a task, or one for all."""

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleDict(networks)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {task: network(x) for task, network in self.networks.items()}


class Plain(nn.Module):
    """Convolutions with biases, no norms, one channel in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 1, 1), nn.Tanh(), nn.Conv2d(1, 4, 3), nn.LeakyReLU()
        )

    def forward(self, x: Tensor) -> Any:
        return self.layers(x)


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(ConvNormAct(3, 6), nn.MaxPool2d(2), ConvNormAct(6, 4), nn.AvgPool2d(2))

    def forward(self, x: Tensor) -> Any:
        return self.layers(x)


class ActThenNorm(nn.Module):
    """The norm stands behind the activation, where it cannot be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)
        self.second, self.norm2 = nn.Conv2d(5, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Any:
        x = self.norm(F.relu(self.first(x)))
        return self.norm2(F.silu(self.second(x)))


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Any:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x if self.shortcut is None else self.shortcut(x)
        return self.relu(out)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNormAct(3, 4)
        self.blocks = nn.Sequential(BasicBlock(4, 4), BasicBlock(4, 6, 2), BasicBlock(6, 6))

    def forward(self, x: Tensor) -> Any:
        return self.blocks(self.stem(x))


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, middle: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvNormAct(inputs, middle, 1),
            ConvNormAct(middle, middle),
            nn.Conv2d(middle, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Any:
        return F.relu(self.body(x) + self.shortcut(x))


class Bottlenecks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = ConvNormAct(3, 4), Bottleneck(4, 2, 6), Bottleneck(6, 3, 6)

    def forward(self, x: Tensor) -> Any:
        return self.second(self.first(self.stem(x))).mean((2, 3))


class PreActivation(nn.Module):
    """No activation follows the sums, so sites stand before them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(4))
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(4))

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        for block in (0, 2):
            y = self.convs[block](self.norms[block](x).relu())
            x = x + self.convs[block + 1](self.norms[block + 1](y).relu())
        return x


class InvertedResidual(nn.Module):
    """Depthwise convolutions, relu6, a linear bottleneck."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNormAct(3, 4)
        self.expand = nn.Sequential(nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8), nn.ReLU6())
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU6())
        self.project = nn.Sequential(nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4))

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        return x + self.project(self.depthwise(self.expand(x)))


class Dense(nn.Module):
    """Every layer reads all before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNormAct(3, 4)
        self.layers = nn.ModuleList([ConvNormAct(4, 3), ConvNormAct(7, 3), ConvNormAct(10, 3)])

    def forward(self, x: Tensor) -> Any:
        features = [self.stem(x)]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return torch.cat(features, dim=1)


class Inception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.three, self.pool = ConvNormAct(3, 3, 1), ConvNormAct(3, 4), ConvNormAct(3, 2, 1)
        self.last = ConvNormAct(9, 5, 1)

    def forward(self, x: Tensor) -> Any:
        pooled = self.pool(F.max_pool2d(x, 3, 1, 1))
        return self.last(torch.cat([self.one(x), self.three(x), pooled], 1))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep, self.up = ConvNormAct(3, 4), ConvNormAct(4, 6, stride=2), ConvNormAct(10, 4)

    def forward(self, x: Tensor) -> Any:
        fine = self.down(x)
        coarse = F.interpolate(self.deep(fine), scale_factor=2, mode="bilinear", align_corners=False)
        return self.up(torch.cat([fine, coarse], 1))


class Decoder(nn.Module):
    """A transposed convolution behind an encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = ConvNormAct(3, 5, stride=2)
        self.decoder = nn.Sequential(nn.ConvTranspose2d(5, 4, 2, 2), nn.BatchNorm2d(4), nn.ELU())

    def forward(self, x: Tensor) -> Any:
        return self.decoder(self.encoder(x))


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = ConvNormAct(3, 6)
        self.reduce, self.expand = nn.Conv2d(6, 2, 1), nn.Conv2d(2, 6, 1)
        self.last = ConvNormAct(6, 4)

    def forward(self, x: Tensor) -> Any:
        x = self.conv(x)
        scale = torch.sigmoid(self.expand(F.relu(self.reduce(F.adaptive_avg_pool2d(x, 1)))))
        return self.last(x * scale)


class Grouped(nn.Module):
    """Grouped convolutions and group norms, which no rule takes apart."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.grouped = ConvNormAct(3, 4), nn.Conv2d(4, 6, 3, groups=2)
        self.norm, self.last = nn.GroupNorm(3, 6), ConvNormAct(6, 4)

    def forward(self, x: Tensor) -> Any:
        return self.last(F.relu(self.norm(self.grouped(self.stem(x)))))


class SpatialAttention(nn.Module):
    """A map of one channel scales all others."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.attend, self.last = ConvNormAct(3, 5), nn.Conv2d(5, 1, 1), nn.Conv2d(5, 4, 1)

    def forward(self, x: Tensor) -> Any:
        x = self.conv(x)
        weights = self.attend(x).flatten(2).softmax(-1).view(x.shape[0], 1, 8, 8)
        return self.last((x * weights).sum(dim=(2, 3), keepdim=True)) + self.last(x)
