from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
import torch

from gatedeploy.artifact import names_only, write_checkpoint
from gatedeploy.benchmarks import realisation
from gatedeploy.benchmarks.naive import lower_naively
from gatedeploy.benchmarks.random_gates import Trunk
from gatedeploy.benchmarks.realisation import FREE, TIED, Cell, gated_program, means, realise
from gatedeploy.benchmarks.timing import Plan
from gatedeploy.gating.operators import SELECT
from gatedeploy.graph.capture import capture
from gatedeploy.graph.cost import cost
from gatedeploy.lowering import lower
from gatedeploy.program import Program, evaluate
from tests.gate_patterns import set_gates
from tests.structures import EXAMPLE, STRUCTURES, Structure
from tests.test_collapse_equals_gated import PICTURES, assert_equal_to_scale

pytestmark = pytest.mark.usefixtures("shallow")

SHORT = Plan(seconds=0, min_rounds=2, max_rounds=2, block_ms=1, warm_up_ms=1)
TRUNK = Trunk("resnet20", {"width": 0.25}, "linear", (16, 16))


@pytest.mark.parametrize("structure", STRUCTURES[::7], ids=lambda structure: structure.name)
def test_the_naive_lowering_is_right_and_executes_what_the_collapse_does(structure: Structure) -> None:
    network = structure.build()
    set_gates(network, "random, half")
    program = capture(network, EXAMPLE.double())
    naive = lower_naively(program)
    with torch.no_grad():
        assert_equal_to_scale(evaluate(naive, PICTURES), network(PICTURES))
    assert cost(naive).macs == cost(lower(program).program).macs


def test_gates_are_drawn_as_the_cell_says() -> None:
    few = gated_program(TRUNK, 3, 0.1, **FREE)
    logits = [few.weights[str(node.args[2].target)] for node in few.graph.nodes if node.target is SELECT]
    share = float((torch.cat(logits) > 0).float().mean())
    assert share == pytest.approx(0.1, abs=0.03)  # of 1,000 gates: three deviations
    again = gated_program(TRUNK, 3, 0.1, **FREE)
    assert all(torch.equal(few.weights[name], again.weights[name]) for name in few.weights)
    tied = gated_program(TRUNK, 3, 0.1, **TIED)
    assert len({str(node.args[2].target) for node in tied.graph.nodes if node.target is SELECT}) < len(logits)


def test_branches_differ_as_after_training() -> None:
    """Else an exporter would do work once that a trained network needs twice."""
    kernels = [weight for weight in gated_program(TRUNK, 2, 0.5, **TIED).weights.values() if weight.ndim == 4]
    assert len({weight.numpy().tobytes() for weight in kernels}) == len(kernels)


@pytest.fixture(scope="module")
def trained() -> Program:
    return gated_program(TRUNK, 2, 0.5, **TIED)


@pytest.mark.slow
def test_a_matrix(
    trained: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_checkpoint(tmp_path / "checkpoint.pt", trained, names_only(trained))
    for name, value in {"QUICK": [TRUNK], "TASKS": (2,), "SHARES": (0.3,), "PLAN": SHORT}.items():
        monkeypatch.setattr(realisation, name, value)
    file = str(tmp_path / "checkpoint.pt")
    monkeypatch.setattr(sys, "argv", ["", "--quick", "--runtime", "torch", "--json", "--trained", file])
    realisation.main()
    document = json.loads(capsys.readouterr().out)
    assert len(document["cells"]) == 3 * (2 + 1)  # three lowerings of free, tied and trained gates
    for cell in document["cells"]:
        assert cell["realisation"] == pytest.approx(cell["latency_ratio"] / cell["mac_ratio"])
        assert 1 <= cell["mac_ratio"] <= min(cell["executed_mac_ratio"], cell["tasks"])
    assert {mean["lowering"] for mean in document["means"]} == {"naive", "plain", "collapse"}


@pytest.mark.slow
@pytest.mark.parametrize("runtime", list(realisation.RUNTIMES))
def test_every_runtime_is_measured(trained: Program, runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(realisation, "PLAN", SHORT)
    found = dict(realise(trained, runtime))
    assert set(found) == {"naive", "plain", "collapse"}
    assert all(ratios["latency_ratio"] > 0 for ratios in found.values())


def test_means_are_geometric() -> None:
    def cell(lowering: str, value: float) -> Cell:
        told = ("resnet18", "linear", (128, 128), 3, 0.1, 16, "residual", lowering, "onnxruntime")
        return Cell(*told, 1.0, 1.0, value, value, 0.0)

    found = means([cell("naive", 2.0), cell("collapse", 1.5), cell("naive", 8.0)])
    assert [(mean["lowering"], mean["cells"], mean["realisation"]) for mean in found] == [
        ("naive", 2, pytest.approx(math.sqrt(2.0 * 8.0))),
        ("collapse", 1, pytest.approx(1.5)),
    ]
