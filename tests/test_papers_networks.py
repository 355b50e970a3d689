"""The papers' networks with their heads, at small pictures: gated at random, collapsed, in ONNX Runtime, and equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch

from gatedeploy.artifact import names_only
from gatedeploy.benchmarks.random_gates import Trunk, random_gates
from gatedeploy.benchmarks.rivals import with_all_gates
from gatedeploy.compiler import Collapsed
from gatedeploy.exporters.to_onnx import export_onnx
from gatedeploy.exporters.to_tensorrt import EngineOptions, build_engine
from gatedeploy.graph.capture import capture
from gatedeploy.graph.cost import cost
from gatedeploy.lowering import lower
from gatedeploy.parity import FLOAT32, FLOAT64, compare
from gatedeploy.program import Program, evaluate, flat_predictions

TRUNKS = {
    "resnet18, ASPP": Trunk("resnet18", {"output_stride": 8}, "aspp", (32, 48)),
    "resnet50, ASPP": Trunk("resnet50", {"output_stride": 8}, "aspp", (32, 48)),
    "hrnet18": Trunk("hrnet18", {}, "hrnet", (64, 64)),
    "ViT-S, DPT": Trunk("vit_s16", {"size": (32, 48), "taps": (3, 6, 9, 12)}, "dpt", (32, 48)),
    "ViT-S, class token": Trunk("vit_s16", {"size": 32, "class_token": True}, "linear", (32, 32)),
}
SHARE = 0.2


@pytest.fixture(scope="module", params=[(name, tasks) for tasks in (2, 3) for name in TRUNKS], ids=str)
def asked(request: pytest.FixtureRequest) -> tuple[str, int]:
    """A network and its number of tasks."""
    return request.param


@pytest.fixture(scope="module")
def gated(asked: tuple[str, int]) -> Program:
    trunk = TRUNKS[asked[0]]
    return capture(random_gates(trunk, asked[1], SHARE), torch.zeros(2, 3, *trunk.size))


@pytest.fixture(scope="module")
def thin(gated: Program) -> Program:
    return lower(gated).program


def picture(program: Program, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, *program.input.shape, dtype=torch.float64, generator=generator).to(dtype)


@pytest.mark.slow
def test_collapsed_equals_gated(gated: Program, thin: Program) -> None:
    image = picture(gated, torch.float64)
    expected = flat_predictions(evaluate(gated, image))
    compare(expected, flat_predictions(evaluate(thin, image)), FLOAT64).check("the collapsed network")


@pytest.fixture(scope="module")
def model(thin: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX file; writing it takes a minute for the largest, so it is asked for with two tasks alone."""
    file = tmp_path_factory.mktemp("model") / "model.onnx"
    export_onnx(Collapsed(thin).float().network, names_only(thin), file)
    return file


with_two_tasks = pytest.mark.parametrize("asked", [(name, 2) for name in TRUNKS], ids=str, indirect=True)


@pytest.mark.slow
@with_two_tasks
def test_it_runs_in_onnx_runtime(thin: Program, model: Path) -> None:
    image = picture(thin, torch.float32)
    expected = flat_predictions(evaluate(thin, image.double()))
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    got: dict[str, Any] = dict(zip(names, session.run(None, {thin.input.name: image.numpy()}), strict=True))
    compare(expected, got, FLOAT32).check("ONNX Runtime")


@pytest.mark.slow
@with_two_tasks
def test_tensorrt_builds_an_engine_of_it(thin: Program, model: Path, tmp_path: Path) -> None:
    """Every node is taken, for batches of 1, 8 and 32; without a GPU nothing is run."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed: there is none for this system")
    engine = build_engine(model, tmp_path / "engine.plan", thin.input, EngineOptions("tensorrt-rtx"))
    assert (tmp_path / "engine.plan").stat().st_size > cost(thin).params, "a byte for each parameter, at least"
    assert engine.batches == (1, 8, 32)
    assert [output.name for output in engine.outputs] == list(thin.outputs)


@pytest.mark.slow
def test_multiply_adds_follow_the_gates(asked: tuple[str, int], gated: Program, thin: Program) -> None:
    """Each row that somebody reads is computed once, from all channels that its layer reads.

    A task's own row is read where its gate is open, a share p of the rows; the shared row where any of T gates is
    closed, 1 - p^T of them. So a trunk costs T·p + 1 - p^T of one.
    """
    shared = cost(lower(with_all_gates(gated, specific=False)).program).macs
    single = cost(lower(with_all_gates(gated, specific=True)).program).macs
    tasks = asked[1]
    trunk = (single - shared) / (tasks - 1)  # all have the same heads, and one trunk or T
    left = (cost(thin).macs - (shared - trunk)) / trunk
    assert left == pytest.approx(tasks * SHARE + 1 - SHARE**tasks, rel=0.1)
