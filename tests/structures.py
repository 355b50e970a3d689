"""Small networks of many structures, each gated, for tests that hold for every network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import gatedeploy as gd
from tests.backbones import (
    ActThenNorm,
    Bottlenecks,
    ConvNormAct,
    Decoder,
    Dense,
    Grouped,
    Inception,
    InvertedResidual,
    Normed,
    Plain,
    PreActivation,
    Residual,
    SpatialAttention,
    SqueezeExcite,
    UNet,
)
from tests.odd_backbones import (
    CalledTwice,
    ChannelsLast,
    FlattenMLP,
    Functional,
    InPlace,
    LayerNormed,
    Padded,
    Pyramid,
    Repeated,
    Shuffle,
    Split,
    Stacked,
    Tokens,
    ViewMLP,
)


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
