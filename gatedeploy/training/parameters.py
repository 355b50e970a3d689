"""Which parameters of a network belong to a task, and which its tasks share."""

from __future__ import annotations

from torch import nn

from gatedeploy.gating.task_network import TaskNetwork


def head_parameters(network: nn.Module) -> list[nn.Parameter]:
    """The weights of the tasks' heads; [] where a network has none."""
    homes = [network.get_submodule(name) for name in ("heads", "public_heads") if hasattr(network, name)]
    return [parameter for home in homes for parameter in home.parameters()]


def shared_parameters(network: nn.Module) -> list[nn.Parameter]:
    """Everything but heads and gates, in the order of `named_parameters`."""
    others = [*head_parameters(network), *(network.gate_parameters() if isinstance(network, TaskNetwork) else ())]
    theirs = set(map(id, others))
    return [parameter for parameter in network.parameters() if id(parameter) not in theirs]
