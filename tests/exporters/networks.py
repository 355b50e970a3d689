"""Small gated networks, and what is asked of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import gatedeploy as gd
from gatedeploy.artifact import ModelInfo

SIZE = 8
INPUT = gd.InputSpec(3, SIZE, SIZE, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
SCENE = gd.Task("scene", "classification", ("kitchen", "street"))
PARTS = gd.Task("parts", "segmentation", ("sky", "road", "tree"))
INFO = ModelInfo((SCENE, PARTS), INPUT, form="collapsed", metrics={"scene": {"accuracy": 0.75, "loss": float("nan")}})


class Backbone(nn.Module):
    """Two convolutions; a picture to 6 channels of half its size."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 6, 3, 1, 1), nn.ReLU())

    def forward(self, image: Tensor) -> Any:
        return self.second(self.first(image))


class SceneHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Linear(6, 2)

    def forward(self, features: Tensor) -> Tensor:
        scores: Tensor = self.scores(features.mean((2, 3)))
        return scores


class PartsHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Conv2d(6, 3, 1)

    def forward(self, features: Tensor) -> Tensor:
        return nn.functional.interpolate(self.scores(features), (SIZE, SIZE), mode="bilinear")


class TwoHeads(nn.Module):
    """Predicts a structure of tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.coarse, self.fine = nn.Conv2d(6, 2, 1), nn.Conv2d(6, 1, 1)

    def forward(self, features: Tensor) -> Any:
        return self.coarse(features), {"fine": self.fine(features)}


def example(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(5))


def gated(group: int = 1, heads: dict[str, nn.Module] | None = None, chosen: float = 0.4) -> gd.GatedNetwork:
    """A gated network with lively norms in which each task keeps about `chosen` of its channels for itself."""
    generator = torch.Generator().manual_seed(7)
    torch.manual_seed(3)
    heads = {"scene": SceneHead(), "parts": PartsHead()} if heads is None else heads
    net = gd.gate(Backbone(), [gd.Task(name) for name in heads], example_input=example(), heads=heads, group=group)
    for module in net.modules():
        if isinstance(module, gd.ChannelGate):
            module.choose(torch.rand(module.gate_logits.shape, generator=generator) < chosen)
        if isinstance(module, gd.Mix):
            nn.init.normal_(module.mix_logits, generator=generator)
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(std=0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return net.eval()


def collapsed(**options: Any) -> gd.Collapsed:
    return gd.collapse(gated(**options), example_input=example())
