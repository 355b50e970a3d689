"""What a program costs by its shapes: multiply-adds and parameters, operator by operator."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from gatedeploy.graph.operators_mixing import CONVOLUTIONS, TRANSPOSED
from gatedeploy.program import Program
from gatedeploy.shapes import entries, shapes_of

aten = torch.ops.aten


@dataclass(frozen=True)
class Cost:
    """Multiply-adds of convolutions and linear layers for one picture (1 MAC = one multiply-add), and parameters."""

    macs: int
    params: int


def cost(program: Program) -> Cost:
    """Count `program` for one picture. A parameter that several calls read counts once."""
    shapes = shapes_of(program)
    macs = sum(macs_of(node, shapes) for node in program.graph.nodes if node.op == "call_function")
    return Cost(macs, sum(program.weights[name].numel() for name in program.trainable))


def macs_of(node: fx.Node, shapes: dict[Any, Any]) -> int:
    """Multiply-adds of one call for one picture; 0 for all but convolutions and linear layers."""
    packet = getattr(node.target, "overloadpacket", None)
    if packet in (*CONVOLUTIONS, *TRANSPOSED, aten.convolution):
        transposed = packet in TRANSPOSED or (packet is aten.convolution and bool(node.args[6]))
        # Each entry of a convolution's output (of a transposed one's input) meets one slice of the weight.
        met = shapes[node.args[0]] if transposed else shapes[node]
        return entries(met) * int(math.prod(shapes[node.args[1]][1:]))
    if packet is aten.linear:
        return entries(shapes[node]) * int(shapes[node.args[1]][-1])
    return 0
