"""Adam for the weights and SGD for the gates, stepped together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from gatedeploy.gating.network import GatedNetwork
from gatedeploy.gating.task_network import TaskNetwork
from gatedeploy.gating.whole_gates import GumbelGate
from gatedeploy.training.parameters import head_parameters
from gatedeploy.training.recipe import Recipe, Train


class Optimisers:
    """The optimisers of one network (InterroGate supplement B).

    α and β have an SGD of their own, without momentum or decay, at a learning rate that stays.

    Args:
        network: to be trained; on its final device.
        recipe: gives the learning rates.
        scaler: of 16-bit training; None without it.
        more: parameters that are not the network's, learnt as its weights are but without decay.
    """

    def __init__(
        self, network: nn.Module, recipe: Recipe, scaler: Any = None, more: Iterable[nn.Parameter] = ()
    ) -> None:
        gated = network if isinstance(network, GatedNetwork) else None
        train = recipe.train
        # A gated network has hundreds of small tensors: one fused call instead of a dozen per tensor.
        groups, further = _by_rate(network, train), list(more)
        if further:
            groups.append({"params": further, "times": 1.0, "weight_decay": 0.0})
        self._each: dict[str, torch.optim.Optimizer] = {
            "weights": torch.optim.Adam(groups, train.learning_rate, weight_decay=train.weight_decay, fused=True)
        }
        self.gates = list(gated.gate_parameters()) if gated else []
        self._bounded = list(gated.whole_gates().values()) if gated else []
        if gated:
            self._each["gates"] = torch.optim.SGD(self.gates, recipe.gates.learning_rate, foreach=True)
        self._scaler = scaler

    def prepare(self, learning_rate: float, gates_move: bool) -> None:
        """Before a step: forget the last gradients, set the weights' learning rate, let the gates move or not.

        The heads' falls as that of the rest does.
        """
        for optimiser in self._each.values():
            optimiser.zero_grad(set_to_none=True)
        for group in self._each["weights"].param_groups:
            group["lr"] = learning_rate * group["times"]
        self.let_gates_learn(gates_move)
        for gate in self._bounded:
            if isinstance(gate, GumbelGate):
                gate.drawn = gates_move  # what stands still is what will be deployed

    def let_gates_learn(self, learn: bool) -> None:
        """Let the next backward pass give gates a gradient or not; without one, their part of it is left out."""
        for parameter in self.gates:
            parameter.requires_grad_(learn)

    def step(self, only: str | None = None) -> None:
        """Take a step with all of them, or with `weights` or `gates` alone."""
        for name, optimiser in self._each.items():
            if only not in (None, name):
                continue
            if self._scaler is None:
                optimiser.step()
            elif any(parameter.grad is not None for group in optimiser.param_groups for parameter in group["params"]):
                self._scaler.step(optimiser)  # refuses an optimiser without gradients: gates that stand still
        if self._scaler is not None:
            self._scaler.update()  # once, after all: it forgets what it has unscaled
        for gate in self._bounded:
            gate.project()

    def state(self) -> dict[str, Any]:
        """Tensors and plain containers, by optimiser."""
        return {name: optimiser.state_dict() for name, optimiser in self._each.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        for name, optimiser in self._each.items():
            optimiser.load_state_dict(state[name])


def _by_rate(network: nn.Module, train: Train) -> list[dict[str, Any]]:
    """The weights in groups, with how many times the learning rate of the recipe each has: most have it itself."""
    weights = list(network.weight_parameters() if isinstance(network, TaskNetwork) else network.parameters())
    of_heads = 1.0 if train.head_learning_rate is None else train.head_learning_rate / train.learning_rate
    of_units = float(getattr(network, "unit_rate", 1.0))
    times = {id(parameter): of_heads for parameter in head_parameters(network)}
    if hasattr(network, "units"):
        times |= {id(parameter): of_units for parameter in network.get_submodule("units").parameters()}
    rates = sorted({times.get(id(weight), 1.0) for weight in weights}, key=lambda rate: rate != 1.0)
    return [
        {"params": [weight for weight in weights if times.get(id(weight), 1.0) == rate], "times": rate}
        for rate in rates
    ]
