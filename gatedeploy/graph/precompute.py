"""Compute once what depends on no picture: standardised weights, tables of relative positions, masks of windows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from gatedeploy.program import Evaluation, Program, arguments_of, weight_name
from gatedeploy.randomness import draws
from gatedeploy.shapes import depends_on_batch, shapes_of

aten = torch.ops.aten
FILLED = {aten.new_zeros: 0, aten.zeros_like: 0, aten.new_ones: 1, aten.ones_like: 1}
"""What these make does not depend on the numbers that they are given."""

MAX_ENTRIES = 1 << 20
"""Larger tensors become weights only where as many numbers went in, so that no weight is stored expanded."""


def precomputed(program: Program) -> Program:
    """`program` with each tensor that is computed from weights alone a weight, in float64.

    It is trainable where something that it was computed from is.
    """
    shapes_of(program)  # the nodes that are copied keep theirs
    values = _values(program)
    if not values:
        return program
    graph, weights, trainable = fx.Graph(), dict(program.weights), set(program.trainable)
    copies: dict[fx.Node, fx.Node] = {}
    for node in program.graph.nodes:
        if node.op != "output" and all(user in values for user in node.users):
            continue
        if node in values:
            name = weight_name(node.name, weights)
            weights[name] = values[node].contiguous()
            if weights[name].is_floating_point() and _reads(node) & program.trainable:
                trainable.add(name)
            copies[node] = graph.get_attr(name)
            copies[node].meta["shape"] = node.meta["shape"]
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    read = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    kept = {name: weight for name, weight in weights.items() if name in read}
    return Program(graph, kept, frozenset(trainable & read), program.input)


@torch.no_grad()
def _values(program: Program) -> dict[fx.Node, Any]:
    """What is computed from weights alone."""
    run = Evaluation(program, torch.float64)
    values: dict[fx.Node, Any] = {}

    def value(node: fx.Node) -> Any:
        return values[node] if node in values else run.get_attr(node.target, (), {})

    for node in program.graph.nodes:
        if _is_filled(node):
            dtype = torch.float64 if node.meta["dtype"].is_floating_point else node.meta["dtype"]
            values[node] = torch.full(node.meta["shape"], FILLED[node.target.overloadpacket], dtype=dtype)
        known = all(other.op == "get_attr" or other in values for other in node.all_input_nodes)
        if known and node.op == "call_function" and not _is_kept(node):
            args, kwargs = fx.map_arg((node.args, node.kwargs), value)
            values[node] = run.call_function(node.target, args, kwargs)
    for node in reversed(program.graph.nodes):
        read = node in values and not all(user in values for user in node.users)
        if read and not _can_be_weight(values[node], sum(program.weights[name].numel() for name in _reads(node))):
            del values[node]
    return values


def _can_be_weight(made: Any, entries: int) -> bool:
    """Whether it is a tensor of real numbers, and of no more than it was computed from, unless these are few."""
    return isinstance(made, Tensor) and not made.is_complex() and made.numel() <= max(MAX_ENTRIES, entries)


def _is_filled(node: fx.Node) -> bool:
    """Whether it is zeros or ones, of a shape that does not depend on the batch."""
    filled = getattr(node.target, "overloadpacket", None) in FILLED
    return filled and not any(depends_on_batch(size) for size in node.meta["shape"])


def _is_kept(node: fx.Node) -> bool:
    """Gates are resolved, not computed; and what draws numbers is refused later."""
    return getattr(node.target, "namespace", "") == "gatedeploy" or draws(node.target, arguments_of(node))


def _reads(node: fx.Node) -> set[str]:
    """The weights that it is computed from."""
    found, waiting = {node}, [node]
    while waiting:
        before = set(waiting.pop().all_input_nodes) - found
        found |= before
        waiting.extend(before)
    return {str(other.target) for other in found if other.op == "get_attr"}
