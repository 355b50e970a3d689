"""Backbones as other people write them, all the way: gated, trained a step, collapsed, in ONNX Runtime, and equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import gatedeploy as gd
from gatedeploy.artifact import names_only
from gatedeploy.exporters.to_onnx import export_onnx
from gatedeploy.gating.network import GatedNetwork
from tests.gate_patterns import set_gates
from tests.graph.small import prepared
from tests.modern_backbones import MODERN
from tests.odd_backbones import ODD
from tests.pythonic_backbones import PYTHONIC

ZOO = [*MODERN, *ODD, *PYTHONIC]
TASKS = [gd.Task(name, "classification", ("no", "yes")) for name in ("a", "b")]
PICTURES = torch.randn(3, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def gated(backbone: type[nn.Module], pattern: str) -> GatedNetwork:
    """In float64 and evaluation mode."""
    torch.manual_seed(0)
    network = gd.gate(backbone(), TASKS, example_input=PICTURES.float())
    for weight in network.weight_parameters():
        weight.data += 0.1 * torch.randn_like(weight)  # branches differ, as after training
    set_gates(network, pattern)
    prepared(network)
    return network


def assert_close(got: Any, expected: Any, tolerance: float) -> None:
    for ours, theirs in zip(pytree.tree_leaves(got), pytree.tree_leaves(expected), strict=True):
        error = (torch.as_tensor(ours).double() - theirs).abs().max()
        assert float(error) <= tolerance * float(theirs.abs().max())


@pytest.mark.parametrize("backbone", [*MODERN, *PYTHONIC])
@pytest.mark.parametrize("pattern", ["random, half", "random, few specific"])
@pytest.mark.parametrize("target", [None, "cpu"])
def test_collapsed_equals_gated(backbone: type[nn.Module], pattern: str, target: str | None) -> None:
    network = gated(backbone, pattern)
    thin = gd.collapse(network, example_input=PICTURES, target=target)
    with torch.no_grad():
        assert_close(thin(PICTURES[:1]), network(PICTURES[:1]), 1e-9)


@pytest.mark.parametrize("backbone", ZOO)
def test_it_runs_in_onnx_runtime(backbone: type[nn.Module], tmp_path: Path) -> None:
    network = gated(backbone, "random, half")
    thin = gd.collapse(network, example_input=PICTURES)
    with torch.no_grad():
        expected = thin(PICTURES)
    export_onnx(thin.float().network, names_only(thin.program), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    got = session.run(None, {session.get_inputs()[0].name: PICTURES.float().numpy()})
    assert_close(got, expected, 1e-4)


@pytest.mark.parametrize("backbone", ZOO)
def test_it_trains(backbone: type[nn.Module]) -> None:
    """Every weight that a prediction reads gets a gradient in training mode, with statistics of each branch's own."""
    network = gated(backbone, "all specific").float().train()
    loss = sum(leaf.square().mean() for leaf in pytree.tree_leaves(network(PICTURES.float())))
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    for task in ("a", "b"):
        branch = network.branches.get_submodule(task)
        assert all(weight.grad is not None for weight in branch.parameters())
