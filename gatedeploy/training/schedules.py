"""What changes with time: the learning rate, λ_s, and whether the gates may still move.

Everything follows from the number of the step, so a resumed run needs no schedule's state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gatedeploy.training.recipe import Constant, Polynomial, Recipe, Step


@dataclass(frozen=True)
class Clock:
    """Where in a run a step stands.

    Args:
        step: from 0.
        epoch: from 0.
        steps: of the whole run.
    """

    step: int
    epoch: int
    steps: int

    @property
    def share(self) -> float:
        """How much of the run is done before this step, in [0, 1)."""
        return self.step / self.steps


def learning_rate(recipe: Recipe, clock: Clock) -> float:
    """Of the weights, at this step."""
    base, schedule = recipe.train.learning_rate, recipe.train.schedule
    match schedule:
        case Constant():
            return base
        case Step():
            return base * math.pow(schedule.factor, clock.epoch // schedule.every)
        case Polynomial():
            return base * math.pow(1 - clock.share, schedule.power)


def sparsity_weight(recipe: Recipe, clock: Clock) -> float:
    """λ_s at this step: it grows to its full value over the first `sparsity.ramp` of the run."""
    sparsity = recipe.sparsity
    ramp = sparsity.ramp * clock.steps
    return sparsity.weight * min(1.0, (clock.step + 1) / ramp) if ramp else sparsity.weight


def gates_move(recipe: Recipe, clock: Clock) -> bool:
    """Whether α and β are still trained at this step."""
    return clock.share < recipe.gates.end
