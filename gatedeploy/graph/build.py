"""Read a program as a channel graph."""

from __future__ import annotations

import operator
from typing import Any

from torch import fx

# They fill the tables of rules.
from gatedeploy.graph import (  # noqa: F401
    operators,
    operators_attention,
    operators_mixing,
    operators_parts,
    operators_shape,
    operators_spread,
)
from gatedeploy.graph.channels import ChannelGraph, Value
from gatedeploy.graph.rules import RULES, SPREAD_RULES, Call
from gatedeploy.graph.spread import Spread
from gatedeploy.program import Program
from gatedeploy.shapes import shapes_of


def channel_graph(program: Program) -> ChannelGraph:
    """The channel graph of `program`, nothing resolved, shared or pruned yet.

    Raises:
        InputError: the network is not deterministic in evaluation mode.
    """
    return _Reader(program).read()


class _Reader:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.graph = ChannelGraph(program.weights, program.trainable, program.input)
        self.shapes = shapes_of(program)
        self.values: dict[fx.Node, Any] = {}
        self.settled: dict[fx.Node, Value] = {}

    def read(self) -> ChannelGraph:
        graph, values = self.graph, self.values
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                values[node] = graph.image = graph.new(self.program.input.channels, 1, 1, self.shapes[node])
            elif node.op == "get_attr":
                values[node] = graph.weight(str(node.target), None)
            elif node.op == "output":
                graph.outputs = fx.map_arg(node.args[0], self._as_value)
            elif node.target is operator.getitem:
                values[node] = values[node.args[0]][node.args[1]]
            else:
                values[node] = self._call(node)
        return graph

    def _call(self, node: fx.Node) -> Any:
        packet = getattr(node.target, "overloadpacket", None)
        if packet in SPREAD_RULES and isinstance(self.values.get(node.all_input_nodes[0]), Spread):
            moved = SPREAD_RULES[packet](Call(self.graph, node, self.values, self.shapes))
            if moved is not None:
                return moved
        values = {other: self._as_value(other) for other in node.all_input_nodes}
        call = Call(self.graph, node, values, self.shapes)
        # A tensor without entries has no channels that a rule could follow.
        known = packet in RULES and not call.reads_empty()
        return RULES[packet](call) if known else call.barrier()

    def _as_value(self, node: fx.Node) -> Any:
        value = self.values[node]
        if not isinstance(value, Spread):
            return value
        if node not in self.settled:
            self.settled[node] = value.settled(self.graph)
        return self.settled[node]
