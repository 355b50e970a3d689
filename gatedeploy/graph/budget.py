"""Gates flipped so that a budget is met: the least sure first, and as few as it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gatedeploy.errors import InputError, check_known
from gatedeploy.graph.flips import Rounded, with_choices
from gatedeploy.graph.gate_cost import GateCost
from gatedeploy.program import Program

SLACK = 0.01
"""How far below a limit a cost may stay, as a share of it, while flips that come nearer are left."""


@dataclass(frozen=True)
class Budget:
    """What a collapsed network may compute for one picture, in multiply-adds; a number up to 1 is a share.

    Args:
        macs: all of it; as a share, of the gated network and so of all its branches. None for whatever tasks leave.
        tasks: by task, what its own branch and head compute of that; as a share, of all that they have.
    """

    macs: float | None = None
    tasks: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Limit:
    """What a collapsed network may cost at most.

    Args:
        most: in the unit of the cost.
        branch: of which branch, a task or `shared`; None for all of them together.
    """

    most: float
    branch: str | None = None

    def of(self, cost: GateCost, costs: Tensor) -> Tensor:
        """What it speaks of, of what each branch costs."""
        return costs.sum() if self.branch is None else costs[cost.branches.index(self.branch)]


def limits_of(cost: GateCost, budget: Budget) -> list[Limit]:
    """The limits of a budget for a network whose multiply-adds `cost` counts.

    Raises:
        InputError: no such task, or less is asked for than where all is shared; the least that can be is named.
    """
    opened, closed = cost.of_all(1), cost.of_all(0)
    limits = []
    for task, amount in (*budget.tasks.items(), (None, budget.macs)):
        if amount is None:
            continue
        if task is not None:
            check_known("a budget", task, cost.branches[:-1])
        whole = cost.whole if task is None else float(opened[cost.branches.index(task)])
        limit = Limit(amount * whole if amount <= 1 else amount, task)
        least = float(limit.of(cost, closed))
        if least > limit.most:
            raise InputError(
                f"{limit.most:,.0f} multiply-adds{'' if task is None else f' of {task}'} cannot be reached: with every "
                f"gate closed, so that all is shared, {least:,.0f} are left, {least / whole:.4f} of the whole; ask for "
                "at least that"
            )
        limits.append(limit)
    return limits


def within_budget(program: Program, budget: Budget) -> tuple[Program, tuple[Rounded, ...]]:
    """The network with the least sure gates flipped, so that what it collapses to meets the budget.

    The result computes something else than `program`: measure how good it is.

    Raises:
        InputError: the budget cannot be met.
    """
    cost = GateCost(program)
    logits = {name: program.weights[name] for name in cost.gates}
    return with_choices(program, within(cost, logits, limits_of(cost, budget)))


def within(cost: GateCost, gate_logits: Mapping[str, Tensor], limits: Sequence[Limit]) -> dict[str, Tensor]:
    """The choices that meet all `limits`, each to within `SLACK` where choices are fine enough.

    Choices close in the order of their α, the smallest first, until the cost is met; where it is more than met, they
    open in the order of their α, the largest first. What is then left to a limit goes to those that fit into it.

    Args:
        cost: of the network.
        gate_logits: α by gate, `(choices,)`; open where above 0.
        limits: see `limits_of`; those of branches come before that of the whole.

    Returns:
        By gate `(choices,)` bool: which choices take the task's own feature.
    """
    search = _Search(cost, gate_logits)
    for limit in limits:
        search.close(limit)
    for limit in limits:
        search.open(limit, limits)
    return search.by_gate(search.chosen)


class _Search:
    def __init__(self, cost: GateCost, gate_logits: Mapping[str, Tensor]) -> None:
        self.cost = cost
        self.names = list(cost.gates)
        logits = torch.cat([gate_logits[name].detach().double().cpu() for name in self.names])
        self.chosen = logits > 0
        self.surest = logits.argsort(descending=True, stable=True)

    def close(self, limit: Limit) -> None:
        """Close choices until `limit` is met."""
        if self.spent(limit, self.chosen) <= limit.most:
            return
        candidates = self.surest.flip(0)
        candidates = candidates[self.chosen[candidates] & self._matters(limit)[candidates]]
        count = _smallest(len(candidates), lambda n: self.spent(limit, self._with(candidates[:n], False)) <= limit.most)
        self.chosen = self._with(candidates[:count], False)

    def open(self, limit: Limit, limits: Sequence[Limit]) -> None:
        """Open choices as far as all `limits` allow, until little is left of `limit`."""
        if self._little_left(limit):
            return
        closed = ~self.chosen & self._matters(limit)
        for each in limits:
            if each is not limit and self._little_left(each):
                closed &= ~self._matters(each)
        candidates = self.surest[closed[self.surest]]
        too_many = _smallest(len(candidates), lambda n: not self._all_met(limits, self._with(candidates[:n], True)))
        self.chosen = self._with(candidates[: max(too_many - 1, 0)], True)
        while not self._little_left(limit):
            fitting = self._fitting(limit, limits)
            if len(fitting) == 0:
                return
            self.chosen = self._with(fitting[:1], True)

    def spent(self, limit: Limit, chosen: Tensor) -> float:
        """The cost that `limit` speaks of, for these choices."""
        return float(limit.of(self.cost, self._costs(chosen.double())))

    def by_gate(self, values: Tensor) -> dict[str, Tensor]:
        """Of all choices, those of each gate."""
        return dict(zip(self.names, torch.split(values, list(self.cost.gates.values())), strict=True))

    def _costs(self, openness: Tensor) -> Tensor:
        return self.cost(self.by_gate(openness))

    def _with(self, choices: Tensor, opened: bool) -> Tensor:
        changed = self.chosen.clone()
        changed[choices] = opened
        return changed

    def _all_met(self, limits: Sequence[Limit], chosen: Tensor) -> bool:
        costs = self._costs(chosen.double())
        return all(float(limit.of(self.cost, costs)) <= limit.most for limit in limits)

    def _little_left(self, limit: Limit) -> bool:
        return self.spent(limit, self.chosen) >= (1 - SLACK) * limit.most

    def _matters(self, limit: Limit) -> Tensor:
        """Which choices cost something that `limit` counts, when others are undecided.

        To a task's limit its own do: those by which its branch grows more than any other.
        """
        undecided = torch.full(self.chosen.shape, 0.5, dtype=torch.float64)
        grows = self._marginal(limit, undecided)
        matters = grows > 0
        for branch in self.cost.branches if limit.branch is not None else ():
            matters &= grows >= self._marginal(Limit(limit.most, branch), undecided)
        return matters

    def _marginal(self, limit: Limit, openness: Tensor) -> Tensor:
        """By how much the cost grows with each choice."""
        openness = openness.requires_grad_()
        (grad,) = torch.autograd.grad(limit.of(self.cost, self._costs(openness)), openness)
        return grad

    def _fitting(self, limit: Limit, limits: Sequence[Limit]) -> Tensor:
        """Closed choices that add to what `limit` counts and break none, the surest first.

        Where all others are made, the derivative by one choice is what it costs to open it.
        """
        fits = ~self.chosen & (self._marginal(limit, self.chosen.double()) > 0)
        for each in limits:
            left = each.most - self.spent(each, self.chosen)
            fits &= self._marginal(each, self.chosen.double()) <= left
        return self.surest[fits[self.surest]]


def _smallest(count: int, holds: Callable[[int], bool]) -> int:
    """The smallest n in 0 … `count` for which `holds`, where it holds from some n on; `count` where it never does."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return high
