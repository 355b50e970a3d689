"""Signed bytes in OpenVINO."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import helper

from gatedeploy.runners.in_onnxruntime import OnnxRuntimeRunner
from gatedeploy.runners.in_openvino import OpenVinoRunner
from tests.exporters.nets import conv, kernels, onnx_net, pictures

openvino = pytest.importorskip("openvino", reason="openvino is not installed")

SCALE = np.float32(4 / 127)


@pytest.fixture(params=["joined", "alone"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A picture, twice in a row or once, rounded to bytes and read by a layer whose weights are bytes, too."""
    joined = request.param == "joined"
    weights = np.random.default_rng(0).integers(-127, 128, (3, 4 if joined else 2, 3, 3)).astype(np.int8)
    first = [helper.make_node("Concat", ["image", "image"], ["row"], axis=1)] if joined else []
    nodes = [
        *first,
        helper.make_node("QuantizeLinear", ["row" if joined else "image", "scale", "zero"], ["bytes"]),
        helper.make_node("DequantizeLinear", ["bytes", "scale", "zero"], ["rounded"]),
        helper.make_node("DequantizeLinear", ["weights", "scales", "zeros"], ["kernels"], axis=0),
        conv("layer", "rounded", "scores", "kernels", kernel=3),
    ]
    constants: dict[str, npt.ArrayLike] = {
        **{"weights": weights, "scales": kernels(3) ** 2, "zeros": np.zeros(3, np.int8)},
        **{"scale": SCALE, "zero": np.int8(0)},
    }
    onnx.save(onnx_net(nodes, constants, ["scores"]), str(tmp_path / "model.onnx"))
    return tmp_path / "model.onnx"


def error_of(answer: np.ndarray, file: Path) -> float:
    with OnnxRuntimeRunner(file, optimized=False) as runner:
        exact = runner.infer({"image": pictures()})["scores"]
    return float(np.abs(answer - exact).max() / np.abs(exact).max())


def test_bytes_are_read_as_they_are(model: Path) -> None:
    with OpenVinoRunner(model) as runner:
        assert error_of(runner.infer({"image": pictures()})["scores"], model) < 1e-5


def has_amx() -> bool:
    """Whether the processor multiplies matrices of bytes by itself, for which OpenVINO has kernels of their own."""
    cpu = Path("/proc/cpuinfo")
    return cpu.is_file() and "amx_int8" in cpu.read_text()


@pytest.mark.skipif(has_amx(), reason="OpenVINO's kernels for AMX do not have the fault that others have")
@pytest.mark.parametrize("model", ["joined"], indirect=True)
def test_what_openvino_makes_of_joined_bytes_itself(model: Path) -> None:
    """Once this fails, OpenVINO has been mended: read its files as they are again."""
    answer = openvino.Core().compile_model(openvino.Core().read_model(model), "CPU")({"image": pictures()})[0]
    assert error_of(answer, model) > 0.1
