"""Write an ONNX file as OpenVINO's own format, which devices load faster and without a reader of ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gatedeploy.errors import CheckError, MissingExtraError, first_line
from gatedeploy.exporters.manifest import Engine
from gatedeploy.runners.base import TensorSpec, picture_of
from gatedeploy.runners.openvino_model import read_model
from gatedeploy.specs import InputSpec


def build_openvino(model: Path, path: Path, input: InputSpec, outputs: Sequence[TensorSpec]) -> Engine:
    """Write `path` (`.xml`, the graph) and, beside it, its weights (`.bin`), in the precision of the ONNX file.

    Args:
        model: the ONNX file.
        path: the graph.
        input: the picture.
        outputs: what the network returns, in order.

    Raises:
        MissingExtraError: openvino is not installed.
        CheckError: it does not take the file.
    """
    try:
        import openvino
    except ImportError:
        raise MissingExtraError("the format openvino", "openvino", "openvino") from None
    try:
        network = read_model(openvino.Core(), model)
        openvino.save_model(network, path, compress_to_fp16=False)
    except RuntimeError as error:
        raise CheckError(f"{model.name}: openvino cannot take it: {first_line(error)}") from error
    return Engine("openvino", openvino.__version__.partition("-")[0], (), None, (picture_of(input),), tuple(outputs))
