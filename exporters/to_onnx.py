"""Write a plain network as ONNX."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from gatedeploy.artifact import ModelInfo
from gatedeploy.compiler import Collapsed
from gatedeploy.errors import CheckError, InputError, first_line, located
from gatedeploy.exporters.core_forms import in_core_forms
from gatedeploy.exporters.onnx_graph import describe, tidy
from gatedeploy.files import replacing_file
from gatedeploy.modes import evaluating, quiet
from gatedeploy.program import flat_predictions
from gatedeploy.runners.base import BATCH
from gatedeploy.specs import InputSpec

OPSET = 20
EXTERNAL_DATA_ABOVE = 1_800_000_000
"""Bytes of weights up to which the file holds them itself; protobuf ends at 2 GiB."""

EXTERNAL_DATA_SUFFIX = ".data"


def export_onnx(network: nn.Module, info: ModelInfo, path: Path | str, *, opset: int = OPSET) -> None:
    """Write `network` as an ONNX file of operators of the default domain, with a free batch size.

    The input is called `info.input.name` and is float32 `(batch, channels, height, width)`. Every output is float32,
    `(batch, …)`, and is called as its task, or `task_0`, `task_1`, … where a task predicts several tensors. Nodes are
    called after the layers they come from. Tasks, class names and preprocessing stand in the file's metadata. The
    batch was 2 while the network was traced.

    Args:
        network: a `Collapsed` network, or any module that takes one picture and returns a dict of predictions; it is
            exported in evaluation mode and float32. Gates are not plain: see `plain_gates`.
        info: the input, and what is known about the tasks.
        path: the file, complete when it appears. Above `EXTERNAL_DATA_ABOVE` bytes the weights stand in a second file
            beside it, `<name>.data`.
        opset: version of ONNX's operators.

    Raises:
        InputError: the network cannot be exported; the message names operator and layer.
        CheckError: the file is not valid ONNX.
    """
    path = Path(path)
    plain = network.network if isinstance(network, Collapsed) else network
    exported = _trace(plain, info.input)
    outputs = _output_names(exported, info)
    try:
        model = _convert(in_core_forms(exported), opset)
    except InputError:
        exported = _trace(plain, info.input)
        model = _convert(exported, opset)
    tidy(model, info.input.name, outputs, {*exported.state_dict, *exported.constants})
    describe(model, info)
    _check_interface(model, info.input)
    write_model(model, path)


def check_onnx(path: Path) -> None:
    """Raise `CheckError` unless the file is valid ONNX whose shapes agree throughout."""
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:  # the checker's and shape inference's own types, and protobuf's
        raise CheckError(f"not valid ONNX: {first_line(error)}") from error


def _trace(network: nn.Module, spec: InputSpec) -> torch.export.ExportedProgram:
    """The network in evaluation mode and float32, through `torch.export`."""
    other = any(weight.is_floating_point() and weight.dtype != torch.float32 for weight in _weights(network))
    if other or any(weight.device.type != "cpu" for weight in _weights(network)):
        import copy

        network = copy.deepcopy(network).cpu().float()
    try:
        with evaluating(network), quiet(), torch.no_grad():
            return torch.export.export(
                network,
                (torch.zeros(2, *spec.shape),),
                dynamic_shapes=({0: torch.export.Dim(BATCH, min=1)},),
                strict=False,
            )
    except Exception as error:  # the user's own code runs in here
        raise InputError(
            f"{type(network).__name__} cannot be exported for pictures of {spec.shape} with a free batch size: "
            f"{first_line(error)}"
        ) from error


def _weights(network: nn.Module) -> Iterator[torch.Tensor]:
    yield from network.parameters()
    yield from network.buffers()


def _output_names(exported: torch.export.ExportedProgram, info: ModelInfo) -> list[str]:
    arguments = [output.arg for output in exported.graph_signature.output_specs]
    # A tensor stands for whatever is computed; constants stand for themselves.
    leaves = [getattr(arg, "value", None) if hasattr(arg, "value") else torch.empty(0) for arg in arguments]
    predictions = flat_predictions(pytree.tree_unflatten(leaves, exported.call_spec.out_spec))
    for name, leaf in predictions.items():
        if not isinstance(leaf, torch.Tensor):
            raise InputError(f"prediction {name!r} is {leaf!r}; expected a tensor")
    if info.input.name in predictions:
        raise InputError(f"the input and a task are both called {info.input.name!r}; rename one of them")
    return list(predictions)


def _convert(exported: torch.export.ExportedProgram, opset: int) -> Any:
    try:
        with quiet(), torch.no_grad():
            # Its own optimiser takes longer than all the rest; `tidy` does what our graphs need.
            program = torch.onnx.export(exported, dynamo=True, opset_version=opset, optimize=False, verbose=False)
    except Exception as error:  # the exporter wraps whatever its translations raise
        raise InputError(_not_translated(error, exported)) from error
    assert program is not None
    return program.model


def _not_translated(error: BaseException, exported: torch.export.ExportedProgram) -> str:
    """Say which operator of which layer has no ONNX form, as far as the exporter's messages tell."""
    text = ""
    cause: BaseException | None = error
    while cause is not None:
        text += str(cause)
        cause = cause.__cause__
    operator = re.search(r"target=torch\.ops\.(\w+)\.(\w+)", text) or re.search(r"op='(\w+)\.(\w+)'", text)
    if not operator:
        return f"the network cannot be written as ONNX: {first_line(error)}"
    namespace, name = operator.groups()
    remedy = "replace that layer by one that ONNX can express"
    if namespace == "gatedeploy":
        remedy = (
            "collapse the network first, or write its gates with plain operators (gatedeploy.exporters.plain_gates)"
        )
    return f"{_layer_of(name, exported)}: ONNX has no form of the operator {namespace}::{name}; {remedy}"


def _layer_of(operator: str, exported: torch.export.ExportedProgram) -> str:
    """Where the operator is called: its layer, else the one it comes after."""
    for node in exported.graph.nodes:
        # The exporter may have named it by a simpler operator: special_bessel_j0, bessel_j0.
        if node.op == "call_function" and _same(operator, node):
            layer, near = _module_path(node), node
            while not layer and near.all_input_nodes:
                near = near.all_input_nodes[0]
                layer = _module_path(near)
            if near is node and layer:
                return f"layer {layer!r}"
            return f"after layer {layer!r}" if layer else "at the top of the network"
    return "somewhere in the network"


def _same(operator: str, node: Any) -> bool:
    name = str(getattr(node.target, "overloadpacket", node.target)).rpartition(".")[2]
    return name == operator or name.endswith(f"_{operator}") or operator.endswith(f"_{name}")


def _module_path(node: Any) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""


def _check_interface(model: Any, spec: InputSpec) -> None:
    """Raise unless input and outputs are float32 with a free batch, and all operators ONNX's own."""
    domains = {node.domain for node in model.graph.all_nodes()} - {"", "ai.onnx"}
    if domains or model.functions:
        raise CheckError(f"the exported file uses operators outside of ONNX's own: {', '.join(sorted(domains))}")
    (image,) = model.graph.inputs
    if image.dtype.name != "FLOAT" or [str(size) for size in image.shape] != [BATCH, *map(str, spec.shape)]:
        raise CheckError(
            f"the exported file's input is {image.dtype.name} {image.shape}; expected float32 {spec.shape}"
        )
    for output in model.graph.outputs:
        sizes = [size if isinstance(size, int) else str(size) for size in output.shape or ()]
        if output.dtype is None or output.dtype.name != "FLOAT":
            raise InputError(
                f"prediction {output.name!r} is {getattr(output.dtype, 'name', None)}; expected float32. Leave what "
                "follows it, such as an argmax, to whoever runs the network"
            )
        if not sizes or sizes[0] != BATCH or not all(isinstance(size, int) for size in sizes[1:]):
            raise InputError(
                f"prediction {output.name!r} has the shape ({', '.join(map(str, sizes))}); expected one entry per "
                f"picture, ({BATCH}, …), and else fixed sizes"
            )


def write_model(model: Any, path: Path) -> None:
    """Write an `onnx_ir.Model`; its weights stand in a second file where they are many.

    Raises:
        CheckError: it is not valid ONNX.
    """
    import onnx_ir

    size = sum(value.const_value.nbytes for value in model.graph.initializers.values())
    beside = f"{path.name}{EXTERNAL_DATA_SUFFIX}" if size > EXTERNAL_DATA_ABOVE else None
    with replacing_file(path) as temporary, _removed_on_error(path.with_name(beside) if beside else None):
        with quiet():
            onnx_ir.save(model, temporary, format="protobuf", external_data=beside)
        with located(str(path)):
            check_onnx(temporary)


@contextmanager
def _removed_on_error(file: Path | None) -> Iterator[None]:
    try:
        yield
    except BaseException:
        if file is not None:
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
        raise
