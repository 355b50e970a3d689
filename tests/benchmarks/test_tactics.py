"""Every layout without a tactic is still the network, and does without it."""

import sys

import pytest
import torch

from gatedeploy.benchmarks import tactics
from gatedeploy.benchmarks.random_gates import Trunk
from gatedeploy.benchmarks.realisation import TIED, gated_program
from gatedeploy.benchmarks.tactics import ALL, NONE, TOO_DEAR, WITHOUT, layouts
from gatedeploy.benchmarks.timing import Plan
from gatedeploy.lowering import lower
from gatedeploy.models import resnet
from gatedeploy.program import Program, evaluate
from tests.graph.small import calls
from tests.prices import prices
from tests.test_collapse_equals_gated import assert_equal_to_scale

TRUNK = Trunk("resnet20", {"width": 1.0}, "linear", (16, 16))
PRICES = prices(narrowest=16, launch_ms=0.0005)
"""At these every tactic is worth it somewhere, on whatever machine the tests run."""


@pytest.fixture(scope="module")
def gated() -> Program:
    return gated_program(TRUNK, 2, 0.3, **(TIED | {"group": 4}))


@pytest.fixture(scope="module")
def found(gated: Program) -> dict[str, Program]:
    return layouts(gated, PRICES)


def test_each_is_the_same_network(gated: Program, found: dict[str, Program]) -> None:
    picture = torch.randn(2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = evaluate(gated, picture)
    assert set(found) == {ALL, NONE, *WITHOUT, *TOO_DEAR}
    for program in found.values():
        assert_equal_to_scale(evaluate(program, picture), expected)


def test_all_is_what_prune_does(gated: Program, found: dict[str, Program]) -> None:
    assert calls(found[ALL]) == calls(lower(gated, PRICES).program)


def test_without_a_tactic_its_kernels_are_gone(found: dict[str, Program]) -> None:
    def count(name: str, *operators: str) -> int:
        return sum(call in operators for call in calls(found[name]))

    assert count("channels cut out for a reader", "slice", "index_select") < count(ALL, "slice", "index_select")
    assert count("tensors joined for a reader", "cat") < count(ALL, "cat")
    assert count("mixes by gathering", "mul") == 0 < count("mixes by 1×1 layers", "mul")


@pytest.mark.slow
def test_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(resnet.DEPTHS, "resnet20", (1, 1, 1))
    few = {name: passes for name, passes in WITHOUT.items() if name == "absorbed scales"}
    monkeypatch.setattr(tactics, "WITHOUT", few)
    monkeypatch.setattr(tactics, "TOO_DEAR", {})
    monkeypatch.setattr(tactics, "QUICK", [Trunk("resnet20", {"width": 0.25}, "linear", (16, 16))])
    monkeypatch.setattr(tactics, "PLAN", Plan(seconds=0, min_rounds=2, max_rounds=2, block_ms=1, warm_up_ms=1))
    monkeypatch.setattr(sys, "argv", ["tactics", "--tasks", "2", "--specific", "0.3"])
    tactics.main()
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert head == "| without | tied, p = 0.3 | free, p = 0.3 |"
    assert [row.split(" | ")[0][2:] for row in rows] == [NONE, *few]
