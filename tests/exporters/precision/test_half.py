"""Precision written into ONNX files, held against the same arithmetic done by hand in PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch.nn import functional as F

from gatedeploy.errors import InputError
from gatedeploy.exporters.precision.emulation import emulated
from gatedeploy.exporters.precision.half import to_half
from gatedeploy.exporters.precision.surgery import run_model
from tests.exporters.nets import conv, kernels, onnx_net, pictures

TORCH = {"fp16": torch.float16, "bf16": torch.bfloat16}
ONNX = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
both = pytest.mark.parametrize("precision", ["fp16", "bf16"])

WEIGHTS = {"w1": kernels(4, 2, 3, 3, seed=1), "b1": kernels(4, seed=2), "w2": kernels(3, 4, 1, 1, seed=3)}


def two_layers() -> onnx.ModelProto:
    """A convolution, its activation, whose result is an output too, a softmax over channels, and a second layer."""
    nodes = [
        conv("first", "image", "a", "w1", "b1", kernel=3),
        helper.make_node("Relu", ["a"], ["features"], "relu"),
        helper.make_node("Softmax", ["features"], ["s"], "softmax", axis=1),
        conv("second", "s", "scores", "w2"),
    ]
    return onnx_net(nodes, WEIGHTS, ["features", "scores"])


def by_hand(image: Any, precision: str, rounded_first: bool = True) -> dict[str, torch.Tensor]:
    """Every value of the lower type is rounded once it is computed, the softmax is computed in float32."""
    w1, b1, w2 = (torch.from_numpy(WEIGHTS[name]) for name in ("w1", "b1", "w2"))

    def low(value: torch.Tensor) -> torch.Tensor:
        return value.to(TORCH[precision]).float()

    first = low if rounded_first else (lambda value: value)
    a = first(F.conv2d(first(torch.from_numpy(image)), first(w1), first(b1), padding=1))
    features = low(a.relu())
    scores = low(F.conv2d(low(features.softmax(1)), low(w2)))
    return {"features": features, "scores": scores}


def types(model: onnx.ModelProto) -> dict[str, int]:
    return {value.name: value.type.tensor_type.elem_type for value in (*model.graph.value_info, *model.graph.output)}


@both
def test_it_computes_what_the_type_says(precision: str) -> None:
    image = pictures()
    half = to_half(two_layers(), precision)
    onnx.checker.check_model(half, full_check=True)
    got = run_model(emulated(half, precision), {"image": image})
    for name, expected in by_hand(image, precision).items():
        # Sums of 18 products may be added up in another order, and so be rounded to a neighbour.
        unit = float(torch.finfo(TORCH[precision]).eps) * float(expected.abs().max())
        np.testing.assert_allclose(got[name], expected.numpy(), rtol=0, atol=unit)
        assert torch.equal(torch.from_numpy(got[name]).to(TORCH[precision]).float(), torch.from_numpy(got[name]))


def test_onnx_runtime_runs_float16_itself() -> None:
    image = pictures()
    half = to_half(two_layers(), "fp16")
    got, exact = run_model(half, {"image": image}), run_model(two_layers(), {"image": image})
    for name, values in exact.items():
        assert 0 < np.abs(got[name] - values).max() < 4e-3 * np.abs(values).max()


@both
def test_the_interface_stays_and_delicate_layers_do(precision: str) -> None:
    half = to_half(two_layers(), precision)
    found = types(half)
    assert (found["features"], found["scores"], found["s"]) == (TensorProto.FLOAT,) * 3, "outputs, and the softmax"
    assert found["a"] == ONNX[precision]
    assert [value.name for value in half.graph.input] == ["image"]
    assert half.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    weights = {weight.name: weight.data_type for weight in half.graph.initializer}
    assert weights == {f"{name}:{_name(precision)}": ONNX[precision] for name in WEIGHTS}
    assert [(each.key, each.value) for each in half.metadata_props] == [("gedicht", "bleibt")]
    nodes = [node.name for node in half.graph.node]
    assert [name for name in nodes if name in ("first", "relu", "softmax", "second")] == [
        "first",
        "relu",
        "softmax",
        "second",
    ]
    assert len(set(nodes)) == len(nodes)


def _name(precision: str) -> str:
    return str(TORCH[precision]).removeprefix("torch.")


@both
def test_layers_that_are_kept_compute_in_float32(precision: str) -> None:
    image = pictures()
    half = to_half(two_layers(), precision, ["first"])
    assert types(half)["a"] == TensorProto.FLOAT
    got = run_model(emulated(half, precision), {"image": image})
    for name, expected in by_hand(image, precision, rounded_first=False).items():
        unit = float(torch.finfo(TORCH[precision]).eps) * float(expected.abs().max())
        np.testing.assert_allclose(got[name], expected.numpy(), rtol=0, atol=unit)


@both
def test_all_kept_is_the_same_network(precision: str) -> None:
    image = pictures()
    names = [node.name for node in two_layers().graph.node]
    for made in (to_half(two_layers(), precision, names), emulated(to_half(two_layers(), precision, names), precision)):
        assert not any(node.op_type == "Cast" for node in made.graph.node)
        for name, values in run_model(two_layers(), {"image": image}).items():
            np.testing.assert_array_equal(run_model(made, {"image": image})[name], values)


def test_a_value_read_twice_is_cast_once() -> None:
    nodes = [
        conv("first", "image", "a", "w1", "b1", kernel=3),
        conv("left", "image", "l", "w1", "b1", kernel=3),
        helper.make_node("Softmax", ["a"], ["s"], "s1"),
        helper.make_node("Exp", ["a"], ["e"], "e1"),
        helper.make_node("Add", ["s", "e"], ["x"], "add"),
        helper.make_node("Add", ["x", "l"], ["y"], "sum"),
    ]
    half = to_half(onnx_net(nodes, {name: WEIGHTS[name] for name in ("w1", "b1")}, ["y"]), "fp16")
    casts = [(node.input[0], node.output[0]) for node in half.graph.node if node.op_type == "Cast"]
    assert sorted(casts) == [
        ("a", "a:float32"),
        ("e", "e:float16"),
        ("image", "image:float16"),
        ("s", "s:float16"),
        ("y:float16", "y"),
    ]
    assert sum(weight.name.startswith("w1") for weight in half.graph.initializer) == 1


def test_what_an_operator_wants_in_float32_or_as_whole_numbers_is_left() -> None:
    """The factors of a resize are float32 in ONNX whatever its picture is, and the shape of a reshape is int64."""
    nodes = [
        helper.make_node("Resize", ["image", "", "factors"], ["large"], "resize", mode="linear"),
        helper.make_node("Reshape", ["large", "shape"], ["y"], "reshape"),
    ]
    weights = {"factors": np.array([1, 1, 2, 2], np.float32), "shape": np.array([0, -1])}
    half = to_half(onnx_net(nodes, weights, ["y"]), "fp16")
    onnx.checker.check_model(half, full_check=True)
    assert {weight.name: weight.data_type for weight in half.graph.initializer} == {
        "factors": TensorProto.FLOAT,
        "shape": TensorProto.INT64,
    }
    assert types(half)["large"] == TensorProto.FLOAT16
    image = pictures()
    exact = run_model(onnx_net(nodes, weights, ["y"]), {"image": image})["y"]
    assert np.abs(run_model(half, {"image": image})["y"] - exact).max() < 4e-3


def test_an_output_that_is_read_on_is_cast_back_for_nobody_else() -> None:
    nodes = [conv("first", "image", "y", "w1", "b1", kernel=3), helper.make_node("Relu", ["y"], ["z"], "relu")]
    half = to_half(onnx_net(nodes, {name: WEIGHTS[name] for name in ("w1", "b1")}, ["y", "z"]), "fp16")
    assert [(node.op_type, list(node.input)) for node in half.graph.node if node.name == "relu"] == [
        ("Relu", ["y:float16"])
    ]


def test_a_branch_is_refused() -> None:
    inner = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["i"])],
        "inner",
        [],
        [helper.make_tensor_value_info("i", TensorProto.FLOAT, None)],
    )
    nodes = [helper.make_node("If", ["yes"], ["y"], "choice", then_branch=inner, else_branch=inner)]
    with pytest.raises(InputError, match=r"node 'choice' is a branch \(If\); fp16 needs a network without them"):
        to_half(onnx_net(nodes, {"yes": np.array(True)}, ["y"]), "fp16")
