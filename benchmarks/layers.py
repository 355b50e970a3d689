"""Where a network's time and its multiply-adds go, layer by layer, as ONNX Runtime tells.

The runtime joins operators and moves data into an order of its own. What it tells is named after the values that are
made, and those after layers (see `gatedeploy.exporters.onnx_graph`); what it put in itself counts to the layer before.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gatedeploy.runners.base import Array

KERNEL = "_kernel_time"
RUNS, WARM_UP = 30, 5


@dataclass(frozen=True)
class Layer:
    """A layer of a network, with what follows it.

    Args:
        name: as the network calls it.
        macs: multiply-adds.
        milliseconds: of its kernels, the median over some requests each.
        moving: how many of these milliseconds go into operators that only move data.
    """

    name: str
    macs: int
    milliseconds: float
    moving: float


MOVING = tuple("ReorderInput ReorderOutput Concat Slice Gather Transpose Reshape Split Expand Pad".split())
"""Operators of ONNX Runtime that compute nothing."""


def shares(layers: Sequence[Layer]) -> list[tuple[float, float]]:
    """Of each layer, its share in [0, 1] of all time and of all multiply-adds."""
    time = max(sum(each.milliseconds for each in layers), 1e-9)
    macs = max(sum(each.macs for each in layers), 1)
    return [(each.milliseconds / time, each.macs / macs) for each in layers]


def profile(file: Path, image: Array, threads: int) -> list[Layer]:
    """Run an ONNX file in ONNX Runtime and tell what each layer takes, in the order in which they run.

    Args:
        file: as `export_onnx` writes it.
        image: what is asked about, `(1, channels, height, width)`.
        threads: of a request.
    """
    macs = macs_by_layer(file)
    times: dict[str, float] = defaultdict(float)
    moving: dict[str, float] = defaultdict(float)
    last = ""
    for name, operator, milliseconds in _kernels(file, image, threads):
        last = _layer(name) or last
        times[last] += milliseconds
        if operator in MOVING:
            moving[last] += milliseconds
    return [Layer(name, macs.get(name, 0), spent, moving[name]) for name, spent in times.items()]


def macs_by_layer(file: Path) -> dict[str, int]:
    """Multiply-adds of the convolutions and linear layers in an ONNX file, by layer, for one picture."""
    import onnx

    model = onnx.load(str(file))
    for port in model.graph.input:
        port.type.tensor_type.shape.dim[0].dim_value = 1
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = {weight.name: list(weight.dims) for weight in inferred.initializer}
    for value in (*inferred.value_info, *inferred.output):
        shapes[value.name] = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
    found: dict[str, int] = defaultdict(int)
    for node in inferred.node:
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            found[_layer(node.name)] += _macs(node, shapes)
    return dict(found)


def _macs(node: Any, shapes: dict[str, list[int]]) -> int:
    made, weight = shapes.get(node.output[0], []), shapes.get(node.input[1], [])
    if node.op_type == "Conv":
        return math.prod(made) * math.prod(weight[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(shapes.get(node.input[0], [])) * math.prod(weight[1:])
    turned = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return math.prod(made) * (weight[-1 if turned else -2] if len(weight) > 1 else 0)


def _kernels(file: Path, image: Array, threads: int) -> Iterator[tuple[str, str, float]]:
    """Name, operator and milliseconds of each kernel, in the order in which they run."""
    import onnxruntime

    with tempfile.TemporaryDirectory(prefix="gatedeploy-profile-") as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        feed = {port.name: image for port in session.get_inputs()}
        for _ in range(WARM_UP + RUNS):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    spent: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(KERNEL):
            spent[event["name"].removesuffix(KERNEL), event["args"]["op_name"]].append(event["dur"] / 1e3)
    for (name, operator), taken in spent.items():
        yield name, operator, _settled(taken)


def _settled(taken: Sequence[float]) -> float:
    return float(np.median(taken[WARM_UP:] or taken))


def _layer(name: str) -> str:
    """The layer that a node or value is called after; "" for what the runtime put in."""
    layer, slash, _ = name.partition("/")
    return layer if slash else ""
