"""Gates that are trained to meet a budget of the collapsed network.

The paper's penalty (InterroGate eq. 4) steers towards a share of channels, and where it ends nobody knows before. Here
the penalty is what the collapsed network costs (`graph/gate_cost.py`), with a multiplier that follows from how far the
cost is above a path to the budget. What is missing when gates stand still is flipped, the least sure choices first, so
that the budget is met to within a hundredth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from gatedeploy.gating.network import GatedNetwork
from gatedeploy.graph.budget import Budget, Limit, limits_of, within
from gatedeploy.graph.flips import with_signs
from gatedeploy.graph.gate_cost import GateCost
from gatedeploy.graph.prices import Prices
from gatedeploy.milliseconds import Milliseconds, closed_and_open_ms, predicted_ms, within_milliseconds
from gatedeploy.price_tables import TARGETS, prices_of
from gatedeploy.program import Program
from gatedeploy.training import recipe

LOOKS = 100
"""How often what the network costs is looked at, at least, while gates move; but at every fifth step at least."""

ARRIVAL = 0.75
"""Where the path to the budget ends, as a share of the time in which gates move: weights and gates settle after it."""

PULL = 3.0
"""By how much α would be drawn in the time in which gates move, if the cost stayed as far above the path as it begins
above the budget. α begins 0.1 above the threshold. In simulations gates whose tasks pull each by 0.02 to 1 in that time
end within a few hundredths of a budget with this pull, and lag behind the path with a third of it."""


def budget_keeper(
    network: GatedNetwork, program: Program, asked: recipe.Budget, learning_rate: float, steps: float
) -> BudgetKeeper:
    """What draws the gates of a network to a recipe's budget.

    Args:
        network: on the device where it is trained.
        program: its own.
        asked: what the collapsed network may cost.
        learning_rate: of the gates.
        steps: in how many they move.

    Raises:
        InputError: the budget cannot be met.
    """
    cost = GateCost(program)
    if asked.ms is not None:
        prices = prices_of(TARGETS[asked.target])
        return MillisecondsKeeper(network, cost, program, Milliseconds(asked.ms), prices, learning_rate, steps)
    limits = limits_of(cost, Budget(asked.macs, asked.tasks))
    return BudgetKeeper(network, cost, limits, learning_rate, steps)


class BudgetKeeper:
    """Draws the gates of one network to the multiply-adds that it may cost.

    Args:
        network: on the device where it is trained.
        cost: of its program.
        limits: see `gatedeploy.graph.budget.limits_of`.
        learning_rate: of the gates.
        steps: in how many they move.
    """

    def __init__(
        self, network: GatedNetwork, cost: GateCost, limits: Sequence[Limit], learning_rate: float, steps: float
    ) -> None:
        self.cost, self.limits, self.steps = cost, list(limits), steps
        named = dict(network.named_parameters())
        self.gate_logits = {name: named[name] for name in cost.gates}
        self.every = min(5, max(1, int(steps) // LOOKS))
        self.unit = 4 * PULL / (learning_rate * max(steps, 1))  # near the threshold the derivative of σ is 1/4
        self.start = [float(limit.of(cost, cost.of_all(1))) for limit in limits]
        self._pull: dict[str, Tensor] = {}
        self._settled = False

    def penalty(self, step: int) -> Tensor:
        """A scalar whose gradient draws the gates to the budget; `step` counts from 0."""
        if not self._pull or step % self.every == 0:
            self._pull = self._look(step)
        return torch.stack(
            [(self._pull[name] * logits.sigmoid()).sum() for name, logits in self.gate_logits.items()]
        ).sum()

    def end_epoch(self) -> None:
        """Look anew at the next step, as a run does that is resumed there."""
        self._pull = {}

    def settle(self) -> None:
        """Flip what it takes to meet the budget, once: gates stand still from then on."""
        if self._settled:
            return
        self._settled = True
        chosen = self._meeting(self._on_cpu())
        with torch.no_grad():
            for name, logits in self.gate_logits.items():
                logits.copy_(with_signs(logits, chosen[name]))

    def used(self) -> dict[str, float]:
        """What the collapsed network costs now, by limit: as a share of that, by task or `all`."""
        return {
            limit.branch or "all": spent / limit.most for limit, spent in zip(self.limits, self._now(), strict=True)
        }

    def _meeting(self, logits: dict[str, Tensor]) -> dict[str, Tensor]:
        """By gate, choices that meet the budget."""
        return within(self.cost, logits, self.limits)

    def _now(self) -> list[float]:
        costs = self.cost({name: (logits > 0).double() for name, logits in self._on_cpu().items()})
        return [float(limit.of(self.cost, costs)) for limit in self.limits]

    def _look(self, step: int) -> dict[str, Tensor]:
        """By gate, how strongly each choice is drawn to close."""
        logits = self._on_cpu()
        now = self._now()
        openness = {name: alpha.double().sigmoid().requires_grad_() for name, alpha in logits.items()}
        soft = self.cost(openness)
        pull = {name: torch.zeros(count, dtype=torch.float64) for name, count in self.cost.gates.items()}
        for number, limit in enumerate(self.limits):
            multiplier = self._multiplier(number, now[number], step)
            if not multiplier:
                continue
            grads = torch.autograd.grad(
                limit.of(self.cost, soft), list(openness.values()), retain_graph=True, materialize_grads=True
            )
            mean = torch.cat([grad[grad > 0] for grad in grads]).mean()
            for name, grad in zip(openness, grads, strict=True):
                pull[name] += multiplier * grad / mean
        return {name: each.to(self.gate_logits[name]) for name, each in pull.items()}

    def _multiplier(self, number: int, spent: float, step: int) -> float:
        """Grows with how far the cost is above the path from where it began to the limit; 0 below it."""
        start, most = self.start[number], self.limits[number].most
        if start <= most:
            return 0.0
        path = start + (most - start) * min(1.0, step / (ARRIVAL * max(self.steps, 1)))
        return self.unit * max(0.0, (spent - path) / (start - most))

    def _on_cpu(self) -> dict[str, Tensor]:
        return {name: logits.detach().cpu() for name, logits in self.gate_logits.items()}


class MillisecondsKeeper(BudgetKeeper):
    """Draws gates to as many multiply-adds as should take so long, and makes them meet the milliseconds in the end.

    Milliseconds follow from the layout of the whole network, which no gate can be drawn by (`gatedeploy.milliseconds`).
    They grow about evenly with multiply-adds, from where all is shared to where nothing is; how far that is from what
    the network takes is looked at before each epoch.

    Args:
        network: as of `BudgetKeeper`.
        cost: likewise.
        program: of the network.
        budget: what the collapsed network may take.
        prices: by which that is predicted.
        learning_rate: of the gates.
        steps: in how many they move.

    Raises:
        InputError: the budget cannot be met.
    """

    def __init__(
        self,
        network: GatedNetwork,
        cost: GateCost,
        program: Program,
        budget: Milliseconds,
        prices: Prices,
        learning_rate: float,
        steps: float,
    ) -> None:
        self.program, self.budget, self.prices = program, budget, prices
        self._predicted: tuple[Tensor, float] | None = None
        self.closed, self.opened = (float(cost.of_all(openness).sum()) for openness in (0, 1))
        closed_ms, open_ms = closed_and_open_ms(program, budget, prices)
        self.macs_of_ms = (self.opened - self.closed) / max(open_ms - closed_ms, 1e-9)
        super().__init__(network, cost, [Limit(self.opened)], learning_rate, steps)

    def penalty(self, step: int) -> Tensor:
        """See `BudgetKeeper`."""
        if not self._pull:  # an epoch begins
            (now,), left = self._now(), self.budget.most - self._ms()
            self.limits = [Limit(min(max(now + left * self.macs_of_ms, self.closed), self.opened))]
        return super().penalty(step)

    def used(self) -> dict[str, float]:
        """What the collapsed network is predicted to take now, as a share of the budget."""
        return {"ms": self._ms() / self.budget.most}

    def _meeting(self, logits: dict[str, Tensor]) -> dict[str, Tensor]:
        made, _ = within_milliseconds(self._with(logits), self.budget, self.prices)
        return {name: made.weights[name] > 0 for name in logits}

    def _ms(self) -> float:
        """Predicted anew only where a choice has changed: laying a large network out takes a while."""
        logits = self._on_cpu()
        chosen = torch.cat([each > 0 for each in logits.values()])
        if self._predicted is None or not torch.equal(self._predicted[0], chosen):
            self._predicted = chosen, predicted_ms(self._with(logits), self.prices)
        return self._predicted[1]

    def _with(self, logits: dict[str, Tensor]) -> Program:
        return replace(self.program, weights={**self.program.weights, **logits})
