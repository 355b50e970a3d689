"""Read a program as a channel graph."""

from __future__ import annotations

import operator
from typing import Any

from torch import fx

from gatedeploy.graph import operators, operators_mixing, operators_shape  # noqa: F401  they fill the table of rules
from gatedeploy.graph.channels import ChannelGraph, Value
from gatedeploy.graph.rules import RULES, Call
from gatedeploy.program import Program
from gatedeploy.shapes import shapes_of


def channel_graph(program: Program) -> ChannelGraph:
    """The channel graph of `program`, nothing resolved, shared or pruned yet.

    Raises:
        InputError: the network is not deterministic in evaluation mode.
    """
    graph = ChannelGraph(program.weights, program.trainable, program.input)
    shapes = shapes_of(program)
    values: dict[fx.Node, Any] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder":
            values[node] = graph.image = graph.new(program.input.channels, 1, 1, shapes[node])
        elif node.op == "get_attr":
            values[node] = graph.weight(str(node.target), None)
        elif node.op == "output":
            graph.outputs = fx.map_arg(node.args[0], values.__getitem__)
        elif node.target is operator.getitem:
            values[node] = values[node.args[0]][node.args[1]]
        else:
            values[node] = _call(graph, node, values, shapes)
    return graph


def _call(graph: ChannelGraph, node: fx.Node, values: dict[fx.Node, Any], shapes: dict[fx.Node, Any]) -> Value:
    call = Call(graph, node, values, shapes)
    packet = getattr(node.target, "overloadpacket", None)
    if packet in RULES:
        # A tensor without entries has no channels that a rule could follow.
        result: Value = call.barrier() if call.reads_empty() else RULES[packet](call)
        return result
    return call.barrier()
