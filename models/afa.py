"""Adaptive feature aggregation (Shen, Cui, Huang, Zong and Chen, CIKM 2020; Cui et al., IEEE TCSVT 2021).

What a task takes of the others' features depends on the picture: first channel by channel, then pixel by pixel.
The papers are about two tasks; with more, the mean of the others stands for the other.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gatedeploy.errors import InputError
from gatedeploy.gating.cuts import Place
from gatedeploy.models.heads import check_counts
from gatedeploy.models.side_by_side import SideBySide, check_map
from gatedeploy.specs import Task

LEAST = 32
"""Channels between the two layers of channel aggregation are at least so many (L in the authors' code)."""


class ChannelAggregation(nn.Module):
    """Softmax weights of own and other, channel by channel, from the mean of every channel of every task.

    T·C·d + 2·d·C parameters, d = max(T·C ÷ reduction, 32).

    Args:
        tasks: how many tasks there are.
        channels: of the feature of each.
        reduction: r of the paper.
    """

    def __init__(self, tasks: int, channels: int, reduction: int) -> None:
        super().__init__()
        inner = max(tasks * channels // reduction, LEAST)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Linear(tasks * channels, inner, bias=False)
        self.relu = nn.ReLU()
        self.of_own = nn.Linear(inner, channels, bias=False)
        self.of_other = nn.Linear(inner, channels, bias=False)

    def forward(self, *features: Tensor) -> tuple[Tensor, Tensor]:
        """One feature per task, each (batch, channels, height, width); two weights (batch, channels, 1, 1)."""
        means = torch.cat([self.pool(feature).flatten(1) for feature in features], 1)
        inner = self.relu(self.reduce(means))
        # A softmax over two is a sigmoid of their difference.
        own = (self.of_own(inner) - self.of_other(inner)).sigmoid()[..., None, None]
        return own, 1 - own


class SpatialAggregation(nn.Module):
    """Softmax weights of own and other, pixel by pixel, from the mean over channels of every task's feature.

    49·T + 2·(h·w)² parameters: meant for small maps, at the end of a network.

    Args:
        tasks: how many tasks there are.
        extent: (h, w) of the features.
    """

    def __init__(self, tasks: int, extent: Sequence[int]) -> None:
        super().__init__()
        pixels = math.prod(extent)
        self.look = nn.Conv2d(tasks, 1, 7, padding=3, bias=False)
        self.relu = nn.ReLU()
        self.of_own = nn.Linear(pixels, pixels, bias=False)
        self.of_other = nn.Linear(pixels, pixels, bias=False)
        self.shape = (1, *extent)

    def forward(self, *features: Tensor) -> tuple[Tensor, Tensor]:
        """One feature per task, each (batch, channels, h, w); two weights (batch, 1, h, w)."""
        means = torch.cat([feature.mean(1, keepdim=True) for feature in features], 1)
        seen = self.relu(self.look(means)).flatten(1)
        own = (self.of_own(seen) - self.of_other(seen)).sigmoid().unflatten(1, self.shape)
        return own, 1 - own


class AFA(nn.Module):
    """Both aggregations, one after the other, each with a ReLU.

    Args:
        tasks: how many tasks there are.
        place: what is aggregated.
        reduction: r of the paper.
    """

    def __init__(self, tasks: int, place: Place, reduction: int) -> None:
        super().__init__()
        check_map(place, "AFA")
        self.by_channel = ChannelAggregation(tasks, place.channels, reduction)
        self.by_pixel = SpatialAggregation(tasks, place.extent)
        self.relu = nn.ReLU()

    def forward(self, *features: Tensor) -> tuple[Tensor, ...]:
        """One feature per task, each (batch, channels, height, width); so is the result."""
        for weigh in (self.by_channel, self.by_pixel):
            own, other = weigh(*features)
            features = tuple(
                self.relu(own * feature + other * _mean(features, number)) for number, feature in enumerate(features)
            )
        return features


def _mean(features: Sequence[Tensor], own: int) -> Tensor:
    """The mean of all but one."""
    others = [feature for number, feature in enumerate(features) if number != own]
    return functools.reduce(torch.add, others) / len(others)


def afa(
    backbone: nn.Module,
    tasks: Sequence[Task],
    heads: Mapping[str, nn.Module],
    example_input: Tensor,
    sites: str | Sequence[str] = "end",
    reduction: int = 16,
) -> SideBySide:
    """T networks that take of each other's last features what the picture asks for.

    Args:
        backbone: the trunk; it is copied.
        tasks: the questions, at least two.
        heads: by task.
        example_input: (batch, channels, height, width), used for shapes; the network takes no other size.
        sites: `end`, `stages`, or names of nodes; the weights of a place grow with the square of its pixels.
        reduction: how many times fewer channels there are between the two layers that weigh them.

    Raises:
        InputError: no such site, one that is no feature map, a single task, or a number that cannot be.
    """
    check_counts("afa", reduction=reduction)
    if len(tasks) < 2:
        raise InputError("afa takes features of other tasks, and there is one task alone; train it by itself")
    given = backbone, tasks, heads, example_input
    network = SideBySide(*given, sites, lambda place: AFA(len(tasks), place, reduction))
    network.only_this_size()
    return network
