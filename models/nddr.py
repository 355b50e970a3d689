"""NDDR-CNN: neural discriminative dimensionality reduction (Gao, Ma, Zhao, Liu and Yuille, CVPR 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gatedeploy.gating.cuts import Place
from gatedeploy.models.side_by_side import SideBySide, check_beginning, check_map
from gatedeploy.specs import Task


class NDDR(nn.Module):
    """All tasks' features, joined, and for each task a 1×1 convolution that makes its own of them; batch norm and ReLU.

    T·(T·C² + 2·C) parameters: weights, and scale and shift of the norms.

    Args:
        tasks: how many tasks there are.
        place: what is fused.
        same: the first weight of a task's own channel; those of the others share the rest (section 3.3 of the paper,
            "diagonal initialisation").
    """

    def __init__(self, tasks: int, place: Place, same: float) -> None:
        super().__init__()
        check_map(place, "NDDR")
        channels = place.channels
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(tasks * channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
            for _ in range(tasks)
        )
        others = (1 - same) / max(tasks - 1, 1)
        for own, layer in enumerate(self.layers):
            shares = [same if number == own else others for number in range(tasks)]
            weight = torch.cat([share * torch.eye(channels) for share in shares], 1)
            with torch.no_grad():
                layer[0].weight.copy_(weight[..., None, None])  # type: ignore[index]

    def forward(self, *features: Tensor) -> tuple[Tensor, ...]:
        """One feature per task, each (batch, channels, height, width); so is the result."""
        joined = torch.cat(features, 1)
        return tuple(layer(joined) for layer in self.layers)


def nddr(
    backbone: nn.Module,
    tasks: Sequence[Task],
    heads: Mapping[str, nn.Module],
    example_input: Tensor,
    sites: str | Sequence[str] = "stages",
    same: float = 0.9,
    rate: float = 1.0,
) -> SideBySide:
    """T networks whose features are fused at the end of each stage.

    Args:
        backbone: the trunk; it is copied.
        tasks: the questions.
        heads: by task.
        example_input: (batch, channels, height, width), used for shapes only.
        sites: `stages`, `end`, or names of nodes.
        same: the first weight of a task's own channels, from 0 to 1.
        rate: how many times the learning rate of the rest the layers have; the paper takes 100 with plain SGD.

    Raises:
        InputError: no such site, one that is no feature map, or a number that cannot be.
    """
    check_beginning(same, rate)
    given = backbone, tasks, heads, example_input
    return SideBySide(*given, sites, lambda place: NDDR(len(tasks), place, same), rate)
