"""Make of what PyTorch's exporter writes a graph that is fit to be read: small, named, described."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from gatedeploy.artifact import ModelInfo
from gatedeploy.runners.base import BATCH
from gatedeploy.specs import to_plain

METADATA_VERSION = "1"
SCOPES = "pkg.torch.onnx.name_scopes"


def tidy(model: Any, input: str, outputs: Sequence[str], weights: Collection[str]) -> None:
    """Simplify and rename the graph of `model` (an `onnx_ir.Model`) in place.

    Args:
        model: as PyTorch's exporter makes it, not optimised.
        input: what its input shall be called.
        outputs: what its outputs shall be called, in order.
        weights: the names of the network's weights, which they keep.

    1. What depends on constants alone is computed; the exporter writes several nodes for the bounds of each slice.
    2. Sizes that are known are written down; the exporter computes each from the batch size of the picture.
    3. Equal constants and equal calls become one; what nobody reads goes.
    4. Nodes are called `layer/Operator`, those between layers after the layer that they follow, values after
       the nodes they come from, the free size `batch`.
    5. The exporter's notes, file names of the machine it ran on among them, go.
    """
    _simplify(model)
    _rename(model, input, outputs, weights)
    _name_batch(model)
    _drop_notes(model)


def describe(model: Any, info: ModelInfo) -> None:
    """Write into the file what whoever finds it without its bundle must know."""
    import gatedeploy

    tasks = [{"name": task.name, "kind": task.kind, "classes": list(task.classes)} for task in info.tasks]
    model.producer_name = "gatedeploy"
    model.producer_version = gatedeploy.__version__
    model.graph.name = "gatedeploy"
    model.metadata_props.update(
        {
            "gatedeploy.version": METADATA_VERSION,
            "gatedeploy.tasks": json.dumps(tasks),
            "gatedeploy.input": json.dumps({**to_plain(info.input), "layout": "NCHW", "pixel_scale": 255}),
        }
    )


def _simplify(model: Any) -> None:
    import onnx_ir.passes.common
    from onnxscript import optimizer

    common: Any = onnx_ir.passes.common
    common.InlinePass()(model)
    optimizer.fold_constants(model)
    common.ShapeInferencePass()(model)
    for node in list(model.graph):
        _write_sizes(model.graph, node)
        _skip_cast(model.graph, node)
    for step in (
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedOpsetsPass(),
    ):
        step(model)


def _write_sizes(graph: Any, node: Any) -> None:
    """Give a reshape or resize its sizes as constants.

    Legal when
    1. all sizes of a reshape's result but one are known: that one becomes −1; or
    2. a resize changes known sizes by factors that float32 holds exactly, so that a factor says what a size says.
    """
    after = list(node.outputs[0].shape or ())
    known = [isinstance(size, int) and size > 0 for size in after]
    if node.op_type == "Reshape" and node.inputs[1].const_value is None and after and sum(known) >= len(after) - 1:  # 1
        sizes = [size if fixed else -1 for size, fixed in zip(after, known, strict=True)]
        node.replace_input_with(1, _constant(graph, np.array(sizes, dtype=np.int64)))
    if node.op_type == "Resize" and len(node.inputs) == 4 and node.inputs[3] is not None:
        before = list(node.inputs[0].shape or ())
        if len(before) != len(after) or not all(isinstance(size, int) for size in before[1:]) or not all(known[1:]):
            return
        pairs = list(zip(before[1:], after[1:], strict=True))
        factors = np.array([1.0, *(new / old for old, new in pairs)], dtype=np.float32)
        if all(
            Fraction(float(factor)) * old == new for factor, (old, new) in zip(factors[1:], pairs, strict=True)
        ):  # 2
            node.replace_input_with(2, _constant(graph, factors))
            node.resize_inputs(3)


def _skip_cast(graph: Any, node: Any) -> None:
    """Let the readers of a cast to the type that a value already has read the value itself."""
    import onnx_ir

    if node.op_type not in ("Cast", "CastLike") or node.inputs[0].dtype is None:
        return
    (result,) = node.outputs
    if node.inputs[0].dtype == result.dtype and not any(result is output for output in graph.outputs):
        onnx_ir.convenience.replace_all_uses_with(result, node.inputs[0])


def _constant(graph: Any, array: Any) -> Any:
    import onnx_ir

    name = f"size:{len(graph.initializers)}"
    tensor = onnx_ir.tensor(array, name=name)
    shape, type_ = onnx_ir.Shape(array.shape), onnx_ir.TensorType(tensor.dtype)
    value = onnx_ir.Value(name=name, shape=shape, type=type_, const_value=tensor)
    graph.register_initializer(value)
    return value


def _rename(model: Any, input: str, outputs: Sequence[str], weights: Collection[str]) -> None:
    """Give every value a name of its own.

    Inputs and outputs get those asked for, weights keep theirs, other constants and values are called after the
    nodes that read and make them. No task and no weight has a colon in its name, so nothing collides.
    """
    graph = model.graph
    ends = {id(value) for value in (*graph.inputs, *graph.outputs)}
    counts: dict[str, int] = {}
    named: set[int] = set()
    layers: dict[int, tuple[int, str]] = {}  # of values: the place of the node that makes it, and its layer
    for place, node in enumerate(graph.all_nodes()):
        made = [layers[id(value)] for value in node.inputs if id(value) in layers]
        layer = _layer(node) or max(made, default=(0, ""))[1]
        layers.update((id(value), (place, layer)) for value in node.outputs)
        node.name = _unique(f"{layer}/{node.op_type}" if layer else node.op_type, counts)
        for position, value in enumerate(node.inputs):
            if value is not None and value.is_initializer() and id(value) not in named:
                named.add(id(value))
                if value.name not in weights:
                    value.name = f"{node.name}:in{position}"
                elif value.name in (input, *outputs):
                    value.name = f"{value.name}:weight"
        for position, value in enumerate(node.outputs):
            if id(value) not in ends:
                value.name = f"{node.name}:{position}"
    for value, name in zip((*graph.inputs, *graph.outputs), (input, *outputs), strict=True):
        value.name = name


def _layer(node: Any) -> str:
    """The layer that a node belongs to; "" for one outside of layers."""
    found = re.findall(r"'([^']*)'", node.metadata_props.get(SCOPES, ""))
    layer = found[-2] if len(found) > 1 else ""
    return "" if layer.startswith("_") else layer


def _unique(name: str, counts: dict[str, int]) -> str:
    counts[name] = counts.get(name, 0) + 1
    return name if counts[name] == 1 else f"{name}_{counts[name]}"


def _name_batch(model: Any) -> None:
    """Replace the exporter's symbol for the batch size by its name, wherever a shape mentions it."""
    import onnx_ir

    (image,) = model.graph.inputs
    symbol = getattr(image.shape[0], "value", None)
    if symbol is None:
        return
    pattern = re.compile(rf"\b{re.escape(symbol)}\b")
    for value in _values(model):
        names = [getattr(size, "value", size) for size in value.shape or ()]
        if any(isinstance(name, str) for name in names):
            value.shape = onnx_ir.Shape([pattern.sub(BATCH, name) if isinstance(name, str) else name for name in names])


def _drop_notes(model: Any) -> None:
    model.graph.metadata_props.clear()
    model.graph.doc_string = None
    model.doc_string = None
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
    for value in _values(model):
        value.metadata_props.clear()
        value.doc_string = None


def _values(model: Any) -> Iterator[Any]:
    seen: set[int] = set()
    groups = [
        model.graph.inputs,
        model.graph.initializers.values(),
        *(node.outputs for node in model.graph.all_nodes()),
    ]
    for group in (*groups, model.graph.outputs):
        for value in group:
            if id(value) not in seen:
                seen.add(id(value))
                yield value
