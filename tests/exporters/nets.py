"""ONNX networks written by hand, whose right answer is derived beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Floats = npt.NDArray[np.float32]


def onnx_net(
    nodes: Sequence[Any], weights: Mapping[str, npt.ArrayLike], outputs: Sequence[str], size: int = 4, opset: int = 22
) -> onnx.ModelProto:
    """A network of pictures `image` (batch, 2, size, size) float32, with the types of all its values written down."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 2, size, size])
    returned = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(list(nodes), "net", [image], returned, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    model.metadata_props.add(key="gedicht", value="bleibt")
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    onnx.checker.check_model(inferred, full_check=True)
    return inferred


def conv(name: str, source: str, result: str, *weights: str, kernel: int = 1) -> Any:
    return helper.make_node("Conv", [source, *weights], [result], name, pads=[kernel // 2] * 4)


def kernels(*shape: int, seed: int = 0, scale: float = 1.0) -> Floats:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def pictures(count: int = 3, size: int = 4, seed: int = 9) -> Floats:
    return kernels(count, 2, size, size, seed=seed)
