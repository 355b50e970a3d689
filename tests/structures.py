"""Small networks of many structures, each gated, for tests that hold for every network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gatedeploy as gd


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


class Grouped(nn.Module):
    """Grouped convolutions and group norms, which no rule takes apart."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.grouped = ConvNormAct(3, 4), nn.Conv2d(4, 6, 3, groups=2)
        self.norm, self.last = nn.GroupNorm(3, 6), ConvNormAct(6, 4)

    def forward(self, x: Tensor) -> Any:
        return self.last(F.relu(self.norm(self.grouped(self.stem(x)))))


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
    """A class token before the patches, tokens before the batch: attention is a barrier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.token = nn.Conv2d(3, 4, 4, 4), nn.Parameter(torch.randn(1, 1, 4))
        self.attention, self.fc = nn.MultiheadAttention(4, 2), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Any:
        patches = self.stem(x).flatten(2).mT
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), patches], 1).transpose(0, 1)
        tokens = tokens + self.attention(tokens, tokens, tokens)[0]
        return self.fc(tokens).transpose(0, 1)[:, 0]


class SpatialAttention(nn.Module):
    """A map of one channel scales all others."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.attend, self.last = ConvNormAct(3, 5), nn.Conv2d(5, 1, 1), nn.Conv2d(5, 4, 1)

    def forward(self, x: Tensor) -> Any:
        x = self.conv(x)
        weights = self.attend(x).flatten(2).softmax(-1).view(x.shape[0], 1, 8, 8)
        return self.last((x * weights).sum(dim=(2, 3), keepdim=True)) + self.last(x)


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


class HandGated(nn.Module):
    """Two tasks, gates of several kinds, written by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.stems = nn.ModuleList(ConvNormAct(3, 4) for _ in range(3))
        self.gates = nn.ModuleList(gd.ChannelGate(4, group=2) for _ in range(2))
        self.mix = gd.Mix(2, 4)
        self.bodies = nn.ModuleList(ConvNormAct(4, 5, stride=2) for _ in range(3))
        self.whole = nn.ModuleList(gd.TensorGate() for _ in range(2))
        self.heads = nn.ModuleList(nn.Linear(5, n) for n in (2, 3))

    def forward(self, x: Tensor) -> Any:
        a, b, shared = (stem(x) for stem in self.stems)
        a, b = self.gates[0](a, shared), self.gates[1](b, shared)
        shared = self.bodies[2](self.mix(a, b))
        a = self.whole[0](self.bodies[0](a), shared)
        b = self.whole[1](self.bodies[1](b), shared)
        return {"a": self.heads[0](a.mean((2, 3))), "b": self.heads[1](b.mean((2, 3)))}


class HandGatedLast(nn.Module):
    """Gates along the last axis, one encoder for two tasks, a shared decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.private, self.shared = nn.Conv2d(3, 4, 4, 4), nn.Linear(4, 6), nn.Linear(4, 6)
        self.gates = nn.ModuleList(gd.ChannelGate(6, axis=-1) for _ in range(2))
        self.decoder = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Any:
        tokens = self.encoder(x).flatten(2).transpose(1, 2)
        private, shared = self.private(tokens), self.shared(tokens)
        first, second = (gate(private, shared) for gate in self.gates)
        return {"first": self.decoder(first), "second": [self.decoder(second), tokens.mean(1)]}


class HandGatedFlat(nn.Module):
    """Gates on single features of what a flatten made, over an encoder that fx cannot trace."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.shared = ConvNormAct(3, 2, stride=4), ConvNormAct(3, 2, stride=4)
        self.gate, self.fc = gd.ChannelGate(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Any:
        if x.shape[-1] > 4:  # fx stops at such a condition when the shape is free; export does not
            x = x * 2
        return {"only": self.fc(self.gate(self.own(x).flatten(1), self.shared(x).flatten(1)))}


@dataclass(frozen=True, eq=False)
class Structure:
    """How to make one gated network: a backbone to gate, or a network gated by hand."""

    make: Callable[[], nn.Module]
    tasks: int = 2
    options: dict[str, Any] = field(default_factory=dict)
    by_hand: bool = False
    head: Callable[[], nn.Module] | None = None

    @property
    def name(self) -> str:
        options = "".join(f"-{key}{value}" for key, value in self.options.items())
        return f"{getattr(self.make, '__name__', 'net')}-T{self.tasks}{options}{'-heads' if self.head else ''}"

    def build(self) -> nn.Module:
        """The gated network in float64 and evaluation mode, every weight and statistic made irregular, seeded."""
        torch.manual_seed(0)
        network = self.make()
        if not self.by_hand:
            tasks = [gd.Task(f"task{i}") for i in range(self.tasks)]
            heads = {task.name: self.head() for task in tasks} if self.head else None
            network = gd.gate(network, tasks, example_input=EXAMPLE, heads=heads, **self.options)
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(std=0.3)
                module.running_var.uniform_(0.5, 2)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.3)
        for name, parameter in network.named_parameters():
            if "mix_logits" in name:
                nn.init.normal_(parameter)
        # The branches of `gate` start alike; apart from each other a wrong channel shows.
        for name, parameter in network.named_parameters():
            if not name.endswith("gate_logits"):
                parameter.data += 0.1 * torch.randn_like(parameter)
        return network.double().eval()


EXAMPLE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))

STRUCTURES = [
    Structure(Plain, 2),
    Structure(Plain, 1),
    Structure(Normed, 3),
    Structure(Normed, 2, {"group": 4}),
    Structure(ActThenNorm, 2),
    Structure(Residual, 3),
    Structure(Residual, 2, {"tie": "residual"}),
    Structure(Residual, 5, {"group": 2, "tie": "residual"}),
    Structure(Residual, 2, head=lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))),
    Structure(Bottlenecks, 3, {"tie": "residual", "group": 3}),
    Structure(Bottlenecks, 4, head=lambda: nn.Linear(6, 2)),
    Structure(PreActivation, 2),
    Structure(PreActivation, 3, {"tie": "residual"}),
    Structure(InvertedResidual, 2),
    Structure(Dense, 3),
    Structure(Dense, 2, {"group": 2}),
    Structure(Inception, 3),
    Structure(UNet, 2),
    Structure(UNet, 3, head=lambda: nn.Conv2d(4, 2, 1)),
    Structure(Decoder, 2),
    Structure(FlattenMLP, 3),
    Structure(ViewMLP, 2),
    Structure(SqueezeExcite, 2),
    Structure(Functional, 3),
    Structure(InPlace, 2),
    Structure(CalledTwice, 3),
    Structure(Pyramid, 2),
    Structure(Grouped, 2),
    Structure(Shuffle, 2),
    Structure(Split, 3),
    Structure(ChannelsLast, 2),
    Structure(LayerNormed, 2),
    Structure(Tokens, 2),
    Structure(SpatialAttention, 2),
    Structure(Repeated, 2),
    Structure(Padded, 2),
    Structure(Stacked, 2),
    Structure(HandGated, by_hand=True),
    Structure(HandGatedLast, by_hand=True),
    Structure(HandGatedFlat, 1, by_hand=True),
]
