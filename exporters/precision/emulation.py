"""What a network of float16 or bfloat16 computes, on a processor that has kernels for float32 alone.

ONNX Runtime has no bfloat16 on processors, and computes chains of float16 layers in float32, rounding fewer values
than a device would. So a reduced network is judged by its twin: every layer computes in float32, as kernels add up
their products, and every value is then rounded to its type.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gatedeploy.exporters.precision.surgery import cast_node, dtype_of, exported, is_of, silent
from gatedeploy.exporters.precision.table import PRECISIONS


@silent()
def emulated(model: Any, precision: str) -> Any:
    """A copy of `model`, an `onnx.ModelProto` that `to_half` made, in float32 with every value rounded."""
    import onnx_graphsurgeon as gs

    graph = gs.import_onnx(model)
    low = PRECISIONS[precision].half
    nodes: list[Any] = []
    wide: dict[str, Any] = {}
    for node in graph.nodes:
        for place, value in enumerate(node.inputs):
            if isinstance(value, gs.Constant) and is_of(value, low):
                if value.name not in wide:
                    wide[value.name] = gs.Constant(f"{value.name}:wide", value.values.astype(np.float32))
                node.inputs[place] = wide[value.name]
        nodes.append(node)
        for place, value in enumerate(node.outputs):
            if not is_of(value, low):
                continue
            value.dtype = np.dtype(np.float32)
            rounded = gs.Variable(f"{value.name}:rounded", dtype_of(low), value.shape)
            if node.op == "Cast":
                node.name, node.outputs[place] = f"{rounded.name}:Cast", rounded
            else:
                node.outputs[place] = exact = gs.Variable(f"{value.name}:exact", np.float32, value.shape)
                nodes.append(cast_node(gs, exact, rounded, low))
            nodes.append(cast_node(gs, rounded, value, "float32"))
    graph.nodes = nodes
    graph.cleanup().toposort()
    return exported(gs, graph, model)
