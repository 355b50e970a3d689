"""Cross-stitch networks (Misra, Shrivastava, Gupta and Hebert, CVPR 2016)."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gatedeploy.gating.cuts import Place
from gatedeploy.models.side_by_side import SideBySide, check_beginning
from gatedeploy.specs import Task


class CrossStitch(nn.Module):
    """Linear combinations of what all tasks' networks made, channel by channel (eq. 1 of the paper, for T tasks).

    T²·C parameters.

    Args:
        tasks: how many tasks there are.
        place: what is combined.
        same: α_S, the first weight of a task's own feature; all others share the rest, so that the weights of a channel
            begin as a sum of one, and features keep their size (section 4 of the paper).
    """

    def __init__(self, tasks: int, place: Place, same: float) -> None:
        super().__init__()
        weight = torch.full((tasks, tasks), (1 - same) / max(tasks - 1, 1)).fill_diagonal_(same if tasks > 1 else 1)
        self.weight = nn.Parameter(weight[..., None].repeat(1, 1, place.channels))
        self.behind = [1] * (len(place.shape) - place.axis)  # dimensions behind the channels

    def forward(self, *features: Tensor) -> tuple[Tensor, ...]:
        """One feature per task, equal shapes; so is the result."""
        return tuple(self._combined(weights, features) for weights in self.weight.unbind(0))

    def _combined(self, weights: Tensor, features: Sequence[Tensor]) -> Tensor:
        each = weights.reshape(len(features), -1, *self.behind).unbind(0)
        parts = [feature * weight for feature, weight in zip(features, each, strict=True)]
        return functools.reduce(torch.add, parts)


def cross_stitch(
    backbone: nn.Module,
    tasks: Sequence[Task],
    heads: Mapping[str, nn.Module],
    example_input: Tensor,
    sites: str | Sequence[str] = "stages",
    same: float = 0.9,
    rate: float = 10.0,
) -> SideBySide:
    """T networks whose features are combined at the end of each stage.

    Args:
        backbone: the trunk; it is copied.
        tasks: the questions.
        heads: by task.
        example_input: (batch, channels, height, width), used for shapes only.
        sites: `stages`, `end`, or names of nodes.
        same: the first weight of a task's own feature, from 0 to 1.
        rate: how many times the learning rate of the rest the units have. The paper takes 100 to 1000 with plain SGD;
            Adam's steps do not shrink with a gradient, and a hundredfold one would not settle.

    Raises:
        InputError: no such site, or a number that cannot be.
    """
    check_beginning(same, rate)
    given = backbone, tasks, heads, example_input
    return SideBySide(*given, sites, lambda place: CrossStitch(len(tasks), place, same), rate)
