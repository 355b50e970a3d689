"""Auto-λ: weights that are learned by looking one step ahead."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gatedeploy.training.balance import Backward, Balance
from gatedeploy.training.batches import Batch
from gatedeploy.training.task_gradients import Gradients, gradients, length
from gatedeploy.training.undisturbed import put_back, same_draws

WIDTH = 0.01
"""How far, in the norm of all parameters, the finite difference goes to either side."""


class AutoLambda(Balance):
    """The weights of Σ λ_t L_t go down the gradient of the losses after the step (Liu et al. 2022).

    With θ' = θ − rate · ∇_θ Σ λ_t L_t, the step on this batch, and d = ∇_θ' Σ L_t, all tasks' losses at θ' on another,

        ∇_λ_t ≈ −rate · (L_t(θ + ε d) − L_t(θ − ε d)) / 2ε    on this batch, with ε = 0.01 / ‖d‖.

    All tasks are primary. θ' is a plain step with the weights' learning rate, gates and heads included, as the paper
    writes it; the authors' code adds the momentum and weight decay of its SGD. As in their code nothing keeps λ_t above
    0. Unlike theirs, all passes and the step itself draw the same dropout: the difference of two draws would hide that
    of the losses.

    Args:
        network: trained; left as it was, weights and buffers, to the last bit.
        tasks: how many.
        start: every λ_t at first.
        learning_rate: of the weights' Adam.
        device: the network's.
        backward: Fabric's.
    """

    needs_other_batch = True

    def __init__(
        self,
        network: nn.Module,
        tasks: int,
        start: float,
        learning_rate: float,
        device: torch.device,
        backward: Backward,
    ) -> None:
        self._network = network
        self._backward = backward
        self.weights = nn.Parameter(torch.full((tasks,), start, device=device))
        self._optimiser = torch.optim.Adam([self.weights], learning_rate)

    def look_ahead(self, losses_of: Callable[[Batch], Tensor], batch: Batch, other: Batch, rate: float) -> None:
        """See `Balance`."""
        moving = [parameter for parameter in self._network.parameters() if parameter.requires_grad]

        def losses(of: Batch) -> Tensor:
            with same_draws(self.weights.device):
                return losses_of(of)

        # Copies, since adding and taking away again rounds; batch norms' statistics are put back too.
        with put_back([*self._network.parameters(), *self._network.buffers()]) as place:
            step = gradients((self.weights.detach() * losses(batch)).sum(), moving, self._backward)
            _move(moving, place, step, -rate)
            ahead = gradients(losses(other).sum(), moving, self._backward)
            norm = float(length(ahead))
            if not norm > 0:
                return  # nothing to learn; or no number, of which the loop tells
            with torch.no_grad():
                _move(moving, place, ahead, WIDTH / norm)
                above = losses(batch)
                _move(moving, place, ahead, -WIDTH / norm)
                below = losses(batch)
        self.weights.grad = (-rate * (above - below) * norm / (2 * WIDTH)).to(self.weights)
        self._optimiser.step()

    def backward(self, losses: Sequence[Tensor], penalty: Tensor) -> None:
        """See `Balance`."""
        self._backward((self.weights.detach() * torch.stack([*losses])).sum() + penalty)

    def state(self) -> dict[str, Any]:
        """The λ_t and their optimiser's state."""
        return {"weights": self.weights.detach().clone(), "optimiser": self._optimiser.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Balance`."""
        with torch.no_grad():
            self.weights.copy_(state["weights"])
        self._optimiser.load_state_dict(state["optimiser"])


@torch.no_grad()
def _move(parameters: Sequence[nn.Parameter], place: Mapping[Tensor, Tensor], along: Gradients, by: float) -> None:
    """Set the parameters to their place plus `by` times `along`."""
    for parameter, direction in zip(parameters, along, strict=True):
        parameter.copy_(place[parameter] if direction is None else place[parameter] + by * direction)
