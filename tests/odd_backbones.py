"""Small backbones written in unusual ways: axes that move, parts that go apart and come together, calls in place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.backbones import ConvNormAct


class FlattenMLP(nn.Module):
    """Channels become blocks of neighbouring features behind a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = ConvNormAct(3, 4, stride=2)
        self.mlp = nn.Sequential(nn.Linear(4 * 16, 6), nn.BatchNorm1d(6), nn.GELU(), nn.Linear(6, 5))

    def forward(self, x: Tensor) -> Any:
        return self.mlp(torch.flatten(self.conv(x), 1))


class ViewMLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = ConvNormAct(3, 4, stride=4), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Any:
        x = self.conv(x)
        return torch.sigmoid(self.fc(x.view(x.size(0), -1)))


class Functional(nn.Module):
    """No layer modules at all; pixels normalised by buffers."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.b1 = nn.Parameter(torch.randn(5, 3, 3, 3) / 5), nn.Parameter(torch.randn(5))
        self.w2 = nn.Parameter(torch.randn(4, 5, 1, 1))
        self.scale = nn.Parameter(torch.rand(4, 1, 1) + 0.5)
        self.register_buffer("mean", torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Any:
        x = torch.relu(F.conv2d(x - self.mean, self.w1, self.b1, padding=1))
        return F.conv2d(x, weight=self.w2) * self.scale


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Any:
        x = self.a(x)
        kept = x
        F.relu_(x)
        y = self.b(x).mul_(0.5)
        y += kept  # the rectified one: `kept` is the same tensor
        return F.hardtanh(y, inplace=True)


class CalledTwice(nn.Module):
    """One convolution, two calls, two sites."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shared, self.norm = ConvNormAct(3, 4), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.shared(self.stem(x)))
        return F.relu(self.norm(self.shared(x)))


class Pyramid(nn.Module):
    """Returns several features in a nested structure."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = ConvNormAct(3, 4), ConvNormAct(4, 5, stride=2), ConvNormAct(5, 3, stride=2)

    def forward(self, x: Tensor) -> Any:
        one = self.one(x)
        two = self.two(one)
        return {"fine": one, "coarse": (two, self.three(two))}


class Shuffle(nn.Module):
    """Channel shuffle and pixel shuffle move channels about by reshaping."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.middle, self.last = ConvNormAct(3, 4), ConvNormAct(4, 8), ConvNormAct(2, 3)

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        b, c, h, w = x.shape
        x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        return self.last(F.pixel_shuffle(self.middle(x), 2))


class Split(nn.Module):
    """Parts of the channels go different ways."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = ConvNormAct(3, 6), ConvNormAct(2, 2), ConvNormAct(4, 3)

    def forward(self, x: Tensor) -> Any:
        left, middle, right = self.stem(x).chunk(3, dim=1)
        left = self.left(left)
        right = self.right(torch.cat([right, middle + left], 1))
        return torch.cat([left, right[:, 1:]], 1)


class ChannelsLast(nn.Module):
    """Linear layers over the last axis of (batch, height, width, channels)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc1, self.fc2 = nn.Conv2d(3, 4, 2, 2), nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x).permute(0, 2, 3, 1)
        x = x + self.fc2(F.gelu(self.fc1(x)))
        return x.permute(0, 3, 1, 2)


class LayerNormed(nn.Module):
    """Norms over the channels themselves: barriers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.fc = nn.Conv2d(3, 4, 4, 4), nn.LayerNorm(4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Any:
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        return tokens + self.fc(self.norm(tokens))


class Tokens(nn.Module):
    """A class token before the patches, tokens before the batch, attention that gives its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.token = nn.Conv2d(3, 4, 4, 4), nn.Parameter(torch.randn(1, 1, 4))
        self.attention, self.fc = nn.MultiheadAttention(4, 2), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Any:
        patches = self.stem(x).flatten(2).mT
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), patches], 1).transpose(0, 1)
        tokens = tokens + self.attention(tokens, tokens, tokens)[0]
        return self.fc(tokens).transpose(0, 1)[:, 0]


class Repeated(nn.Module):
    """The same channels twice, and the picture itself, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = ConvNormAct(3, 4), nn.Conv2d(11, 4, 1)
        self.slope = nn.PReLU(4)

    def forward(self, x: Tensor) -> Any:
        y = self.conv(x)
        return self.slope(self.last(torch.cat([y, x, y], 1)))


class Padded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 3)

    def forward(self, x: Tensor) -> Any:
        x = F.pad(torch.sqrt(self.conv(x).abs() + 1), (1, 1, 1, 1), mode="reflect")
        return self.last(F.pad(x, (1, 1, 1, 1))).clamp(-1, 1)


class Stacked(nn.Module):
    """Features joined along a new axis and taken apart again."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.last = ConvNormAct(3, 4), ConvNormAct(3, 4), nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Any:
        both = torch.stack([self.one(x), self.two(x)], 1)
        return self.last(both.amax(1) - both[:, 0] + both.select(1, 1).unsqueeze(2).squeeze(2))


ODD = [
    *(FlattenMLP, ViewMLP, Functional, InPlace, CalledTwice, Pyramid, Shuffle, Split, ChannelsLast, LayerNormed),
    *(Tokens, Repeated, Padded, Stacked),
]
