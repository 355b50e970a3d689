"""Adam for the weights and SGD for the gates, stepped together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from gatedeploy.gating.network import GatedNetwork
from gatedeploy.training.recipe import Recipe, Train


class Optimisers:
    """The optimisers of one network (InterroGate supplement B).

    α and β have an SGD of their own, without momentum or decay, at a learning rate that stays.

    Args:
        network: to be trained; on its final device.
        recipe: gives the learning rates.
        scaler: of 16-bit training; None without it.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, scaler: Any = None) -> None:
        gated = network if isinstance(network, GatedNetwork) else None
        train = recipe.train
        # A gated network has hundreds of small tensors: one fused call instead of a dozen per tensor.
        self._each: dict[str, torch.optim.Optimizer] = {
            "weights": torch.optim.Adam(
                _by_rate(network, train), train.learning_rate, weight_decay=train.weight_decay, fused=True
            )
        }
        self._gates = list(gated.gate_parameters()) if gated else []
        self._bounded = list(gated.whole_gates().values()) if gated else []
        if gated:
            self._each["gates"] = torch.optim.SGD(self._gates, recipe.gates.learning_rate, foreach=True)
        self._scaler = scaler

    def prepare(self, learning_rate: float, gates_move: bool) -> None:
        """Before a step: forget the last gradients, set the weights' learning rate, let the gates move or not.

        The heads' falls as that of the rest does.
        """
        for optimiser in self._each.values():
            optimiser.zero_grad(set_to_none=True)
        for group in self._each["weights"].param_groups:
            group["lr"] = learning_rate * group["times"]
        for parameter in self._gates:
            parameter.requires_grad_(gates_move)  # without it, their part of the backward pass is left out

    def step(self) -> None:
        """Take a step with all of them."""
        for optimiser in self._each.values():
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
    """The weights, heads apart where they have a learning rate of their own, with how many times the rest's it is."""
    weights = list(network.weight_parameters() if isinstance(network, GatedNetwork) else network.parameters())
    if train.head_learning_rate is None:
        return [{"params": weights, "times": 1.0}]
    heads = [
        parameter
        for name in ("heads", "public_heads")
        if hasattr(network, name)
        for parameter in network.get_submodule(name).parameters()
    ]
    theirs = set(map(id, heads))
    others = [weight for weight in weights if id(weight) not in theirs]
    return [
        {"params": others, "times": 1.0},
        {"params": heads, "times": train.head_learning_rate / train.learning_rate},
    ]
