"""MGDA-UB: the tasks' gradients are compared at the representation that all heads read."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from gatedeploy.gating.multi_head import MultiHead
from gatedeploy.training.balance import Backward, Balance
from gatedeploy.training.parameters import head_parameters
from gatedeploy.training.task_gradients import combined, gradients, task_weights


class UpperBoundMGDA(Balance):
    """MGDA-UB: gradients at the representation Z stand for those at the encoder's weights (Sener & Koltun 2018, 3.3).

    T backward passes, each through one head, and one through the encoder; what is made shortest is an upper bound.
    As in the paper's algorithm 2 each head gets the gradient of its own loss, unweighted (the authors' code weighs it).
    Gradients are not normalised.

    Args:
        network: trained; one encoder and a head for each task.
        weighting: torchjd's; maps the gradients' inner products (tasks, tasks) to weights (tasks,).
        backward: Fabric's.
    """

    def __init__(self, network: MultiHead, weighting: Callable[[Tensor], Tensor], backward: Backward) -> None:
        self._weighting = weighting
        self._backward = backward
        self._heads = head_parameters(network)
        self._read: list[Tensor] = []
        handle = network.backbone.register_forward_hook(partial(_hand_over, self._read))
        weakref.finalize(self, handle.remove)  # the network lives longer than its training

    def backward(self, losses: Sequence[Tensor], penalty: Tensor) -> None:
        """See `Balance`."""
        read, heads = list(self._read), [parameter for parameter in self._heads if parameter.requires_grad]
        self._read.clear()
        of_tasks = [gradients(loss, [*read, *heads], self._backward, only=True) for loss in losses]
        weights = task_weights(self._weighting, [found[: len(read)] for found in of_tasks])
        columns = list(zip(*of_tasks, strict=True))
        for parameter, column in zip(heads, columns[len(read) :], strict=True):
            parameter.grad = combined(column, [1.0] * len(losses))
        asked = [(tensor, combined(column, weights)) for tensor, column in zip(read, columns, strict=False)]
        reached = [(tensor, found) for tensor, found in asked if found is not None]
        if reached:
            # Below the network's predictions, so Fabric need not be asked.
            torch.autograd.backward([tensor for tensor, _ in reached], [found for _, found in reached])
        if penalty.requires_grad:
            self._backward(penalty)


def _hand_over(read: list[Tensor], backbone: nn.Module, inputs: Any, outputs: Any) -> Any:
    """A forward hook: the heads read views of what the backbone returns, which are kept in `read`.

    Views, since of several features one is often made of another: a gradient at the feature itself would hold what
    comes back through the other one too, and it would be counted twice.
    """
    if not (backbone.training and torch.is_grad_enabled()):
        return None
    read.clear()

    def view(feature: Any) -> Any:
        if not (isinstance(feature, Tensor) and feature.requires_grad):
            return feature
        handed = feature.view_as(feature)
        handed.retain_grad()
        read.append(handed)
        return handed

    return pytree.tree_map(view, outputs)
