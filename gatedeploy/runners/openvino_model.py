"""Read a network for OpenVINO, and mend what it would get wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gatedeploy.modes import mute

SHIFT = 128
"""What a signed byte becomes an unsigned one by."""


def read_model(core: Any, path: Path) -> Any:
    """The network in a file, an `openvino.Model` that computes what the file says.

    OpenVINO computes with unsigned bytes: it turns signed ones into them and tells the layers that read them of their
    zero point, 128. Where the values of a concatenation are rounded it forgets to (2026.4), and such a layer is off by
    a third of its scale. So the zero points are written out here, where they are kept; the numbers are the same.

    Args:
        core: an `openvino.Core`.
        path: an ONNX file or OpenVINO's own.

    Raises:
        RuntimeError: OpenVINO's, for a file that it cannot read.
    """
    import openvino
    from openvino import opset13 as ops

    with mute():  # a file that is no network is offered to readers of everything, which tell what they miss in it
        model = core.read_model(path)
    for signed in model.get_ordered_ops():
        if signed.get_type_name() != "Convert" or signed.get_output_element_type(0) != openvino.Type.i8:
            continue
        rounding = signed.input_value(0).get_node()
        readers = [port.get_node() for port in signed.output(0).get_target_inputs()]
        if rounding.get_type_name() != "FakeQuantize" or any(reader.get_type_name() != "Convert" for reader in readers):
            continue
        kind = rounding.get_output_element_type(0)
        for place, bound in ((3, 0), (4, 255)):  # the lowest and the highest value that it rounds to
            rounding.input(place).replace_source_output(ops.constant(bound, kind).output(0))
        unsigned = ops.convert(rounding, "u8")
        for reader in readers:
            number = ops.convert(unsigned, reader.get_output_element_type(0).to_string())
            reader.output(0).replace(ops.subtract(number, ops.constant(SHIFT, kind)).output(0))
    model.validate_nodes_and_infer_types()
    return model
