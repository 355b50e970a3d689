"""int8 and float8, held against the rounding that their scales say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional as F

from gatedeploy.errors import CheckError, InputError
from gatedeploy.exporters.precision.fp8 import to_fp8
from gatedeploy.exporters.precision.int8 import quantised_nodes, to_int8, with_float32
from gatedeploy.exporters.precision.surgery import run_model
from tests.exporters.nets import Floats, conv, kernels, onnx_net, pictures

WEIGHTS = {
    # One channel's kernel is a hundred times the other's: one scale for both would leave nothing of the other.
    "w1": kernels(2, 2, 3, 3, seed=1) * np.array([1, 100], np.float32).reshape(2, 1, 1, 1),
    "b1": kernels(2, seed=2),
    "w2": kernels(3, 2, 1, 1, seed=3, scale=0.01),
}


def two_layers() -> onnx.ModelProto:
    nodes = [
        conv("first", "image", "a", "w1", "b1", kernel=3),
        helper.make_node("Relu", ["a"], ["f"], "relu"),
        conv("second", "f", "scores", "w2"),
    ]
    return onnx_net(nodes, WEIGHTS, ["scores"], opset=20)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    onnx.save(two_layers(), str(tmp_path / "model.onnx"))
    return tmp_path / "model.onnx", tmp_path / "int8.onnx"


def quantised(files: tuple[Path, Path], image: Floats, method: str = "min-max") -> onnx.ModelProto:
    to_int8(*files, "image", [image], method)
    return onnx.load(str(files[1]))


def rounded(values: torch.Tensor, scale: torch.Tensor | float) -> torch.Tensor:
    return (values / scale).round().clamp(-128, 127) * scale


def test_it_computes_what_its_scales_say(files: tuple[Path, Path]) -> None:
    image = pictures()
    model = with_float32(quantised(files, image), two_layers(), ())
    onnx.checker.check_model(model, full_check=True)
    (got,) = run_model(model, {"image": image}).values()

    def scale(values: torch.Tensor) -> float:
        return float(values.abs().max()) / 127  # symmetric, and min-max: the range is ± the largest value

    w1, b1, w2 = (torch.from_numpy(WEIGHTS[name]) for name in ("w1", "b1", "w2"))
    x = torch.from_numpy(image)
    exact = F.conv2d(x, w1, b1, padding=1)
    low1, low2 = (rounded(w, w.abs().amax((1, 2, 3), keepdim=True) / 127) for w in (w1, w2))
    a = rounded(F.conv2d(rounded(x, scale(x)), low1, b1, padding=1), scale(exact))
    f = rounded(a.relu(), scale(exact.relu()))
    expected = F.conv2d(f, low2).numpy()
    unrounded = F.conv2d(exact.relu(), w2).numpy()
    # A value on the border of two steps may fall to either side: a step of the hidden map, times the largest weight.
    step = scale(exact.relu()) * float(w2.abs().max())
    np.testing.assert_allclose(got, expected, rtol=0, atol=1.01 * step)
    for other, most in ((expected, True), (unrounded, False)):
        assert (np.isclose(got, other, rtol=0, atol=step / 1000).mean() > 0.8) == most, "it is this rounding, no other"


def test_float8_computes_what_its_scales_say(files: tuple[Path, Path]) -> None:
    image = pictures()
    model = to_fp8(with_float32(quantised(files, image), two_layers(), ()), two_layers())
    onnx.checker.check_model(model, full_check=True)
    (got,) = run_model(model, {"image": image}, optimized=False).values()

    def low(values: torch.Tensor, largest: torch.Tensor | None = None) -> torch.Tensor:
        scale = (values.abs().max() if largest is None else largest) / 448
        return (values / scale).to(torch.float8_e4m3fn).float() * scale

    w1, b1, w2 = (torch.from_numpy(WEIGHTS[name]) for name in ("w1", "b1", "w2"))
    x = torch.from_numpy(image)
    exact = F.conv2d(x, w1, b1, padding=1)
    low1, low2 = (low(w, w.abs().amax((1, 2, 3), keepdim=True)) for w in (w1, w2))
    a = low(F.conv2d(low(x), low1, b1, padding=1), exact.abs().max())
    expected = F.conv2d(low(a.relu(), exact.relu().max()), low2).numpy()
    unrounded = F.conv2d(exact.relu(), w2).numpy()
    # A value on the border of two steps may fall to either side; a step is an eighth of the value or less.
    assert np.isclose(got, expected, rtol=1e-4, atol=1e-6).mean() > 0.6
    assert np.isclose(got, unrounded, rtol=1e-4, atol=1e-6).mean() < 0.3, "where both are zero"
    np.testing.assert_allclose(got, expected, rtol=0.13, atol=0.01 * np.abs(expected).max())
    points = {weight.data_type for weight in model.graph.initializer}
    assert points == {TensorProto.FLOAT, TensorProto.FLOAT8E4M3FN}


def test_onnx_runtimes_optimiser_still_has_to_be_kept_from_float8(files: tuple[Path, Path]) -> None:
    """Once this fails, `optimized_in_onnxruntime` can go."""
    image = pictures()
    model = to_fp8(with_float32(quantised(files, image), two_layers(), ()), two_layers())
    left, changed = (run_model(model, {"image": image}, optimized=each)["scores"] for each in (False, True))
    assert np.abs(left - changed).max() > 0.1 * np.abs(left).max()


def test_the_form_that_tensorrt_takes(files: tuple[Path, Path]) -> None:
    """Symmetric, weights channel by channel, biases in float32, and no pair before an output."""
    model = with_float32(quantised(files, pictures()), two_layers(), ())
    constants = {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}
    pairs = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    points = [constants[node.input[2]] for node in pairs]
    assert all(point.dtype == np.int8 and not point.any() for point in points)
    scales = [constants[node.input[1]] for node in pairs if node.input[0].startswith("w1")]
    assert [scale.shape for scale in scales] == [(2,)]
    assert scales[0][1] > 20 * scales[0][0]
    assert constants["b1"].dtype == np.float32
    (last,) = (node for node in model.graph.node if "scores" in node.output)
    assert (last.op_type, last.name) == ("Conv", "second")
    assert quantised_nodes(model) == ["first", "relu", "second"]


def test_layers_that_are_kept_compute_in_float32(files: tuple[Path, Path]) -> None:
    image = pictures()
    model = quantised(files, image)
    exact = run_model(two_layers(), {"image": image})["scores"]
    errors = {}
    for keep in ((), ("first",), ("first", "relu"), ("first", "relu", "second")):
        mixed = with_float32(model, two_layers(), keep)
        assert quantised_nodes(mixed) == [name for name in ("first", "relu", "second") if name not in keep]
        errors[keep] = float(np.abs(run_model(mixed, {"image": image})["scores"] - exact).max())
    assert list(errors.values()) == sorted(errors.values(), reverse=True)
    assert errors["first", "relu", "second"] == 0, "all kept is the same network"


def test_entropy_leaves_out_what_is_rare(files: tuple[Path, Path]) -> None:
    """One pixel of ten thousand is fifty times as bright as all others; whole ranges leave two steps to the others."""
    image = np.clip(pictures(40, size=16), -1, 1)
    image[0, 0, 0, 0] = 50
    scales = {}
    for method in ("entropy", "min-max"):
        nodes = [conv("first", "image", "y", "w1", "b1", kernel=3)]
        onnx.save(onnx_net(nodes, {k: WEIGHTS[k] for k in ("w1", "b1")}, ["y"], size=16, opset=20), str(files[0]))
        model = quantised(files, image, method)
        (first,) = (node for node in model.graph.node if node.op_type == "QuantizeLinear" and node.input[0] == "image")
        scales[method] = float(
            next(numpy_helper.to_array(each) for each in model.graph.initializer if each.name == first.input[1])
        )
    assert scales["min-max"] == pytest.approx(50 / 127, rel=1e-3)
    assert scales["entropy"] < scales["min-max"] / 2


def test_nothing_is_printed(files: tuple[Path, Path], capfd: pytest.CaptureFixture[str]) -> None:
    quantised(files, pictures(), "entropy")
    assert capfd.readouterr() == ("", "")


def test_what_cannot_be_quantised(files: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match="the calibration max: expected min-max or entropy; did you mean 'min-max'"):
        to_int8(*files, "image", [pictures()], "max")
    with pytest.raises(CheckError, match="the network cannot be quantised: "):
        to_int8(*files, "picture", [pictures()], "min-max")
    assert not files[1].exists()
