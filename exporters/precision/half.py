"""Write the precision of a network into its ONNX file: layers in float16 or bfloat16, the delicate ones in float32.

Which inputs and outputs of an operator change their type together is read off ONNX's own schemas, so that there is no
table of operators to keep but that of the delicate ones.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from gatedeploy.errors import InputError
from gatedeploy.exporters.precision.surgery import cast_node, dtype_of, exported, silent
from gatedeploy.exporters.precision.table import PRECISIONS

DELICATE = frozenset(
    "Softmax LogSoftmax LayerNormalization RMSNormalization GroupNormalization InstanceNormalization "
    "LpNormalization ReduceMean ReduceSum ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceSumSquare ReduceProd "
    "CumSum Exp Log Pow Sqrt Reciprocal Softplus Sinh Cosh Tan".split()
)
"""Operators that stay in float32: sums of many numbers, exponentials, and what is infinite or steep somewhere."""


@silent()
def to_half(model: Any, precision: str, keep: Collection[str] = ()) -> Any:
    """A copy of `model` (an `onnx.ModelProto`) in which layers compute in float16 or bfloat16.

    Inputs and outputs of the network stay float32. A value that is read in both types is cast once.

    Args:
        model: in float32. For bfloat16 its opset must be 22 or later, in which convolutions know that type.
        precision: "fp16" or "bf16".
        keep: the names of nodes that stay in float32, besides the delicate ones.

    Raises:
        InputError: the network has branches (If, Loop), inside of which types are not followed.
    """
    import onnx_graphsurgeon as gs

    graph = gs.import_onnx(model)
    low = PRECISIONS[precision].half
    casts: dict[tuple[str, str], Any] = {}
    types: dict[str, str] = {}  # of values that a node has made
    nodes: list[Any] = []
    for node in graph.nodes:
        if any(isinstance(value, gs.Graph) for value in node.attrs.values()):
            raise InputError(f"node {node.name!r} is a branch ({node.op}); {precision} needs a network without them")
        reads, makes = _ports(node, graph.opset, low)
        lowered = node.op not in DELICATE and node.name not in keep and bool(makes)
        wanted = low if lowered else "float32"
        for position in [place for place, value in enumerate(node.inputs) if _is_float(value)]:
            value = node.inputs[position]
            if isinstance(value, gs.Constant):
                if lowered and position in reads:
                    node.inputs[position] = _constant(gs, value, low, casts)
                continue
            need = wanted if position in reads or not lowered else "float32"
            node.inputs[position] = _cast(gs, value, types.get(value.name, "float32"), need, casts, nodes)
        nodes.append(node)
        for position, value in enumerate(node.outputs):
            if _is_float(value):
                types[value.name] = low if lowered and position in makes else "float32"
    _restore_outputs(gs, graph, types, nodes)
    for value in graph.tensors().values():
        if isinstance(value, gs.Variable) and types.get(value.name) == low:
            value.dtype = dtype_of(low)
    graph.nodes = nodes
    graph.cleanup().toposort()
    return exported(gs, graph, model)


def _ports(node: Any, opset: int, low: str) -> tuple[set[int], set[int]]:
    """The inputs and outputs of a node that are of its first output's type; none where that cannot be `low`."""
    import onnx

    try:
        schema = onnx.defs.get_schema(node.op, opset, "")
    except onnx.defs.SchemaError:
        return set(), set()
    variable = schema.outputs[0].type_str
    allowed = next((each.allowed_type_strs for each in schema.type_constraints if each.type_param_str == variable), ())
    if f"tensor({low})" not in allowed or node.op == "Cast":
        return set(), set()
    places = [_places(schema.inputs, len(node.inputs)), _places(schema.outputs, len(node.outputs))]
    reads, makes = ({place for place, text in each if text == variable} for each in places)
    return reads, {place for place in makes if _is_float(node.outputs[place])}


def _places(formal: Any, count: int) -> list[tuple[int, str]]:
    """Position and type of each of `count` values; the last formal one may stand for many."""
    return [(place, formal[min(place, len(formal) - 1)].type_str) for place in range(count)]


def _is_float(value: Any) -> bool:
    return getattr(value, "dtype", None) == np.float32


def _constant(gs: Any, value: Any, low: str, made: dict[tuple[str, str], Any]) -> Any:
    """The constant in the lower type, made once for all its readers."""
    key = (value.name, low)
    if key not in made:
        with np.errstate(over="ignore"):
            made[key] = gs.Constant(f"{value.name}:{low}", value.values.astype(dtype_of(low)))
    return made[key]


def _cast(gs: Any, value: Any, has: str, needs: str, made: dict[tuple[str, str], Any], nodes: list[Any]) -> Any:
    """`value` in the type that is needed, cast once for all its readers."""
    if has == needs:
        return value
    key = (value.name, needs)
    if key not in made:
        made[key] = gs.Variable(f"{value.name}:{needs}", dtype_of(needs), value.shape)
        nodes.append(cast_node(gs, value, made[key], needs))
    return made[key]


def _restore_outputs(gs: Any, graph: Any, types: dict[str, str], nodes: list[Any]) -> None:
    """The network's outputs are float32 and keep their names."""
    for output in graph.outputs:
        low = types.get(output.name, "float32")
        if low == "float32":
            continue
        inner = gs.Variable(f"{output.name}:{low}", dtype_of(low), output.shape)
        types[output.name] = "float32"
        for node in nodes:
            node.outputs = [inner if value is output else value for value in node.outputs]
            node.inputs = [inner if value is output else value for value in node.inputs]
        nodes.append(cast_node(gs, inner, output, "float32"))
