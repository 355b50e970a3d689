"""One step of a training: losses, gradients, and what they change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gatedeploy.gating.network import GatedNetwork
from gatedeploy.gating.sparsity import sparsity_penalty
from gatedeploy.gating.task_network import TaskNetwork
from gatedeploy.training.balancing import make_balance
from gatedeploy.training.batches import Batch
from gatedeploy.training.budget import BudgetKeeper
from gatedeploy.training.losses import COUNTS, task_loss
from gatedeploy.training.optimisers import Optimisers
from gatedeploy.training.run import Run
from gatedeploy.training.schedules import Clock, gates_move, learning_rate, sparsity_weight
from gatedeploy.training.workers import workers


class Stepper:
    """Takes the steps of a run.

    Where pictures are held out, weights learn from the others and gates from these, in turns: the bi-level form
    (Safe MTL eq. 6), its inner problem one step long. Batch norms' statistics see both.

    Args:
        run: what is trained.
        network: the run's, as it is called on its device.
        backward: fills in the gradients of a scalar.
        scaler: of 16-bit training; None without it.
        budget: draws the gates to what the collapsed network may cost; None without a budget.
        stand_still: told, once, of the first batch before whose step gates do not move any more.
    """

    def __init__(
        self,
        run: Run,
        network: nn.Module,
        backward: Callable[..., None],
        scaler: Any = None,
        budget: BudgetKeeper | None = None,
        stand_still: Callable[[Tensor], None] | None = None,
    ) -> None:
        self.run = run
        self.network = network
        self.workers = workers()
        self.backward = self.workers.averaging(backward, list(run.network.parameters()))
        self.budget = budget
        self._stand_still = stand_still
        self.balance = make_balance(run.balance, run.network, run.tasks, self.backward)
        self.optimisers = Optimisers(run.network, run.recipe, scaler, self.balance.parameters())
        self.in_turns = run.hold_out > 0 and isinstance(run.network, GatedNetwork)

    @property
    def wants_other(self) -> bool:
        """Whether each step takes a second batch."""
        return self.in_turns or self.balance.needs_other_batch

    def take(self, clock: Clock, batch: Batch, other: Batch | None) -> Tensor:
        """One step of all optimisers.

        Args:
            clock: where in the run it stands.
            batch: for the weights.
            other: a second batch where `wants_other`.

        Returns:
            The losses before the step: one per task, and the weighted penalty.
        """
        rate, moving = learning_rate(self.run.recipe, clock), gates_move(self.run.recipe, clock)
        if not moving and self._stand_still is not None:
            self._stand_still(batch[0])
            self._stand_still = None
        self.optimisers.prepare(rate, moving)
        if isinstance(self.run.network, TaskNetwork):
            self.run.network.at(clock.share)
        if self.in_turns:
            self.optimisers.let_gates_learn(False)
        if self.balance.needs_other_batch and other is not None:
            self.balance.look_ahead(lambda asked: torch.stack(self._weighted(self._losses(asked))), batch, other, rate)
        losses = self._losses(batch)
        penalty = self._penalty(clock, moving and not self.in_turns)
        self.balance.backward(self._weighted(losses), penalty)
        if not self.in_turns:
            self.optimisers.step()
        else:
            self.optimisers.step("weights")
            if moving and other is not None:
                penalty = self._turn_gates(clock, other)
        return torch.stack([*losses, penalty]).detach()

    def end_epoch(self, clock: Clock) -> None:
        """An epoch is over; `clock` stands at the step behind it."""
        self.balance.end_epoch()
        if self.budget is not None:
            self.budget.end_epoch()
            if clock.step == clock.steps:
                self.budget.settle()

    def state(self) -> dict[str, Any]:
        """Tensors and plain containers: of the optimisers, and of how losses are balanced."""
        return {**self.optimisers.state(), "balance": self.balance.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.optimisers.restore(state)
        self.balance.restore(state.get("balance", {}))

    def _losses(self, batch: Batch) -> list[Tensor]:
        """A scalar for each task."""
        images, labels = batch
        predictions = self.network(images)
        losses = [task_loss(task, predictions[task.name], labels[task.name]) for task in self.run.tasks]
        if self.workers.count == 1:
            return losses
        counts = [COUNTS[task.kind](labels[task.name]) for task in self.run.tasks if task.kind is not None]
        return self.workers.over_all(losses, counts)

    def _weighted(self, losses: Sequence[Tensor]) -> list[Tensor]:
        return [task.weight * loss for task, loss in zip(self.run.tasks, losses, strict=True)]

    def _penalty(self, clock: Clock, moving: bool) -> Tensor:
        network, sparsity = self.run.network, self.run.recipe.sparsity
        weight = sparsity_weight(self.run.recipe, clock)
        if self.budget is not None and moving:
            return self.budget.penalty(clock.step)
        if isinstance(network, GatedNetwork) and moving and weight:
            return weight * sparsity_penalty(network, sparsity.form, sparsity.scale)
        if isinstance(network, TaskNetwork):
            return network.penalty()
        return torch.zeros((), device=next(network.parameters()).device)

    def _turn_gates(self, clock: Clock, other: Batch) -> Tensor:
        """A step of the gates alone; returns the penalty."""
        self.optimisers.let_gates_learn(True)
        losses, penalty = self._weighted(self._losses(other)), self._penalty(clock, moving=True)
        self.backward(torch.stack([*losses, penalty]).sum(), inputs=list(self.optimisers.gates))
        self.optimisers.step("gates")
        return penalty
