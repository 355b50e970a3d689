"""Backbones whose Python code does more than call layers: it asks for sizes, loops, remembers, writes entries."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Layers(nn.Module):
    """Two convolutions, for those below to call as they like."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)


class LoopOverAShape(Layers):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        while x.shape[-1] > 2:
            x = F.avg_pool2d(self.b(x), 2)
        return x


class PaddedToAMultiple(Layers):
    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if height % 3 or width % 3:
            x = F.pad(x, (0, -width % 3, 0, -height % 3))
        return self.b(self.a(x))


class Windows(Layers):
    """The batch grows by what Python computes of the picture's size."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        batch, channels, height, width = x.shape
        count = int(height * width / 16)
        x = x.view(batch, channels, 2, height // 2, 2, width // 2).permute(0, 2, 4, 1, 3, 5)
        x = self.b(x.reshape(batch * count, channels, height // 2, width // 2))
        return x.view(batch, count, channels, -1).mean(1)


class BufferForEachPicture(Layers):
    def __init__(self) -> None:
        super().__init__()
        self.grid: Tensor
        self.register_buffer("grid", torch.linspace(-1, 1, 8).view(1, 1, 1, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        if x.ndim != 4:
            return x.unsqueeze(0)
        return self.b(x * self.grid.expand(x.size(0), 4, x.size(2), -1))


class BufferForASize(Layers):
    """Makes its buffer anew when pictures are of another size, as ConViT does."""

    def __init__(self) -> None:
        super().__init__()
        self.ramp: Tensor
        self.register_buffer("ramp", torch.zeros(1, 1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.ramp.shape[-1] != x.shape[-1]:
            self.ramp = torch.linspace(0, 1, x.shape[-1]).view(1, 1, 1, -1)
        return self.b(self.a(x) + self.ramp.expand(x.shape[0], 4, -1, -1))


class SizesGivenToFunctions(Layers):
    """The size of the batch is handed to what takes numbers only."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        ramp = torch.linspace(0, 1, 8).view(1, 1, 1, 8).expand(x.shape[0], 1, 1, -1)
        ones = torch.ones(x.size(0), 4, 8, 8) * torch.ones(1, 4, 1, 1).repeat(x.size(0), 1, 1, 1)
        return self.b(x + ramp + ones)


class KernelsOfEachPicture(Layers):
    """A depthwise layer whose weights a picture computes for itself, all pictures in one call (CondConv).

    ONNX has no convolution in as many groups as there are pictures.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernels = nn.Linear(4, 4 * 9)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        batch, channels, height, width = x.shape
        weight = self.kernels(x.mean((2, 3))).reshape(batch * channels, 1, 3, 3)
        together = x.reshape(1, batch * channels, height, width)
        return self.b(F.conv2d(together, weight, padding=1, groups=batch * channels).view_as(x))


class FrozenStem(Layers):
    """No gradients flow through the first layer."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = F.relu(self.a(x)) * 2
        return self.b(x)


class EntriesWritten(Layers):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        x[:, 0] = 0
        x[:, :, 2:] += self.b(x)[:, :, :-2]
        return self.b(x)


class Remembering(Layers):
    """Keeps in a dictionary what it computed of its weights, as levit does."""

    def __init__(self) -> None:
        super().__init__()
        self.cache: dict[str, Tensor] = {}

    def train(self, mode: bool = True) -> None:  # type: ignore[override]
        super().train(mode)
        self.cache = {}

    def forward(self, x: Tensor) -> Tensor:
        if "kernel" not in self.cache:
            self.cache["kernel"] = self.b.weight * 2
        return F.conv2d(self.a(x), self.cache["kernel"], self.b.bias)


class ConstantOfASize(Layers):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        ramp = torch.arange(x.shape[-1], dtype=x.dtype, device=x.device)
        return self.b(x + ramp)


class Features(NamedTuple):
    last: Tensor
    extra: Tensor


class HelperInTraining(Layers):
    """As GoogLeNet: in training there are more calls, so fx counts `relu` differently."""

    def forward(self, x: Tensor) -> Tensor | Features:
        x = F.relu(self.a(x))
        extra = F.relu(F.avg_pool2d(x, 8)) if self.training else None
        x = F.relu(self.b(F.relu(x + 1)))
        return x if extra is None else Features(x, extra)


class DroppedPath(Layers):
    """In training alone, half of the pictures go past the second layer, as timm writes it."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        return F.relu(x + self.dropped(F.relu(self.b(x))))

    def dropped(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(0.5)
        return x * kept.div_(0.5)


class WithOptions(Layers):
    def forward(self, x: Tensor, twice: bool = False, scale: float | None = None, **unused: Any) -> Tensor:
        x = self.b(self.a(x))
        return x * 2 if twice else x if scale is None else x * scale


@torch.fx.wrap
def padded_layer(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Hidden from torch.fx, which could not follow it, as torchvision's windowed attention is."""
    if x.shape[-1] % 3:
        x = F.pad(x, (0, -x.shape[-1] % 3, 0, 0))
    return F.conv2d(x, weight, bias).relu()


class HiddenLayer(Layers):
    def forward(self, x: Tensor) -> Tensor:
        return self.a(padded_layer(self.b(self.a(x)), self.b.weight, self.b.bias)[:, :3])


PYTHONIC = [
    *(
        LoopOverAShape,
        PaddedToAMultiple,
        Windows,
        BufferForEachPicture,
        BufferForASize,
        EntriesWritten,
        Remembering,
        ConstantOfASize,
    ),
    SizesGivenToFunctions,
    *(HelperInTraining, DroppedPath, WithOptions, HiddenLayer),
]
