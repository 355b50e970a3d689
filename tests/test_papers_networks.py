"""The papers' networks with their heads, at small pictures: gated at random, collapsed, in ONNX Runtime, and equal."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from gatedeploy.artifact import names_only
from gatedeploy.benchmarks.random_gates import Trunk, random_gates
from gatedeploy.benchmarks.rivals import with_all_gates
from gatedeploy.compiler import Collapsed
from gatedeploy.exporters.engine_options import EngineOptions
from gatedeploy.exporters.precision.half import to_half
from gatedeploy.exporters.precision.int8 import to_int8, with_float32
from gatedeploy.exporters.to_onnx import export_onnx
from gatedeploy.exporters.to_tensorrt import build_engine
from gatedeploy.graph.capture import capture
from gatedeploy.graph.cost import cost
from gatedeploy.lowering import lower
from gatedeploy.models import hrnet, resnet, vit
from gatedeploy.parity import FLOAT32, FLOAT64, compare
from gatedeploy.program import Program, evaluate, flat_predictions

TRUNKS = {
    "resnet18, ASPP": Trunk("resnet18", {"output_stride": 8}, "aspp", (32, 48)),
    "resnet50, ASPP": Trunk("resnet50", {"output_stride": 8}, "aspp", (32, 48)),
    "hrnet18": Trunk("hrnet18", {}, "hrnet", (64, 64)),
    "ViT-S, DPT": Trunk("vit_s16", {"size": (32, 48), "taps": (1, 2, 3, 4)}, "dpt", (32, 48)),
    "ViT-S, class token": Trunk("vit_s16", {"size": 32, "class_token": True}, "linear", (32, 32)),
}
TASKS = {"resnet18, ASPP": 3, "ViT-S, class token": 3}
"""The smallest of each kind have three; the others, of which a third task would take a minute more, two."""

SHARE = 0.2

SHALLOW: dict[tuple[object, str], object] = {
    (hrnet, "MODULES"): (1, 1, 0),
    (hrnet, "BLOCKS"): 1,
    (resnet, "DEPTHS"): {**resnet.DEPTHS, "resnet50": (2, 2, 2, 2)},
}
"""Every kind of layer and of connection is there, and fewer of each, for all of HRNet takes minutes. The whole ones
are run by `python -m gatedeploy.benchmarks.full_size`."""


@cache  # one worker runs all tests of a network, and asks for it several times
def gated_network(name: str) -> Program:
    trunk = TRUNKS[name]
    with pytest.MonkeyPatch.context() as patch:
        for (module, constant), value in SHALLOW.items():
            patch.setattr(module, constant, value)
        patch.setattr(vit, "DEPTH", max(trunk.options.get("taps", (2,))))
        return capture(random_gates(trunk, TASKS.get(name, 2), SHARE), torch.zeros(2, 3, *trunk.size))


@cache
def collapsed_network(name: str) -> Program:
    return lower(gated_network(name)).program


@cache
def onnx_file(name: str) -> bytes:
    thin = collapsed_network(name)
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(Collapsed(thin).float().network, names_only(thin), Path(folder) / "model.onnx")
        return (Path(folder) / "model.onnx").read_bytes()


def for_networks(names: Collection[str] = TRUNKS) -> pytest.MarkDecorator:
    """Run a test for each network; a worker has all tests of one."""
    return pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in names])


@pytest.fixture
def gated(name: str) -> Program:
    return gated_network(name)


@pytest.fixture
def thin(name: str) -> Program:
    return collapsed_network(name)


@pytest.fixture
def model(name: str, tmp_path: Path) -> Path:
    file = tmp_path / "model.onnx"
    file.write_bytes(onnx_file(name))
    return file


def picture(program: Program, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, *program.input.shape, dtype=torch.float64, generator=generator).to(dtype)


@pytest.mark.slow
@for_networks()
def test_collapsed_equals_gated(gated: Program, thin: Program) -> None:
    image = picture(gated, torch.float64)
    expected = flat_predictions(evaluate(gated, image))
    compare(expected, flat_predictions(evaluate(thin, image)), FLOAT64).check("the collapsed network")


@pytest.mark.slow
@for_networks()
def test_it_runs_in_onnx_runtime(thin: Program, model: Path) -> None:
    image = picture(thin, torch.float32)
    expected = flat_predictions(evaluate(thin, image.double()))
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    got: dict[str, Any] = dict(zip(names, session.run(None, {thin.input.name: image.numpy()}), strict=True))
    compare(expected, got, FLOAT32).check("ONNX Runtime")


def reduced(model: Path, thin: Program, precision: str) -> Path:
    """The same network of another precision; its ranges come from two pictures of noise, which is enough to build."""
    original, file = onnx.load(str(model)), model.with_name(f"{precision}.onnx")
    if precision == "int8":
        pictures = np.concatenate([picture(thin, torch.float32).numpy()] * 2)
        to_int8(model, file, thin.input.name, [pictures], "min-max")
        onnx.save(with_float32(onnx.load(str(file)), original, ()), str(file))
    elif precision == "fp16":
        onnx.save(to_half(original, precision), str(file))
    return model if precision == "fp32" else file


def build(model: Path, thin: Program, precision: str) -> None:
    """Every node is taken, for batches of 1, 8 and 32; without a GPU nothing is run."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed: there is none for this system")
    made, plan = reduced(model, thin, precision), model.with_name("engine.plan")
    engine = build_engine(made, plan, thin.input, EngineOptions("tensorrt-rtx"))
    bytes_each = {"fp32": 4, "fp16": 2, "int8": 1}[precision]
    assert plan.stat().st_size > bytes_each * cost(thin).params
    assert engine.batches == (1, 8, 32)
    assert [output.name for output in engine.outputs] == list(thin.outputs)
    assert {output.dtype for output in engine.outputs} == {"float32"}
    low = {"fp32": "float32", "fp16": "float16", "int8": "int8"}[precision]
    assert engine.layers[low] > len(engine.outputs)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@for_networks([name for name in TRUNKS if name != "ViT-S, class token"])
def test_tensorrt_builds_an_engine_of_it(thin: Program, model: Path, precision: str) -> None:
    build(model, thin, precision)


@pytest.mark.slow
@for_networks(["resnet18, ASPP", "hrnet18", "ViT-S, class token"])  # with ViT-S and DPT it takes half a minute
def test_tensorrt_builds_an_engine_of_it_in_int8(thin: Program, model: Path) -> None:
    build(model, thin, "int8")


@pytest.mark.slow
@for_networks()
def test_multiply_adds_follow_the_gates(gated: Program, thin: Program) -> None:
    """Each row that somebody reads is computed once, from all channels that its layer reads.

    A task's own row is read where its gate is open, a share p of the rows; the shared row where any of T gates is
    closed, 1 - p^T of them. So a trunk costs T·p + 1 - p^T of one.
    """
    shared = cost(lower(with_all_gates(gated, specific=False)).program).macs
    single = cost(lower(with_all_gates(gated, specific=True)).program).macs
    tasks = len(gated.outputs)
    trunk = (single - shared) / (tasks - 1)  # all have the same heads, and one trunk or T
    left = (cost(thin).macs - (shared - trunk)) / trunk
    assert left == pytest.approx(tasks * SHARE + 1 - SHARE**tasks, rel=0.1)
