"""A study that nobody trained: two tasks, two values, two seeds, with figures that are easy to check by hand."""

from __future__ import annotations

from collections.abc import Sequence

from gatedeploy.specs import Task
from gatedeploy.sweep.grid import Value
from gatedeploy.sweep.records import Found, Measured, Rivals, Trial

TASKS = (Task("kind", "classification", ("a", "b")), Task("depth", "depth"))
KEY = "sparsity.weight"


def measured(accuracy: float, rmse: float, macs: int, params: int = 7) -> Measured:
    return Measured({"kind": {"accuracy": accuracy}, "depth": {"rmse": rmse}}, macs, params)


def trial(number: int, value: Value, seed: int, delta: float, of: Measured, key: str = KEY) -> Trial:
    return Trial(number, "complete", {key: value}, seed, (delta, of.macs), of)


def found(more: Sequence[Trial] = ()) -> Found:
    """Weight 0 costs and reaches what single-task nets do; weight 1 half, a tenth more, then a twentieth less."""
    rivals = {
        0: Rivals(measured(0.5, 2.0, 1000), measured(0.25, 4.0, 400)),
        1: Rivals(measured(0.8, 1.0, 1000), measured(0.6, 1.25, 400)),
    }
    trials = (
        trial(0, 0, 0, 0.0, measured(0.5, 2.0, 1000)),
        trial(1, 1, 0, 10.0, measured(0.55, 1.8, 400)),
        trial(2, 0, 1, 0.0, measured(0.8, 1.0, 1000)),
        trial(3, 1, 1, -5.0, measured(0.76, 1.05, 600)),
    )
    return Found(TASKS, (*trials, *more), rivals)
