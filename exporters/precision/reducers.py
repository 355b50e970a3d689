"""How the precision of an exported network is reduced, layer by layer: all of it, or all but some layers."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gatedeploy.exporters.precision.emulation import emulated
from gatedeploy.exporters.precision.fp8 import to_fp8
from gatedeploy.exporters.precision.half import to_half
from gatedeploy.exporters.precision.int8 import quantised_nodes, to_int8, with_float32
from gatedeploy.exporters.precision.samples import Samples
from gatedeploy.exporters.precision.surgery import opened
from gatedeploy.exporters.precision.table import PRECISIONS
from gatedeploy.exporters.progress import Progress
from gatedeploy.runners.base import Array
from gatedeploy.specs import InputSpec

LOOKED_AT = 8
"""How many of the pictures to calibrate by the largest values are looked for in."""

Reduce = Callable[[Collection[str]], Any]
"""Makes a network, an `onnx.ModelProto`, in which the nodes that it is given stay in float32."""


@dataclass(frozen=True)
class Reducer:
    """Makes networks of reduced precision.

    Args:
        reduce: what is deployed.
        twin: what computes the same in ONNX Runtime on a processor.
        layers: the names of the nodes that can be reduced, in order.
        never: those that could and are not, for the type does not hold their values.
        optimized: whether ONNX Runtime may optimise the twin.
    """

    reduce: Reduce
    twin: Reduce
    layers: tuple[str, ...]
    never: tuple[str, ...]
    optimized: bool = True


def half_reducer(original: Any, input: InputSpec, precision: str, samples: Samples) -> Reducer:
    """For float16 and bfloat16.

    Args:
        original: the network in float32, an `onnx.ModelProto`.
        input: the picture.
        precision: "fp16" or "bf16".
        samples: tells how large values become.
    """
    never = _out_of_range(original, input, samples, PRECISIONS[precision].largest)

    def reduce(keep: Collection[str]) -> Any:
        return to_half(original, precision, {*keep, *never})

    def twin(keep: Collection[str]) -> Any:
        return emulated(reduce(keep), precision)

    return Reducer(reduce, twin, _of_type(reduce(()), original, precision), never)


def eight_bit_reducer(
    model: Path, original: Any, input: InputSpec, precision: str, method: str, samples: Samples, progress: Progress
) -> Reducer:
    """For int8 and float8, calibrated once.

    Args:
        model: the file of `original`; the quantised network is made beside it.
        original: the network in float32, an `onnx.ModelProto`.
        input: the picture.
        precision: "int8" or "fp8".
        method: how ranges are chosen.
        samples: what they are chosen by.
        progress: is told how many pictures are looked at.
    """
    import onnx

    file = model.with_name("int8.onnx")
    try:
        to_int8(model, file, input.name, samples.calibration, method, progress)
        quantised = onnx.load(str(file))
    finally:
        file.unlink(missing_ok=True)

    def reduce(keep: Collection[str]) -> Any:
        mixed = with_float32(quantised, original, keep)
        return to_fp8(mixed, original) if precision == "fp8" else mixed

    return Reducer(reduce, reduce, tuple(quantised_nodes(quantised)), (), PRECISIONS[precision].optimized)


def _of_type(reduced: Any, original: Any, precision: str) -> tuple[str, ...]:
    """The nodes of the original network that return values of the lower type."""
    import onnx

    number = onnx.TensorProto.DataType.Value(PRECISIONS[precision].half.upper())
    low = {value.name for value in reduced.graph.value_info if value.type.tensor_type.elem_type == number}
    names = {node.name for node in original.graph.node}
    return tuple(node.name for node in reduced.graph.node if node.name in names and not low.isdisjoint(node.output))


def _out_of_range(original: Any, input: InputSpec, samples: Samples, largest: float) -> tuple[str, ...]:
    """The nodes that read or make values which the type does not hold, on real pictures or among their weights."""
    import onnx
    from onnx import numpy_helper

    peaks: dict[str, float] = {}

    def note(name: str, values: Array) -> None:
        peaks[name] = max(peaks.get(name, 0.0), float(np.abs(values).max(initial=0.0)))

    for weight in original.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT:
            note(weight.name, numpy_helper.to_array(weight))
    with opened(_telling_all(original)) as runner:
        for picture in samples.some(LOOKED_AT):
            for name, values in runner.infer({input.name: picture[None]}).items():
                note(name, values)
    return tuple(
        node.name
        for node in original.graph.node
        if any(peaks.get(name, 0.0) > largest for name in (*node.input, *node.output))
    )


def _telling_all(original: Any) -> Any:
    """A copy of the network that returns every floating-point value it computes."""
    import onnx

    probe = onnx.ModelProto()
    probe.CopyFrom(original)
    known = {value.name for value in original.graph.output}
    probe.graph.output.extend(
        value
        for value in original.graph.value_info
        if value.name not in known and value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    )
    return probe
