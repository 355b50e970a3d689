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
from gatedeploy.graph.capture import capture
from gatedeploy.graph.cost import cost
from gatedeploy.lowering import lower
from gatedeploy.parity import FLOAT32, FLOAT64, compare
from gatedeploy.program import Program, evaluate
from gatedeploy.runners.base import flat_predictions

TRUNKS = {
    "resnet18, ASPP": Trunk("resnet18", {"output_stride": 8}, "aspp", (32, 48)),
    "resnet50, ASPP": Trunk("resnet50", {"output_stride": 8}, "aspp", (32, 48)),
    "hrnet18": Trunk("hrnet18", {}, "hrnet", (64, 64)),
    "ViT-S, DPT": Trunk("vit_s16", {"size": (32, 48), "taps": (3, 6, 9, 12)}, "dpt", (32, 48)),
    "ViT-S, class token": Trunk("vit_s16", {"size": 32, "class_token": True}, "linear", (32, 32)),
}
SHARE = 0.2


@pytest.fixture(scope="module", params=TRUNKS)
def gated(request: pytest.FixtureRequest) -> Program:
    trunk = TRUNKS[request.param]
    return capture(random_gates(trunk, 2, SHARE), torch.zeros(2, 3, *trunk.size))


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


@pytest.mark.slow
def test_it_runs_in_onnx_runtime(thin: Program, tmp_path: Path) -> None:
    image = picture(thin, torch.float32)
    expected = flat_predictions(evaluate(thin, image.double()))
    export_onnx(Collapsed(thin).float().network, names_only(thin), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    got: dict[str, Any] = dict(zip(names, session.run(None, {thin.input.name: image.numpy()}), strict=True))
    compare(expected, got, FLOAT32).check("ONNX Runtime")


@pytest.mark.slow
def test_multiply_adds_fall_with_the_gates(gated: Program, thin: Program) -> None:
    """Between uniform MTL and all of the gated network, near what the share of specific channels says of a layer.

    Of T = 2 tasks a layer makes the shared rows and `SHARE` of each task's, each from all channels that it reads.
    """
    shared = cost(lower(with_all_gates(gated, specific=False)).program).macs
    single = cost(lower(with_all_gates(gated, specific=True)).program).macs
    assert shared < cost(thin).macs < cost(gated).macs
    heads = 2 * shared - single  # MTL and two single-task nets have the same heads, and one or two trunks
    assert heads >= 0
    trunk = shared - heads
    left = (cost(thin).macs - heads) / trunk
    assert left == pytest.approx(1 + 2 * SHARE, abs=0.2)
