"""Gates that are trained to a budget, and meet it whatever their tasks would rather have."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from gatedeploy.artifact import read_checkpoint
from gatedeploy.errors import InputError
from gatedeploy.graph.cost import cost
from gatedeploy.graph.flips import gates_of, with_choices
from gatedeploy.graph.gate_cost import GateCost
from gatedeploy.lowering import lower
from gatedeploy.milliseconds import predicted_ms
from gatedeploy.training import budget
from gatedeploy.training.journal import Journal
from gatedeploy.training.recipe import Recipe
from gatedeploy.training.snapshots import read_snapshot
from gatedeploy.training.stages import train_recipe
from tests.prices import CUTTING
from tests.training.made_up import MadeUp, Noise, parts, recipe, weights

TWO: dict[str, Any] = {"depth": {}, "normals": {}}
ROW_OF_A_LAYER = 8 * 9 * 8 * 8
"""The dearest row of the network: 8 channels, 9 taps, 64 positions."""


def budgeted(asked: dict[str, Any], *, gates: dict[str, Any] | None = None, epochs: int = 6) -> Recipe:
    return recipe(epochs=epochs, tasks=TWO, budget=asked, gates=gates or {"learning_rate": 5.0})


def trained(made: Recipe, out: Path, data: MadeUp | None = None, **keywords: bool) -> tuple[Path, str]:
    """The checkpoint, and what was said."""
    said = io.StringIO()
    journal = Journal(Console(file=said, width=200), tensorboard=False)
    return train_recipe(made, parts(data), out, journal=journal, **keywords).checkpoint, said.getvalue()


def macs(checkpoint: Path) -> tuple[int, int]:
    """Of the collapsed and of the gated network."""
    program = read_checkpoint(checkpoint).program
    return cost(lower(program).program).macs, cost(program).macs


@pytest.mark.parametrize("share", [0.4, 0.5, 0.6])
@pytest.mark.parametrize("freeze_at", [0.5, 1.0])
def test_it_is_met(share: float, freeze_at: float, tmp_path: Path) -> None:
    made = budgeted({"macs": share}, gates={"learning_rate": 5.0, "freeze_at": freeze_at})
    checkpoint, said = trained(made, tmp_path / "out")
    collapsed, gated = macs(checkpoint)
    # With 18 rows a branch a row is more than a hundredth: nothing that could be opened is left.
    assert share * gated - ROW_OF_A_LAYER < collapsed <= share * gated
    assert f"of the budget {collapsed / (share * gated):.2f}" in said.splitlines()[-1]


def test_gates_are_drawn_to_it_before_they_are_made_to_meet_it(tmp_path: Path) -> None:
    """Else the penalty did nothing: without it no gate would close, and all would have to be flipped."""
    made = budgeted({"macs": 0.45}, gates={"learning_rate": 5.0, "freeze_at": 1.0}, epochs=15)
    _, said = trained(made, tmp_path / "out")
    used = [float(line.rpartition("of the budget ")[2].split()[0]) for line in said.splitlines() if "budget" in line]
    assert used[0] > used[6] > used[-2]
    assert used[-2] < 1.1


def test_milliseconds_are_met(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At prices by which sharing saves time, as it does in networks that are large enough."""
    prices = CUTTING
    monkeypatch.setattr(budget, "prices_of", lambda runtime: prices)
    open_ = read_checkpoint(trained(budgeted({"ms": 1000}, epochs=1), tmp_path / "open")[0]).program
    shut, _ = with_choices(open_, {gate.name: open_.weights[gate.name] < -99 for gate in gates_of(open_)})
    most = 0.5 * (predicted_ms(shut, prices) + predicted_ms(open_, prices))
    made = budgeted({"ms": most, "target": "cpu"}, gates={"learning_rate": 5.0, "freeze_at": 1.0}, epochs=15)
    checkpoint, said = trained(made, tmp_path / "out")
    found = predicted_ms(read_checkpoint(checkpoint).program, prices)
    used = [float(line.rpartition("of the budget ")[2].split()[0]) for line in said.splitlines() if "budget" in line]
    assert predicted_ms(shut, prices) < found <= most
    assert found > 0.9 * most  # with 18 rows a branch a row is a few hundredths
    assert used[0] > 1.3 > 1.2 > used[-2]  # drawn to it, before it is made to meet it
    assert used[-1] == pytest.approx(found / most, abs=0.01)


def test_tasks_have_budgets_of_their_own(tmp_path: Path) -> None:
    made = budgeted({"tasks": {"depth": 0.3}})
    checkpoint, _ = trained(made, tmp_path / "out")
    program = read_checkpoint(checkpoint).program
    count = GateCost(program)
    opened = count({name: torch.ones(choices) for name, choices in count.gates.items()})
    spent = count({name: (program.weights[name] > 0).double() for name in count.gates})
    of_depth = count.branches.index("depth")
    assert 0.3 * opened[of_depth] - ROW_OF_A_LAYER < spent[of_depth] <= 0.3 * opened[of_depth]


@pytest.mark.parametrize("asked", [{"macs": 0.45}, {"ms": 0.08}], ids=["multiply-adds", "milliseconds"])
def test_interrupted_and_resumed_it_ends_with_the_same_bits(
    asked: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Epochs of seven steps, so that one begins between two looks at the cost."""
    monkeypatch.setattr(budget, "prices_of", lambda runtime: CUTTING)

    class Faulty(Noise):
        def batch(self, indices: Any, /) -> Any:
            if len(self.asked) == 10:
                raise KeyboardInterrupt
            return super().batch(indices)

    made = budgeted(asked, epochs=4)
    whole, _ = trained(made, tmp_path / "whole", MadeUp(train=Noise(56, 1)))
    with pytest.raises(KeyboardInterrupt):
        trained(made, tmp_path / "broken", MadeUp(train=Faulty(56, 1)))
    broken, _ = trained(made, tmp_path / "broken", MadeUp(train=Noise(56, 1)), resume=True)
    assert read_snapshot(broken).epochs == 4
    first, second = weights(whole), weights(broken)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("asked", "gates", "message"),
    [
        ({"macs": 0.1}, {}, r"budget: .* multiply-adds cannot be reached: with every gate closed"),
        ({"tasks": {"height": 0.5}}, {}, "budget: a budget height: expected depth or normals"),
        (
            {"macs": 0.5},
            {"sites": "encoder", "kind": "drawn"},
            "budget closes channels .* and gates.kind drawn has none",
        ),
        ({}, {}, "budget.macs: is missing; name what the collapsed network may cost, such as 0.4, or ms"),
        ({"macs": 0}, {}, "budget.macs: must be a number above 0, got 0"),
        ({"ms": 1, "macs": 0.5}, {}, "budget.ms: stands alone; leave out either it or multiply-adds"),
        ({"ms": 1e-6}, {}, "budget: 1e-06 ms cannot be reached on onnxruntime: with every gate closed"),
        ({"ms": 1, "target": "fridge"}, {}, "budget.target: must be cpu or openvino or gpu or tensorrt, got 'fridge'"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_trained(
    asked: dict[str, Any], gates: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        trained(budgeted(asked, gates=gates), tmp_path / "out")
    assert list(tmp_path.rglob("*.pt")) == []


def test_it_takes_the_place_of_the_penalty(tmp_path: Path) -> None:
    both = recipe(epochs=2, tasks=TWO, budget={"macs": 0.45}, sparsity={"weight": 0.5}, gates={"learning_rate": 5.0})
    first, said = trained(both, tmp_path / "both")
    second, _ = trained(budgeted({"macs": 0.45}, epochs=2), tmp_path / "alone")
    assert "budget: draws the gates instead of sparsity.weight, which is left out" in said
    assert all(torch.equal(value, weights(second)[name]) for name, value in weights(first).items())
