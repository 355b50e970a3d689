"""Where time and multiply-adds go, by layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import gatedeploy as gd
from gatedeploy.artifact import ModelInfo
from gatedeploy.benchmarks.layers import macs_by_layer, profile
from gatedeploy.exporters.to_onnx import export_onnx

INPUT = gd.InputSpec(3, 8, 12)


class Net(nn.Module):
    """Every operator that counts, of shapes by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.tokens = nn.Linear(4, 5)
        self.answer = nn.Linear(5, 7)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.up(torch.relu(self.depthwise(torch.relu(self.first(image)))))
        tokens = self.tokens(x.flatten(2).transpose(1, 2))
        return {"kind": self.answer(tokens.mean(1))}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("layers") / "model.onnx"
    info = ModelInfo((gd.Task("kind", "classification", tuple("abcdefg")),), INPUT)
    export_onnx(Net().eval(), info, path)
    return path


def test_multiply_adds_are_those_of_one_picture(file: Path) -> None:
    assert macs_by_layer(file) == {
        "first": 8 * 12 * 8 * 3 * 9,
        "depthwise": 4 * 6 * 8 * 9,
        "up": 4 * 6 * 8 * 4 * 4,
        "tokens": 96 * 4 * 5,
        "answer": 5 * 7,
    }


def test_every_kernel_counts_to_a_layer(file: Path) -> None:
    layers = profile(file, np.zeros((1, *INPUT.shape), np.float32), threads=1)
    assert [layer.name for layer in layers if layer.macs] == ["first", "depthwise", "up", "tokens", "answer"]
    assert sum(layer.macs for layer in layers) == sum(macs_by_layer(file).values())
    assert all(layer.name for layer in layers)
    assert all(layer.milliseconds > 0 for layer in layers)
    assert all(0 <= layer.moving <= layer.milliseconds for layer in layers)
