"""The last step: write the channel graph down as a program."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import fx

from gatedeploy.graph.channels import (
    BLEND,
    DIVIDE,
    UNITE,
    VIEW,
    ChannelGraph,
    Count,
    Need,
    Operation,
    Slot,
    Value,
    map_leaves,
)
from gatedeploy.graph.operators_mixing import is_layer
from gatedeploy.graph.prices import Prices
from gatedeploy.graph.sums import Sum
from gatedeploy.passes.constants import Constants
from gatedeploy.passes.operands import Operands, positions_in
from gatedeploy.program import IMAGE, Program

aten = torch.ops.aten


def emit(graph: ChannelGraph, prices: Prices | None = None) -> Program:
    """The program of a channel graph that has been through the passes, its floating-point weights in float64.

    Channels are cut out of a tensor by slices or gathered by index, as it is cheaper; without prices, by a few slices.
    """
    return Emitter(graph, prices).program()


class Emitter:
    """Writes operations in order, building each operand from the tensors that hold its channels.

    Args:
        graph: the channel graph.
        prices: of the runtime.
        operands: how operands are built.
    """

    def __init__(self, graph: ChannelGraph, prices: Prices | None = None, operands: type[Operands] = Operands) -> None:
        self.source = graph
        self.graph = fx.Graph()
        self.constants = Constants(graph)
        self.operands = operands(graph, self.graph, self.constants, prices)

    def program(self) -> Program:
        """What was written."""
        self.operands.hold(self.graph.placeholder(IMAGE), self.source.image)
        for operation in self.source.operations:
            self._write(operation)
        self.graph.output(map_leaves(self.source.outputs, self.operands.gather))
        self.graph.lint()
        return Program(self.graph, self.constants.weights, frozenset(self.constants.trainable), self.source.input)

    def _write(self, operation: Operation) -> None:
        if operation.target in (VIEW, UNITE):
            node = self.operands.gather(operation.operands[0].value)
        elif operation.target == DIVIDE:
            node = self._divide(operation)
        elif isinstance(operation, Sum):
            node = self._sum(operation)
        elif operation.target == BLEND:
            node = self._blend(operation)
        elif is_layer(operation):
            operation = _in_groups(operation)
            node = self._layer(operation)
        else:
            node = self._call(operation)
        self.operands.hold(node, operation.output)

    def _call(self, operation: Operation) -> fx.Node:
        slots = [self.operands.gather(operand.value) for operand in operation.operands]
        channels = len(operation.output.ids)
        args, kwargs = _fill((operation.args, operation.kwargs), slots, channels)
        return self.graph.create_node("call_function", operation.target, tuple(args), kwargs, name=operation.name)

    def _divide(self, operation: Operation) -> fx.Node:
        """Entries of channels that several lie behind, as channels of their own."""
        (operand,) = operation.operands
        node, order = self.operands.gather_any_order(operand.value)
        first = operand.value.block * positions_in(operand.value.ids, order)
        positions = first + operation.constants["entry"][0].astype(np.int64)
        if np.array_equal(positions, np.arange(operand.value.block * len(order))):
            return node
        return self.operands.index(node, positions, operation.output)

    def _layer(self, operation: Operation) -> fx.Node:
        """A convolution or linear layer: the weight's columns follow the order in which the input comes.

        A convolution in groups has no such columns; it finds its channels in the order of its groups.
        """
        data, weight, *rest = operation.operands
        if data.need is Need.ANY_ORDER:
            read, order = self.operands.gather_any_order(data.value)
        else:
            read, order = self.operands.gather(data.value), data.value.ids
        constants = operation.constants
        affine = (constants["scale"], constants["shift"]) if constants else None
        matrix, offset = self.constants.layer(weight, rest[0] if rest else None, data.value, order, affine)
        bias = self.operands.attr(offset) if offset else None
        settings = _fill(operation.args[3:], [], len(operation.output.ids))
        args = (read, self.operands.attr(matrix), bias, *settings)
        return self.graph.create_node("call_function", operation.target, args, name=operation.name)

    def _blend(self, operation: Operation) -> fx.Node:
        """Σ share·feature; operands that are one and the same are added up in the share."""
        shares: dict[bytes, np.ndarray] = {}
        values: dict[bytes, Value] = {}
        for operand, share in zip(operation.operands, operation.constants["share"], strict=True):
            key = operand.value.ids.tobytes()
            values[key] = operand.value
            shares[key] = shares.get(key, 0.0) + share
        total: fx.Node | None = None
        for key, value in values.items():
            factor = self.operands.attr(self.constants.share(operation, shares[key]))
            term = self.graph.call_function(aten.mul.Tensor, (self.operands.gather(value), factor))
            total = term if total is None else self.graph.call_function(aten.add.Tensor, (total, term))
        assert total is not None
        return total

    def _sum(self, made: Sum) -> fx.Node:
        """One kernel after the other, each added to those before; runtimes make one kernel of a layer and its sum."""
        total: fx.Node | None = None
        told = made.offset is None
        for read in made.reads:
            node = self.operands.gather(read.value)
            if read.kind is not None:
                matrix = self.constants.matrix(made, read)
                bias = None if told else self.operands.attr(self.constants.offset(made, matrix) or "")
                told = True
                settings = (list(part) if isinstance(part, tuple) else part for part in read.kind.settings)
                args = (node, self.operands.attr(matrix), bias, *settings)
                node = self.graph.create_node("call_function", read.kind.target, args, name=made.name)
            elif read.factor is not None:
                factor = self.operands.attr(self.constants.share(made, read.factor))
                node = self.graph.call_function(aten.mul.Tensor, (node, factor))
            total = node if total is None else self.graph.call_function(aten.add.Tensor, (node, total))
        assert total is not None
        assert told or not np.any(made.offset), "only layers have biases"
        return total


def _in_groups(operation: Operation) -> Operation:
    """A convolution in groups, its rows group by group; another one as it is.

    All groups have as many rows as the largest: where rows are gone, the last one that is left is computed again.
    """
    data = operation.operands[0]
    if data.need is not Need.RUN:
        return operation
    runs = data.value.ids.reshape(len(operation.output.ids), -1)
    rows_of: dict[bytes, list[int]] = {}
    for row, run in enumerate(runs):
        rows_of.setdefault(run.tobytes(), []).append(row)
    most = max(map(len, rows_of.values()))
    rows = np.array([[*some, *some[-1:] * (most - len(some))] for some in rows_of.values()])
    grouped = copy.copy(operation)
    grouped.keep(rows.ravel())
    read = replace(data, value=replace(data.value, ids=runs[rows[:, 0]].ravel()))
    grouped.operands = (read, *grouped.operands[1:])
    grouped.args = tuple(len(rows) if isinstance(argument, Count) else argument for argument in operation.args)
    return grouped


def _fill(item: Any, slots: list[Any], channels: int) -> Any:
    """Arguments with operands for slots and numbers for counts."""
    if isinstance(item, Slot):
        return slots[item.operand]
    if isinstance(item, Count):
        return channels * item.block
    if isinstance(item, dict):
        return {key: _fill(part, slots, channels) for key, part in item.items()}
    if isinstance(item, (list, tuple)):
        return [_fill(part, slots, channels) for part in item]
    return item
