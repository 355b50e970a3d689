"""Read a network as a `Program`, through `torch.export`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from gatedeploy.errors import InputError
from gatedeploy.program import Program
from gatedeploy.specs import InputSpec

aten = torch.ops.aten
CHECKS = (
    *(aten._assert_tensor_metadata.default, aten._assert_scalar.default, aten.sym_constrain_range_for_size.default),
    torch.sym_not,
)
"""What export inserts to guard its assumptions; a program states them in its input spec instead."""

IDENTITIES = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
"""Return their very input in evaluation mode, though their schemas do not say so."""


def capture(module: nn.Module, example_input: Tensor, spec: InputSpec | None = None) -> Program:
    """The evaluation-mode program of `module`, with a free batch size.

    Args:
        module: takes one picture and returns a dict of predictions.
        example_input: (batch, channels, height, width); any batch size.
        spec: what the picture is; made from the example when None.

    Raises:
        InputError: the network cannot be exported, fixes its batch size, or does not return a dict.
    """
    if example_input.ndim != 4:
        raise InputError(f"example input: expected (batch, channels, height, width), got {tuple(example_input.shape)}")
    spec = spec or InputSpec(*example_input.shape[1:])
    # A batch of 1 would be taken for a constant.
    example = torch.cat([example_input, example_input]) if len(example_input) == 1 else example_input
    modes = [(part, part.training) for part in module.modules()]
    try:
        exported = torch.export.export(
            module.eval(), (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},), strict=False
        )
        if any(_writes(node) and not _harmless(node) for node in exported.graph.nodes):
            exported = exported.run_decompositions({})
    except Exception as error:  # the user's own code runs in here
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InputError(f"{type(module).__name__} cannot be exported with a free batch size: {reason}") from error
    finally:
        for part, mode in modes:
            part.training = mode
    return _program(exported, spec, type(module).__name__)


def _writes(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _harmless(node: fx.Node) -> bool:
    """Whether `node` writes into a fresh tensor that nobody else sees, before or after.

    Then the in-place operator says the same as its plain form, and export's general rewriting, which takes longer
    than the export itself, can be left out.
    """
    written: Any = node.args[0]
    schema = getattr(written.target, "_schema", None)
    if schema is None or len(written.users) > 1 or _plain(node) is None:
        return False
    if _writes(written):
        return _harmless(written)
    return _packet(written.target) not in IDENTITIES and all(result.alias_info is None for result in schema.returns)


def _plain(node: fx.Node) -> Any:
    """The functional overload of an in-place one, None where there is none."""
    packet, _, overload = str(node.target).removeprefix("aten.").partition(".")
    return getattr(getattr(aten, packet.removesuffix("_"), None), overload, None)


def _program(exported: torch.export.ExportedProgram, spec: InputSpec, name: str) -> Program:
    names = {item.arg.name: item for item in exported.graph_signature.input_specs}
    state = {**exported.state_dict, **exported.constants}
    graph = fx.Graph()
    values: dict[fx.Node, Any] = {}
    used: dict[str, Tensor] = {}
    for node in exported.graph.nodes:
        if node.op == "placeholder" and names[node.name].kind == InputKind.USER_INPUT:
            values[node] = graph.placeholder(spec.name)
            batch = graph.call_function(aten.sym_size.int, (values[node], 0))
            symbol = node.meta["val"].shape[0].node.expr
        elif node.op == "placeholder":
            if node.users:
                target = names[node.name].target
                values[node] = graph.get_attr(target)
                used[target] = state[target].detach()
        elif node.op == "output":
            _write_output(graph, node, values, exported.call_spec.out_spec, name)
        elif node.target in CHECKS:
            continue
        elif _is_batch(node, symbol):
            values[node] = batch
        else:
            values[node] = _call(graph, node, values)
    _erase_unread(graph)
    graph.lint()
    parameters = set(exported.graph_signature.parameters)
    return Program(graph, used, frozenset(parameters & set(used)), spec)


def _is_batch(node: fx.Node, symbol: Any) -> bool:
    """Whether the value is the batch size, whatever tensor it was read from."""
    value = node.meta.get("val")
    return isinstance(value, torch.SymInt) and value.node.expr == symbol


def _call(graph: fx.Graph, node: fx.Node, values: dict[fx.Node, Any]) -> fx.Node:
    target: Any = _plain(node) if _writes(node) else node.target
    kwargs = {key: value for key, value in node.kwargs.items() if key not in ("device", "pin_memory", "layout")}
    args, kwargs = fx.map_arg((node.args, kwargs), values.__getitem__)
    return graph.create_node("call_function", target, args, kwargs, name=node.name)


def _packet(target: Any) -> str:
    return str(getattr(target, "overloadpacket", target)).rpartition(".")[2]


def _write_output(graph: fx.Graph, node: fx.Node, values: dict[fx.Node, Any], spec: Any, name: str) -> None:
    found: Any = node.args[0]
    structure = pytree.tree_unflatten([values.get(leaf) for leaf in found], spec)
    if not isinstance(structure, dict):
        raise InputError(f"{name} returns a {type(structure).__name__}; expected a dict of predictions by task")
    graph.output(structure)


def _erase_unread(graph: fx.Graph) -> None:
    for node in reversed(list(graph.nodes)):
        if not node.users and node.op in ("call_function", "get_attr"):
            graph.erase_node(node)
