"""Write float8 into an ONNX file: the pairs that int8 has, in four bits of exponent and three of fraction (E4M3).

For TensorRT on GPUs that multiply in it (compute capability 8.9 and later). Its large numbers are coarse and its small
ones fine, where int8's are all alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gatedeploy.exporters.precision.surgery import dtype_of, exported, silent

E4M3 = "float8_e4m3fn"
LARGEST, LARGEST_INT8 = 448, 127
OPSET = 20
"""The first in which onnx-graphsurgeon, ONNX and the exporter agree on it; the type came with 19."""

PAIRS = ("QuantizeLinear", "DequantizeLinear")


@silent()
def to_fp8(quantised: Any, original: Any) -> Any:
    """A copy of an int8 network, an `onnx.ModelProto`, whose pairs round to float8 instead, over the same ranges.

    Args:
        quantised: symmetric, as `gatedeploy.exporters.precision.int8` writes it.
        original: what it was made of; gives the weights back.
    """
    import onnx_graphsurgeon as gs

    graph = gs.import_onnx(quantised)
    weights = gs.import_onnx(original).tensors()
    float8 = dtype_of(E4M3)
    made: dict[str, Any] = {}

    def constant(name: str, values: Any) -> Any:
        if name not in made:
            made[name] = gs.Constant(f"{name}:{E4M3}", np.asarray(values))
        return made[name]

    for node in graph.nodes:
        if node.op not in PAIRS:
            continue
        value, scale, zero = node.inputs
        wide = (np.asarray(scale.values, np.float64) * LARGEST_INT8 / LARGEST).astype(np.float32)
        if isinstance(value, gs.Constant):
            exact = weights[value.name.removesuffix("_quantized")].values
            shape = [-1 if axis == node.attrs.get("axis") else 1 for axis in range(exact.ndim)] if wide.ndim else []
            node.inputs[0] = constant(value.name, (exact / wide.reshape(shape)).astype(float8))
        node.inputs[1] = constant(scale.name, wide)
        node.inputs[2] = constant(zero.name, np.zeros(zero.values.shape, float8))
        if node.op == "QuantizeLinear":
            node.outputs[0].dtype = float8
    graph.opset = max(graph.opset, OPSET)
    graph.cleanup().toposort()
    return exported(gs, graph, quantised)
