"""A checkpoint and what follows from it, made once by the commands themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import gatedeploy as gd
from gatedeploy.artifact import ModelInfo
from gatedeploy.benchmarks import scenarios
from gatedeploy.benchmarks.timing import Plan
from gatedeploy.cli.app import run
from tests.backbones import ConvNormAct

TASKS = (
    gd.Task("kind", kind="classification", classes=("cat", "dog", "cow")),
    gd.Task("depth", kind="depth"),
)


@pytest.fixture(autouse=True)
def _measuring_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `bench --quick` writes is looked at, not how long things take."""
    plan = Plan(seconds=0.2, min_rounds=3, max_rounds=3, block_ms=1, warm_up_ms=1)
    monkeypatch.setattr(scenarios, "QUICK", replace(scenarios.QUICK, single=plan, batch=plan, seconds=0.05))


def gated_network() -> gd.GatedNetwork:
    torch.manual_seed(0)
    backbone = nn.Sequential(ConvNormAct(3, 6), ConvNormAct(6, 4))
    heads = {
        "kind": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
        "depth": nn.Conv2d(4, 1, 1),
    }
    network = gd.gate(backbone, TASKS, example_input=torch.zeros(2, 3, 16, 16), heads=heads)
    network.gate(network.sites[0], "kind").choose([True, False] * 3)
    network.gate(network.sites[1], "depth").choose([False] * 4)
    return network.eval()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """checkpoint.pt, collapsed.safetensors and bundle/; tests that change them copy them first."""
    folder = tmp_path_factory.mktemp("road")
    network = gated_network()
    metrics = {"kind": {"accuracy": 0.5}, "depth": {"error": 0.25}}
    info = ModelInfo(TASKS, gd.InputSpec(3, 16, 16, (0.4, 0.4, 0.4), (0.2, 0.2, 0.2)), metrics=metrics)
    gd.save(network, folder / "checkpoint.pt", info=info)
    assert run(["prune", str(folder / "checkpoint.pt")]) == 0
    assert run(["export", str(folder / "collapsed.safetensors"), "--onnx"]) == 0
    return folder
