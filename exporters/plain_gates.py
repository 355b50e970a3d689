"""Write a gated network with everybody's operators, so that it exports and runs as it was trained."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import fx

from gatedeploy.gating.operators import BLEND, MIX, SELECT
from gatedeploy.program import Program
from gatedeploy.shapes import shapes_of

aten = torch.ops.aten


def plain_gates(program: Program) -> Program:
    """The same network with its gates spelled out in ATen operators; nothing is cut away.

    This is how gated networks run where nobody collapses them: all T+1 branches are computed, then

    1. a select becomes `where(α > 0, φ, ψ)`, α repeated for the channels of its group (InterroGate eq. 2), and
    2. a mix becomes `Σ_t softmax(β)_t · φ'_t` (eq. 3), and
    3. a soft gate becomes `w·φ + (1 − w)·ψ` (Safe MTL eq. 1).

    α, β and w stay weights under their names. A program without gates is returned as it is, in a graph of its own.
    """
    shapes = shapes_of(program)
    graph = fx.Graph()
    values: dict[Any, Any] = {}
    for node in program.graph.nodes:
        if node.target is SELECT:
            values[node] = _select(graph, fx.map_arg(node.args, values.__getitem__), shapes[node])
        elif node.target is MIX:
            values[node] = _mix(graph, fx.map_arg(node.args, values.__getitem__), shapes[node])
        elif node.target is BLEND:
            values[node] = _blend(graph, fx.map_arg(node.args, values.__getitem__), shapes[node])
        elif node.op != "output":
            values[node] = graph.node_copy(node, values.__getitem__)
    graph.output(fx.map_arg(program.outputs, values.__getitem__))
    graph.lint()
    return replace(program, graph=graph)


def _select(graph: fx.Graph, args: Any, shape: tuple[int, ...]) -> fx.Node:
    specific, shared, gate_logits, group, axis = args
    channels = shape[axis]
    chosen = graph.call_function(aten.gt.Scalar, (gate_logits, 0))
    if 1 < group < channels:
        groups = -(-channels // group)
        chosen = graph.call_function(aten.unsqueeze.default, (chosen, 1))
        chosen = graph.call_function(aten.expand.default, (chosen, [groups, group]))
        chosen = graph.call_function(aten.reshape.default, (chosen, [groups * group]))
        chosen = graph.call_function(aten.slice.Tensor, (chosen, 0, 0, channels))
    return graph.call_function(aten.where.self, (_along(graph, chosen, axis, len(shape)), specific, shared))


def _blend(graph: fx.Graph, args: Any, shape: tuple[int, ...]) -> fx.Node:
    specific, shared, weight, axis = args
    own = _along(graph, weight, axis, len(shape))
    rest = graph.call_function(aten.rsub.Scalar, (own, 1))
    parts = [
        graph.call_function(aten.mul.Tensor, (feature, part)) for feature, part in ((specific, own), (shared, rest))
    ]
    return graph.call_function(aten.add.Tensor, tuple(parts))


def _mix(graph: fx.Graph, args: Any, shape: tuple[int, ...]) -> fx.Node:
    features, mix_logits, axis = args
    shares = graph.call_function(aten.softmax.int, (mix_logits, 0))
    mixed: fx.Node | None = None
    for task, feature in enumerate(features):
        share = graph.call_function(aten.select.int, (shares, 0, task))
        part = graph.call_function(aten.mul.Tensor, (feature, _along(graph, share, axis, len(shape))))
        mixed = part if mixed is None else graph.call_function(aten.add.Tensor, (mixed, part))
    assert mixed is not None
    return mixed


def _along(graph: fx.Graph, values: fx.Node, axis: int, ndim: int) -> fx.Node:
    """Shape one value per channel, or one for all, so that it broadcasts along `axis`."""
    sizes = [1] * ndim
    sizes[axis] = -1
    return graph.call_function(aten.reshape.default, (values, sizes))
