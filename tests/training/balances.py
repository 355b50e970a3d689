"""Networks of a few numbers, whose gradients can be worked out by hand, and a way to train them a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gatedeploy.specs import Task
from gatedeploy.training.balance import Balance
from gatedeploy.training.balance_sections import AnyBalance
from gatedeploy.training.balancing import make_balance
from gatedeploy.training.recipe import Train

NAMES = ("sum", "random", "dwa", "uncertainty", "pcgrad", "cagrad", "mgda", "gradnorm", "auto_lambda")
EVERY: dict[str, dict[str, Any]] = {name: {"name": name} for name in NAMES} | {
    "mgda_ub": {"name": "mgda", "upper_bound": True}
}


def section(name: str, **keys: object) -> AnyBalance:
    return Train.from_plain({"epochs": 1, "balance": {"name": name, **keys}}).balance


def tasks(count: int) -> list[Task]:
    return [Task(f"task{number}", "depth") for number in range(count)]


def backward(loss: Tensor, **keywords: Any) -> None:
    loss.backward(**keywords)


class Vector(nn.Module):
    """A shared vector, (1, size) so that it counts as a layer, and a scalar head for each task."""

    def __init__(self, count: int, size: int = 2) -> None:
        super().__init__()
        self.shared = nn.Parameter(torch.ones(1, size, dtype=torch.float64))
        self.heads = nn.ParameterList(torch.ones((), dtype=torch.float64) for _ in range(count))

    def losses(self, directions: Sequence[Sequence[float]]) -> list[Tensor]:
        """Task t's gradient is its direction in `shared`, and direction · shared in its head."""
        return [
            head * (torch.tensor(direction, dtype=torch.float64) * self.shared).sum()
            for head, direction in zip(self.heads, directions, strict=True)
        ]


NO_PENALTY = torch.zeros((), dtype=torch.float64)


def step(balance: Balance, network: nn.Module, losses: Sequence[Tensor], penalty: Tensor = NO_PENALTY) -> None:
    network.zero_grad(set_to_none=True)
    balance.backward(losses, penalty)


def shared_gradient(name: str, directions: Sequence[Sequence[float]], **keys: object) -> list[float]:
    """What `shared` of a fresh `Vector` is to step along."""
    network = Vector(len(directions), len(directions[0]))
    balance = make_balance(section(name, **keys), network, tasks(len(directions)), backward)
    step(balance, network, network.losses(directions))
    assert network.shared.grad is not None
    return network.shared.grad.flatten().tolist()


def found(network: nn.Module) -> dict[str, Tensor | None]:
    """The gradients by name."""
    return {
        name: None if parameter.grad is None else parameter.grad.clone()
        for name, parameter in network.named_parameters()
    }


def assert_same(one: Mapping[str, Tensor | None], other: Mapping[str, Tensor | None], near: bool = True) -> None:
    """The same gradients, up to rounding or to the last bit; None is not 0."""
    assert one.keys() == other.keys()
    for name, left in one.items():
        right = other[name]
        assert (left is None) == (right is None), name
        if left is not None and right is not None:
            assert torch.allclose(left, right, rtol=1e-4, atol=1e-6) if near else torch.equal(left, right), name
