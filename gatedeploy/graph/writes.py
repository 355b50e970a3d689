"""In-place operators in exported graphs: which may be taken for their plain forms, and which are to be rewritten.

What shares memory is seen in the fake tensors that export leaves in its nodes; the schemas of some operators conceal
it (an einsum may return a view).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container
from typing import Any

import torch
from torch import Tensor, fx

from gatedeploy.errors import InputError

aten = torch.ops.aten
IDENTITIES = (aten.dropout, aten.feature_dropout, aten.alpha_dropout, aten.feature_alpha_dropout)
"""Return their very input in evaluation mode, though neither their schemas nor their fake tensors say so."""


def needs_rewriting(graph: fx.Graph) -> bool:
    """Whether export's general rewriting must run, which takes longer than the export itself.

    It resolves in-place operators whose effect others see, and blocks of another mode, which are graphs in the graph.
    """
    fresh = {names[0] for names in _names_by_memory(graph).values()}
    return any(node.op == "get_attr" or (writes(node) and not _harmless(node, fresh)) for node in graph.nodes)


def writes(node: fx.Node) -> bool:
    """Whether `node` calls an in-place operator."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def plain(node: fx.Node) -> Any:
    """The functional overload of an in-place one, None where there is none."""
    packet, _, overload = str(node.target).removeprefix("aten.").partition(".")
    return getattr(getattr(aten, packet.removesuffix("_"), None), overload, None)


def refuse_lost_writes(graph: fx.Graph) -> None:
    """Raise `InputError` where an in-place operator changes a value under a name that the rewriting does not know.

    The rewriting believes schemas. So when an operator conceals that it returns its input, what is written into the
    result would not be seen by those who read the input afterwards.
    """
    order = {node: position for position, node in enumerate(graph.nodes)}
    for names in _names_by_memory(graph).values():
        for write in filter(writes, names):
            before = [name for name in names if order[name] < order[write]]
            concealing = [name for name in before if _conceals(name, before)]
            others = {user for name in before for user in name.users if name is not write.args[0]}
            if concealing and any(order[user] > order[write] for user in others):
                raise InputError(
                    f"{write.name} writes in place into memory that {concealing[0].name} has in common with its "
                    "input, and both names are read; replace the in-place operator by its plain form"
                )


def _names_by_memory(graph: fx.Graph) -> dict[int, list[fx.Node]]:
    """The nodes whose tensors lie in the same memory, in order; the first of them made it."""
    memory: dict[fx.Node, int] = {}
    for node in graph.nodes:
        value = node.meta.get("val")
        same = writes(node) or getattr(node.target, "overloadpacket", None) in IDENTITIES
        if same and node.all_input_nodes[0] in memory:
            memory[node] = memory[node.all_input_nodes[0]]
        elif isinstance(value, Tensor):
            memory[node] = value.untyped_storage()._cdata
    names: dict[int, list[fx.Node]] = defaultdict(list)
    for node, place in memory.items():
        names[place].append(node)
    return names


def _harmless(node: fx.Node, fresh: Container[fx.Node]) -> bool:
    """Whether `node` writes into a fresh tensor that nobody else sees, before or after."""
    written = node.args[0]
    if not isinstance(written, fx.Node) or written.op != "call_function" or len(written.users) > 1 or not plain(node):
        return False
    return _harmless(written, fresh) if writes(written) else written in fresh


def _conceals(node: fx.Node, names: Container[fx.Node]) -> bool:
    """Whether `node` returns an input of its own, one of `names`, without its schema saying so."""
    schema = getattr(node.target, "_schema", None)
    declared = schema is None or any(result.alias_info is not None for result in schema.returns)
    return not declared and any(other in names for other in node.all_input_nodes)
