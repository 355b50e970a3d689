"""Uniform multi-task learning, as a method among others."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from gatedeploy.gating.multi_head import MultiHead
from gatedeploy.gating.placing import checked_parts
from gatedeploy.gating.trial import try_out
from gatedeploy.specs import Task


def mtl(backbone: nn.Module, tasks: Sequence[Task], heads: Mapping[str, nn.Module], example_input: Tensor) -> MultiHead:
    """One encoder for all tasks: hard sharing, also called DMTL.

    Args:
        backbone: the trunk; it is copied.
        tasks: the questions.
        heads: by task.
        example_input: (batch, channels, height, width).

    Raises:
        InputError: they do not fit each other.
    """
    checked, given = checked_parts(backbone, tasks, heads, example_input)
    try_out(backbone, [task.name for task in checked], given, example_input)
    return MultiHead(copy.deepcopy(backbone), given)
