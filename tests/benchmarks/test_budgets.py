from __future__ import annotations

import math
from pathlib import Path

import pytest

from gatedeploy.artifact import read_checkpoint
from gatedeploy.benchmarks.budgets import BUDGETS, ENTRIES, HINGE_WEIGHT, TASKS, Reached, at, page, report
from gatedeploy.benchmarks.methods import SMALL, Entry, recipe_of, train_seed

pytestmark = pytest.mark.usefixtures("shallow")

TINY = (
    *("data.train=16", "data.val=8", "data.size=16", "train.epochs=1", "train.single_epochs=1", "train.batch_size=8"),
    *("tasks={depth: {}, normals: {}}",),
)


def test_between_two_trainings_a_straight_line_is_taken() -> None:
    reached = [Reached(0.8, 4.0), Reached(0.4, 0.0), Reached(0.4, 2.0)]
    assert at(0.4, reached) == 1.0
    assert at(0.6, reached) == pytest.approx(2.5)
    assert at(0.8, reached) == 4.0
    assert math.isnan(at(0.39, reached))
    assert math.isnan(at(0.81, reached))
    assert math.isnan(at(0.5, []))


def test_budgets_stand_beside_what_penalties_reach_at_equal_multiply_adds() -> None:
    """Two seeds; the second's hinge never gets below 0.6, so only the first says anything at 0.55."""
    text = page(
        {
            "budget-0.55": [Reached(0.55, 1.0), Reached(0.5445, 3.0)],
            "hinge-0.5": [Reached(0.7, 2.0), Reached(0.8, 2.0)],
            "hinge-0.48": [Reached(0.4, -1.0), Reached(0.6, 0.0)],
            "l1-0.3": [Reached(0.5, 1.0), Reached(0.5, 1.0)],
        }
    )
    first, second = text.split("\n\n")
    cells = [cell.strip() for cell in first.splitlines()[2].strip("|").split("|")]
    assert cells == ["0.55", "0.9900 to 1.0000", "+2.0 ± 1.4", "+0.5 (1 of 2 seeds)", "–"]
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in second.splitlines()[2:]]
    assert rows == [
        ["hinge", "0.5", "0.48", "0.500 ± 0.141", "-0.5 ± 0.7"],
        ["hinge", "0.5", "0.5", "0.750 ± 0.071", "+2.0 ± 0.0"],
        ["l1", "0.3", "–", "0.500 ± 0.000", "+1.0 ± 0.0"],
    ]


def test_each_is_trained_as_it_says() -> None:
    for entry in ENTRIES:
        recipe = recipe_of("scenes", entry, 1, SMALL["scenes"])
        if entry.title == "budget":
            assert recipe.budget is not None
            assert (recipe.budget.macs, recipe.sparsity.weight) == (float(entry.name.partition("-")[2]), 0)
        else:
            assert recipe.budget is None
            form, _, strength = entry.name.partition("-")
            targets = {task: chosen.sparsity_target for task, chosen in recipe.tasks.items()}
            assert recipe.sparsity.form == form
            if form == "l1":
                assert recipe.sparsity.weight == float(strength)
            else:
                assert (recipe.sparsity.weight, targets) == (HINGE_WEIGHT, dict.fromkeys(TASKS, float(strength)))


@pytest.mark.slow
def test_what_is_done_is_told(tmp_path: Path) -> None:
    budget = next(entry for entry in ENTRIES if entry.name == f"budget-{BUDGETS[-1]:g}")
    hinge = Entry("hinge-0.48", "hinge", ("tasks={depth: {sparsity_target: 0.48}, normals: {}}",))
    train_seed("scenes", 0, [budget, hinge], (*SMALL["scenes"], *TINY), tmp_path / "0")
    tasks = read_checkpoint(tmp_path / "0" / hinge.name / "checkpoint.pt").info.tasks
    assert [task.sparsity_target for task in tasks] == [0.48, 0], "trained with other targets than its own"
    text = report([0], tmp_path)
    assert (tmp_path / "budgets.md").read_text(encoding="utf-8") == text
    assert text.splitlines()[2].startswith(f"| {BUDGETS[-1]:g} | ")
    assert "| hinge | 0.5 | 0.48 | " in text
    assert "* Not trained with every seed yet: budget-0.35, " in text
