"""Write int8 into an ONNX file: pairs of QuantizeLinear and DequantizeLinear around what is computed in 8 bits.

Ranges come from real pictures. ONNX Runtime's own quantiser places the pairs, in the form that TensorRT takes too:
symmetric, weights channel by channel, biases left in float32.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from gatedeploy.errors import CheckError, check_known, first_line
from gatedeploy.exporters.half import DELICATE
from gatedeploy.exporters.surgery import exported, silent
from gatedeploy.runners.base import Array

METHODS = ("entropy", "min-max")
"""How a range of values is chosen: so that their distribution is told best (the Kullback-Leibler divergence, as in
TensorRT's calibration), or whole."""


def to_int8(model: Path, out: Path, image: str, pictures: Sequence[Array], method: str) -> None:
    """Write the quantised network.

    Args:
        model: the ONNX file, in float32.
        out: the quantised file.
        image: what its input is called.
        pictures: batches, (batch, channels, height, width) float32, that ranges are taken from.
        method: one of `METHODS`.

    Raises:
        InputError: no such method.
        CheckError: the quantiser does not take the network.
    """
    check_known("the calibration", method, METHODS)
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    before = logging.root.manager.disable
    logging.disable(logging.ERROR)  # it recommends steps that `tidy` has taken
    try:
        quantize_static(
            str(model),
            str(out),
            _Reader(image, pictures),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.Entropy if method == "entropy" else CalibrationMethod.MinMax,
            nodes_to_exclude=_delicate(model),
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
        )
    except Exception as error:  # the quantiser raises what numpy, onnx and onnxruntime raise
        raise CheckError(f"the network cannot be quantised: {first_line(error)}") from error
    finally:
        logging.disable(before)


def quantised_nodes(quantised: Any) -> list[str]:
    """The names of the nodes that read 8-bit values, in order; `quantised` is an `onnx.ModelProto`."""
    made = {output for node in quantised.graph.node if node.op_type == "DequantizeLinear" for output in node.output}
    return [
        node.name
        for node in quantised.graph.node
        if node.op_type != "QuantizeLinear" and any(name in made for name in node.input)
    ]


@silent()
def with_float32(quantised: Any, original: Any, keep: Collection[str]) -> Any:
    """A copy of a quantised network in which some nodes compute in float32 again.

    Args:
        quantised: what `to_int8` wrote, an `onnx.ModelProto`.
        original: what it was made of; gives the weights back.
        keep: the names of the nodes.
    """
    import onnx_graphsurgeon as gs

    graph = gs.import_onnx(quantised)
    weights = gs.import_onnx(original).tensors()
    restored: dict[str, Any] = {}
    for node in graph.nodes:
        if node.name not in keep:
            continue
        for place, value in enumerate(node.inputs):
            if not value.inputs or value.inputs[0].op != "DequantizeLinear":
                continue
            source = value.inputs[0].inputs[0]
            if source.inputs:
                node.inputs[place] = source.inputs[0].inputs[0]  # what the quantiser rounded
                continue
            name = source.name.removesuffix("_quantized")
            if name not in restored:
                restored[name] = gs.Constant(name, weights[name].values)
            node.inputs[place] = restored[name]
    graph.cleanup()
    return exported(gs, graph, quantised)


class _Reader:
    """Pictures, in the form in which ONNX Runtime's calibration asks for them."""

    def __init__(self, image: str, pictures: Sequence[Array]) -> None:
        self._image, self._pictures = image, pictures
        self.rewind()

    def get_next(self) -> dict[str, Array] | None:
        return next(self._feeds, None)

    def rewind(self) -> None:
        self._feeds: Iterator[dict[str, Array]] = ({self._image: batch} for batch in self._pictures)


def _delicate(model: Path) -> list[str]:
    import onnx

    return [node.name for node in onnx.load(model, load_external_data=False).graph.node if node.op_type in DELICATE]
