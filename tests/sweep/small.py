"""The smallest sweep: a trunk of two convolutions, two tasks, sixteen pictures."""

from __future__ import annotations

from pathlib import Path

from gatedeploy.sweep.plan import Plan, make_plan

RECIPE = """
data: {name: scenes, train: 16, val: 8, size: 16}
model: {backbone: {name: resnet20}, head: {name: dense, width: 8}}
tasks: {depth: {}, normals: {}}
train: {epochs: 2, single_epochs: 1, batch_size: 8, rivals: true}
gates: {learning_rate: 1.0}
"""

TRUNK = """
from torch import nn


def trunk():
    layers = [nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1)]
    return nn.Sequential(*layers, nn.BatchNorm2d(8), nn.ReLU())
"""
BACKBONE = "trunk_of_a_sweep:trunk"


def write_recipe(folder: Path) -> Path:
    """The recipe, and the module of its trunk beside it."""
    (folder / "trunk_of_a_sweep.py").write_text(TRUNK)
    path = folder / "small.yaml"
    path.write_text(RECIPE)
    return path


def plan(recipe: Path, *over: str, changes: tuple[str, ...] = (), seeds: int = 2) -> Plan:
    return make_plan(str(recipe), changes, over or ["sparsity.weight=0,50"], seeds, BACKBONE)
