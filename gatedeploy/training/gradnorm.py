"""GradNorm: weights that are learned from the lengths of the tasks' gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gatedeploy.errors import InputError
from gatedeploy.training.balance import Backward, Balance
from gatedeploy.training.parameters import shared_parameters
from gatedeploy.training.task_gradients import gradients, length

LEAST = 1e-3
"""No weight falls below. The paper sets no bound; but a weight below 0 would make its loss grow."""


class GradNorm(Balance):
    """The weights of Σ w_t L_t follow the gradients' lengths (Chen et al. 2018, algorithm 1).

    With G_t = ‖∇_W w_t L_t‖ and the inverse rate r_t = (L_t / L_t(0)) / mean, they go down the gradient of
    Σ |G_t − mean G · r_t^α|, whose second term is held fixed, and are then scaled to add up to T. They begin at 1. The
    step itself is taken with the weights as they were.

    W is the last shared weight of more than one dimension that every loss reaches, in the order of `named_parameters`;
    L_t(0) is the first batch's loss, or the first that is not 0.

    Args:
        network: trained.
        tasks: how many.
        alpha: α, at least 0.
        learning_rate: of the weights' Adam; 0.025 in the paper, which finds that the optimiser hardly matters.
        backward: Fabric's.
    """

    def __init__(
        self,
        network: nn.Module,
        tasks: int,
        alpha: float,
        learning_rate: float,
        device: torch.device,
        backward: Backward,
    ) -> None:
        self._alpha = alpha
        self._backward = backward
        self._shared = [weight for weight in shared_parameters(network) if weight.ndim > 1]
        self._layer: nn.Parameter | None = None  # known once there are losses
        self.weights = nn.Parameter(torch.ones(tasks, device=device))
        self._first = torch.zeros(tasks, device=device)
        self._optimiser = torch.optim.Adam([self.weights], learning_rate)

    def backward(self, losses: Sequence[Tensor], penalty: Tensor) -> None:
        """See `Balance`."""
        if self._layer is None:
            self._layer = self._last_shared(losses)
        lengths = [length(gradients(loss, [self._layer], self._backward, only=True)) for loss in losses]
        stacked = torch.stack([*losses])
        self._backward((self.weights.detach() * stacked).sum() + penalty)
        self._learn(stacked.detach(), torch.stack(lengths))

    @torch.no_grad()
    def _learn(self, losses: Tensor, lengths: Tensor) -> None:
        """A step of the weights. `losses`: (tasks,). `lengths`: (tasks,) ‖∇_W L_t‖."""
        self._first = torch.where(self._first > 0, self._first, losses.to(self._first))
        ratios = torch.where(self._first > 0, losses / self._first, 1.0)
        rates = ratios / ratios.mean().clamp_min(torch.finfo(ratios.dtype).tiny)
        weighted = self.weights * lengths
        target = weighted.mean() * rates**self._alpha
        self.weights.grad = (torch.sign(weighted - target) * lengths).to(self.weights)
        self._optimiser.step()
        self.weights.clamp_(min=LEAST)
        self.weights.mul_(len(losses) / self.weights.sum())

    def _last_shared(self, losses: Sequence[Tensor]) -> nn.Parameter:
        moving = [weight for weight in self._shared if weight.requires_grad]
        of_tasks = [gradients(loss, moving, self._backward, only=True) for loss in losses] if moving else []
        reached = [all(found is not None for found in column) for column in zip(*of_tasks, strict=True)]
        for weight, by_all in zip(reversed(moving), reversed(reached), strict=True):
            if by_all:
                return weight
        raise InputError(
            "train.balance gradnorm compares gradients at the last weight that all tasks share, and there is none that "
            "is trained and that every loss reaches; take dwa or uncertainty"
        )

    def state(self) -> dict[str, Any]:
        """The weights, their optimiser's state and L_t(0)."""
        return {
            "weights": self.weights.detach().clone(),
            "first": self._first.clone(),
            "optimiser": self._optimiser.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Balance`."""
        with torch.no_grad():
            self.weights.copy_(state["weights"])
        self._first.copy_(state["first"])
        self._optimiser.load_state_dict(state["optimiser"])
