"""The whole road for a backbone that lives outside the project, from real processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BACKBONE = '''
import torch
from torch import nn


class Odd(nn.Module):
    """Written the way nobody here would: in place, by hand, with a buffer and a condition."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.b = nn.ModuleList([nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 8, 1)])
        self.norm = nn.BatchNorm2d(6)
        self.register_buffer("shift", torch.full((1, 6, 1, 1), 0.1))

    def forward(self, x):
        x = nn.functional.relu_(self.a(x)) + self.shift
        y = self.norm(self.b[0](x))
        y += x
        y = nn.functional.dropout(y.clamp(min=0), 0.1, self.training)
        return torch.tanh(self.b[1](y))


def make():
    return Odd()
'''

RECIPE = """
data: {name: scenes, train: 8, val: 4, size: 16}
model: {backbone: {name: resnet20}, head: {name: dense, width: 8}}
train: {epochs: 1, batch_size: 4}
"""


def gatedeploy(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gatedeploy", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_train_two_steps_then_prune_where_it_cannot_be_imported(tmp_path: Path) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    (home / "my_networks.py").write_text(BACKBONE)
    (home / "recipe.yaml").write_text(RECIPE)
    gatedeploy(home, "train", "recipe.yaml", "--backbone", "my_networks:make", "--out", "run")
    checkpoint = home / "run" / "checkpoint.pt"
    refused = subprocess.run([sys.executable, "-c", "import my_networks"], cwd=elsewhere, capture_output=True)
    assert refused.returncode != 0, "it must not be importable here, or this test shows nothing"
    gatedeploy(elsewhere, "prune", str(checkpoint), "--out", "thin.safetensors")
    gatedeploy(elsewhere, "export", "thin.safetensors", "--onnx")
    gatedeploy(elsewhere, "verify", "bundle")
