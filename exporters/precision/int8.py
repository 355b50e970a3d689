"""Write int8 into an ONNX file: pairs of QuantizeLinear and DequantizeLinear around what is computed in 8 bits.

Ranges come from real pictures. ONNX Runtime's own quantiser places the pairs, in the form that TensorRT takes too:
symmetric, weights channel by channel, biases left in float32.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Collection, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from gatedeploy.errors import CheckError, check_known, first_line
from gatedeploy.exporters.precision.half import DELICATE
from gatedeploy.exporters.precision.surgery import exported, silent
from gatedeploy.exporters.progress import Progress, untold
from gatedeploy.modes import quiet
from gatedeploy.runners.base import Array

METHODS = ("min-max", "entropy")
"""How a range of values is chosen: whole, or so that their distribution is told best (the Kullback-Leibler divergence,
as in TensorRT's calibration)."""


BINS = {"num_bins": 512, "num_quantized_bins": 128}
"""The histogram that entropy is taken of, and what it is rounded to: ranges from a quarter of the largest value up to
all of it are tried. The library's own 128 bins leave nothing to try."""

LARGE = 1 << 30
"""Bytes above which weights go into a second file."""


def to_int8(
    model: Path, out: Path, image: str, pictures: Sequence[Array], method: str, progress: Progress = untold
) -> None:
    """Write the quantised network.

    Args:
        model: the ONNX file, in float32.
        out: the quantised file.
        image: what its input is called.
        pictures: batches, (batch, channels, height, width) float32, that ranges are taken from.
        method: one of `METHODS`.
        progress: is told how many pictures are looked at.

    Raises:
        InputError: no such method.
        CheckError: the quantiser does not take the network.
    """
    check_known("the calibration", method, METHODS)
    try:
        # The library prints how far it is, and recommends steps that `tidy` has taken.
        with quiet(), redirect_stdout(io.StringIO()):
            _quantise(model, out, _ranges(model, image, pictures, method, progress))
    except Exception as error:  # the quantiser raises what numpy, onnx and onnxruntime raise
        raise CheckError(f"the network cannot be quantised: {first_line(error)}") from error


def _ranges(model: Path, image: str, pictures: Sequence[Array], method: str, progress: Progress) -> Any:
    """How large every value of the network becomes."""
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    with tempfile.TemporaryDirectory(prefix="gatedeploy-") as folder:
        calibrator = create_calibrator(
            model,
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=CalibrationMethod.Entropy if method == "entropy" else CalibrationMethod.MinMax,
            use_external_data_format=model.stat().st_size > LARGE,
            extra_options={"symmetric": True, **BINS},
        )
        total = sum(map(len, pictures))
        singly = (batch[number : number + 1] for batch in pictures for number in range(len(batch)))
        for done, picture in enumerate(singly, 1):  # it keeps all values of all pictures that it is given at once
            calibrator.collect_data(_Reader(image, picture))
            progress("calibrating", done, total)
        return calibrator.compute_data()


def _quantise(model: Path, out: Path, ranges: Any) -> None:
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.quant_utils import load_model_with_shape_infer
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    network = load_model_with_shape_infer(model)
    quantizer = QDQQuantizer(
        network,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8,
        tensors_range=ranges,
        nodes_to_quantize=[],
        nodes_to_exclude=[node.name for node in network.graph.node if node.op_type in DELICATE],
        op_types_to_quantize=sorted({*QDQRegistry, *QLinearOpsRegistry}),
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
    )
    quantizer.quantize_model()
    quantizer.model.save_model_to_file(str(out), model.stat().st_size > LARGE)


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
    """A copy of a quantised network in which some nodes compute in float32 again, and whose outputs are not rounded.

    The quantiser rounds outputs too, a depth to 256 distances, though nobody computes with them in 8 bits.

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
    _leave_outputs(graph)
    graph.cleanup().toposort()
    return exported(gs, graph, original)


def _leave_outputs(graph: Any) -> None:
    """Let what the last pairs of a network round be its outputs."""
    for output in graph.outputs:
        rounding = output.inputs[0]
        if rounding.op != "DequantizeLinear":
            continue
        exact = rounding.inputs[0].inputs[0].inputs[0]
        (maker,) = exact.inputs
        rounding.outputs.clear()
        for reader in list(exact.outputs):
            reader.inputs = [output if value is exact else value for value in reader.inputs]
        maker.outputs = [output if value is exact else value for value in maker.outputs]


class _Reader:
    """One batch, in the form in which ONNX Runtime's calibration asks for pictures."""

    def __init__(self, image: str, batch: Array) -> None:
        self._feeds = iter([{image: batch}])

    def get_next(self) -> dict[str, Array] | None:
        return next(self._feeds, None)
