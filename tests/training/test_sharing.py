"""λ_s decides how much tasks share, on real pictures and in few steps."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gatedeploy.artifact import read_checkpoint
from gatedeploy.assembly import build_parts
from gatedeploy.graph.shares import site_shares
from gatedeploy.training.journal import Journal
from gatedeploy.training.recipe import Recipe
from gatedeploy.training.stages import train_recipe

pytestmark = pytest.mark.usefixtures("shallow")

TASKS = ("segmentation", "normals")
SHORT: dict[str, Any] = {
    "data": {"name": "scenes", "train": 128, "val": 16, "size": 32},
    "model": {"backbone": {"name": "resnet20", "width": 0.25}, "head": {"name": "dense"}},
    "tasks": {task: {} for task in TASKS},
    "train": {"epochs": 4, "batch_size": 16},
}


def specific_share(weight: float, out: Path) -> dict[str, float]:
    """Share of task-specific channels after 32 steps at λ_s = `weight`, by task."""
    recipe, parts = build_parts(Recipe.from_plain({**SHORT, "sparsity": {"weight": weight}}), "short")
    journal = Journal(Console(file=io.StringIO()), tensorboard=False)
    sites = site_shares(read_checkpoint(train_recipe(recipe, parts, out, journal=journal).checkpoint).program)
    return {task: sum(site.specific[task] / site.channels for site in sites) / len(sites) for task in TASKS}


def test_a_larger_penalty_makes_tasks_share(tmp_path: Path) -> None:
    free, pressed = specific_share(0.0, tmp_path / "free"), specific_share(30.0, tmp_path / "pressed")
    assert min(free.values()) > 0.9
    assert max(pressed.values()) < 0.2
