"""The bundles that the C++ library is tested with, and what Python computes with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from torch import Tensor, nn

import gatedeploy as gd
from gatedeploy.artifact import ModelInfo
from gatedeploy.exporters.reference import reference_picture
from tests.exporters.networks import INPUT, PARTS, SCENE, SIZE, PartsHead, SceneHead, TwoHeads, example, gated

BATCHES = (1, 2, 3, 7)

TASKS = (SCENE, PARTS, gd.Task("depth", "depth"), gd.Task("normals", "normals"), gd.Task("extra"))


class Map(nn.Module):
    """A map of some channels, of half the picture's size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(6, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        found: Tensor = self.layer(features)
        return found


def make(folder: Path) -> None:
    """Write `bundle/` with engines of OpenVINO and AOTInductor, `onnx/` and `int8/` without, and what is expected."""
    heads = {"scene": SceneHead(), "parts": PartsHead(), "depth": Map(1), "normals": Map(3), "extra": TwoHeads()}
    thin = gd.collapse(gated(heads=heads), example_input=example())
    info = ModelInfo(TASKS, INPUT, form="collapsed")
    gd.export(thin, folder / "bundle", formats=["onnx", "openvino", "aoti"], info=info)
    gd.export(thin, folder / "onnx", info=info)
    _write_int8(thin, info, folder)
    reference_picture(INPUT, 3, 5).tofile(folder / "noise.raw")
    _write_expected(folder)


def _write_int8(thin: gd.Collapsed, info: ModelInfo, folder: Path) -> None:
    """`int8/`, where rounded channels are joined, and what OpenVINO answers with it to pictures of noise."""
    picture = reference_picture(INPUT, 3, 5)
    headlines = {task.name: gd.Headline("error", lower_is_better=True) for task in TASKS}
    samples = gd.Samples([picture], lambda _: {name: {"error": 1.0} for name in headlines}, headlines, "noise", 3)
    bundle = gd.export(thin, folder / "int8", precision="int8", info=info, samples=samples)
    operators = [node.op_type for node in onnx.load(str(bundle.model)).graph.node]
    assert {"Concat", "QuantizeLinear"} <= set(operators)
    with gd.open(bundle.path, "openvino") as runner:
        (folder / "int8_expected").mkdir()
        for name, values in runner.infer({"image": picture}).items():
            values.tofile(folder / "int8_expected" / f"{name}.raw")


def _write_expected(folder: Path) -> None:
    """`expected/BATCH/`: a random picture as pixels and as what the network is fed, and what ONNX Runtime answers."""
    random = np.random.default_rng(4)
    mean, std = (np.array(values) for values in INPUT.moments)
    with gd.open(folder / "onnx") as runner:
        for batch in BATCHES:
            pixels = random.integers(0, 256, (batch, SIZE, SIZE, 3), dtype=np.uint8)
            image = np.ascontiguousarray(((pixels / 255 - mean) / std).astype(np.float32).transpose(0, 3, 1, 2))
            here = folder / "expected" / str(batch)
            here.mkdir(parents=True)
            pixels.tofile(here / "pixels.raw")
            image.tofile(here / "image.raw")
            for name, values in runner.infer({"image": image}).items():
                values.tofile(here / f"{name}.raw")
