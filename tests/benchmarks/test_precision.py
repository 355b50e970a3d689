"""The table of precisions, of a network so small that its figures mean nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import gatedeploy as gd
from gatedeploy.artifact import ModelInfo
from gatedeploy.benchmarks.precision import compare
from gatedeploy.benchmarks.timing import Plan
from gatedeploy.data import load_data
from gatedeploy.training.metrics import metrics_of
from gatedeploy.training.recipe_file import load_recipe
from tests.backbones import ConvNormAct

OPTIONS = {"train": 8, "val": 4, "size": 32}
PLAN = Plan(seconds=0.01, min_rounds=2, max_rounds=2, block_ms=1, warm_up_ms=1)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that was not trained, of a recipe for made-up rooms."""
    torch.manual_seed(0)
    data = load_data("scenes", **OPTIONS)
    backbone = nn.Sequential(ConvNormAct(3, 6), ConvNormAct(6, 4))
    heads = {task.name: nn.Conv2d(4, task.channels, 1) for task in data.tasks}
    network = gd.gate(backbone, data.tasks, example_input=torch.zeros(2, 3, 32, 32), heads=heads)
    thin = gd.collapse(network.eval(), example_input=torch.zeros(2, 3, 32, 32))
    recipe = load_recipe("demo", [f"data.{key}={value}" for key, value in OPTIONS.items()]).plain()
    file = tmp_path_factory.mktemp("network") / "collapsed.safetensors"
    gd.save(thin, file, info=ModelInfo(data.tasks, data.input, "collapsed", recipe))
    return file


@pytest.mark.slow
def test_a_row_for_each_precision(file: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed")
    head, rule, *rows = compare(file, None, tmp_path, PLAN).splitlines()
    columns = head.split(" | ")
    named = [
        f"{task.name}, {metric.name}" for task in load_data("scenes", **OPTIONS).tasks for metric in metrics_of(task)
    ]
    assert columns[1 : len(named) + 1] == named
    assert [line.split(" | ")[0].removeprefix("| ") for line in rows] == [
        "fp32",
        "fp16",
        "bf16",
        "int8 min-max",
        "int8 entropy",
    ]
    cells = [dict(zip(columns, line.split(" | "), strict=True)) for line in rows]
    for lost in ("worst loss", "in openvino"):
        assert cells[0][lost] == "", "float32 loses nothing"
        assert all(row[lost].endswith(" %") for row in cells[1:])
    assert "(1.00)" in cells[0]["bytes"]
    assert cells[2]["onnxruntime"] == "not run", "ONNX Runtime has no bfloat16 on processors"
    assert cells[0]["onnxruntime"].startswith("1.00 (")
    assert rule.count("---") == head.count("|") - 1
