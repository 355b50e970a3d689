from __future__ import annotations

import pytest

from gatedeploy.training.schedules import Clock, gates_move, learning_rate, sparsity_weight
from tests.training.made_up import recipe


def rates(schedule: dict[str, object], epochs: int, steps_per_epoch: int) -> list[float]:
    made = recipe(train={"learning_rate": 0.9, "schedule": schedule})
    steps = epochs * steps_per_epoch
    return [learning_rate(made, Clock(step, step // steps_per_epoch, steps)) for step in range(steps)]


def test_constant() -> None:
    assert rates({"name": "constant"}, 2, 2) == [0.9] * 4


def test_step_falls_every_so_many_epochs() -> None:
    expected = pytest.approx([0.9, 0.9, 0.9, 0.9, 0.3, 0.3, 0.3, 0.3, 0.1, 0.1])
    assert rates({"name": "step", "every": 2, "factor": 1 / 3}, 5, 2) == expected


def test_polynomial_falls_step_by_step_towards_0() -> None:
    expected = pytest.approx([0.9, 0.9 * 0.75**2, 0.9 * 0.5**2, 0.9 * 0.25**2])
    assert rates({"name": "polynomial", "power": 2}, 2, 2) == expected


def test_the_penalty_ramps_up_early_and_stays() -> None:
    made = recipe(sparsity={"weight": 2.0, "ramp": 0.4})
    weights = [sparsity_weight(made, Clock(step, 0, 10)) for step in range(10)]
    assert weights == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0])
    assert sparsity_weight(recipe(sparsity={"weight": 2.0, "ramp": 0}), Clock(0, 0, 10)) == 2.0


def test_the_gates_stop_at_their_time() -> None:
    for freeze_at, moving in ((0.0, 0), (0.3, 3), (0.35, 4), (1.0, 10)):
        made = recipe(gates={"freeze_at": freeze_at})
        assert [gates_move(made, Clock(step, 0, 10)) for step in range(10)] == [True] * moving + [False] * (10 - moving)
