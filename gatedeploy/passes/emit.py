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
    Ids,
    Need,
    Operation,
    Slot,
    Value,
    map_leaves,
)
from gatedeploy.graph.operators_mixing import is_layer
from gatedeploy.graph.prices import Prices, Source
from gatedeploy.graph.sums import Sum
from gatedeploy.passes.constants import Constants
from gatedeploy.program import IMAGE, Program

aten = torch.ops.aten
MAX_SLICES = 4
"""Up to this many slices are cut one by one; more are gathered by index."""


def emit(graph: ChannelGraph, prices: Prices | None = None) -> Program:
    """The program of a channel graph that has been through the passes, its floating-point weights in float64.

    Channels are cut out of a tensor by slices or gathered by index, as it is cheaper; without prices, by a few slices.
    """
    return Emitter(graph, prices).program()


class Emitter:
    """Writes operations in order, building each operand from the tensors that hold its channels."""

    def __init__(self, graph: ChannelGraph, prices: Prices | None = None) -> None:
        self.source = graph
        self.prices = prices
        self.graph = fx.Graph()
        self.constants = Constants(graph)
        self.tensors: list[tuple[fx.Node, Value]] = []
        self.tensor_of: Ids = np.full(graph.created, -1, dtype=np.int64)
        self.position_of: Ids = np.zeros(graph.created, dtype=np.int64)
        self.gathered: dict[object, fx.Node] = {}

    def program(self) -> Program:
        """What was written."""
        self._hold(self.graph.placeholder(IMAGE), self.source.image)
        for operation in self.source.operations:
            self._write(operation)
        self.graph.output(map_leaves(self.source.outputs, self.gather))
        self.graph.lint()
        return Program(self.graph, self.constants.weights, frozenset(self.constants.trainable), self.source.input)

    def _hold(self, node: fx.Node, value: Value) -> None:
        self.tensor_of[value.ids] = len(self.tensors)
        self.position_of[value.ids] = np.arange(len(value.ids))
        self.tensors.append((node, value))

    def _write(self, operation: Operation) -> None:
        if operation.target in (VIEW, UNITE):
            node = self.gather(operation.operands[0].value)
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
        self._hold(node, operation.output)

    def _call(self, operation: Operation) -> fx.Node:
        slots = [self.gather(operand.value) for operand in operation.operands]
        channels = len(operation.output.ids)
        args, kwargs = _fill((operation.args, operation.kwargs), slots, channels)
        return self.graph.create_node("call_function", operation.target, tuple(args), kwargs, name=operation.name)

    def _divide(self, operation: Operation) -> fx.Node:
        """Entries of channels that several lie behind, as channels of their own."""
        (operand,) = operation.operands
        node, order = self.gather_any_order(operand.value)
        first = operand.value.block * _positions(operand.value.ids, order)
        positions = first + operation.constants["entry"][0].astype(np.int64)
        if np.array_equal(positions, np.arange(operand.value.block * len(order))):
            return node
        return self.index(node, positions, operation.output)

    def _layer(self, operation: Operation) -> fx.Node:
        """A convolution or linear layer: the weight's columns follow the order in which the input comes.

        A convolution in groups has no such columns; it finds its channels in the order of its groups.
        """
        data, weight, *rest = operation.operands
        if data.need is Need.ANY_ORDER:
            read, order = self.gather_any_order(data.value)
        else:
            read, order = self.gather(data.value), data.value.ids
        constants = operation.constants
        affine = (constants["scale"], constants["shift"]) if constants else None
        matrix, offset = self.constants.layer(weight, rest[0] if rest else None, data.value, order, affine)
        bias = self._attr(offset) if offset else None
        settings = _fill(operation.args[3:], [], len(operation.output.ids))
        args = (read, self._attr(matrix), bias, *settings)
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
            factor = self._attr(self.constants.share(operation, shares[key]))
            term = self.graph.call_function(aten.mul.Tensor, (self.gather(value), factor))
            total = term if total is None else self.graph.call_function(aten.add.Tensor, (total, term))
        assert total is not None
        return total

    def _sum(self, made: Sum) -> fx.Node:
        """One kernel after the other, each added to those before; runtimes make one kernel of a layer and its sum."""
        total: fx.Node | None = None
        told = made.offset is None
        for read in made.reads:
            node = self.gather(read.value)
            if read.kind is not None:
                matrix = self.constants.matrix(made, read)
                bias = None if told else self._attr(self.constants.offset(made, matrix) or "")
                told = True
                settings = (list(part) if isinstance(part, tuple) else part for part in read.kind.settings)
                args = (node, self._attr(matrix), bias, *settings)
                node = self.graph.create_node("call_function", read.kind.target, args, name=made.name)
            elif read.factor is not None:
                factor = self._attr(self.constants.share(made, read.factor))
                node = self.graph.call_function(aten.mul.Tensor, (node, factor))
            total = node if total is None else self.graph.call_function(aten.add.Tensor, (node, total))
        assert total is not None
        assert told or not np.any(made.offset), "only layers have biases"
        return total

    def _attr(self, name: str) -> fx.Node:
        key = ("weight", name)
        if key not in self.gathered:
            self.gathered[key] = self.graph.get_attr(name)
        return self.gathered[key]

    def gather_any_order(self, value: Value) -> tuple[fx.Node, Ids]:
        """A tensor that holds the channels of `value`, each once, in the cheapest order, and that order."""
        ids = np.unique(value.ids)
        order = ids[np.lexsort((self.position_of[ids], self.tensor_of[ids]))]
        ordered = Value(order, value.axis, value.block, value.shape)
        return self.gather(ordered), order

    def gather(self, value: Value) -> fx.Node:
        """A tensor that holds exactly the channels of `value`, in order."""
        weights = {self.source.weight_of[id_][:3] for id_ in value.ids.tolist() if id_ in self.source.weight_of}
        if len(weights) == 1 and all(id_ in self.source.weight_of for id_ in value.ids.tolist()):
            return self._attr(self.constants.rows(value))
        for weight in weights:  # joined with something that is computed
            whole = self.source.weight(*weight)
            if self.tensor_of[whole.ids[0]] < 0:
                self._hold(self._attr(self.constants.rows(whole)), whole)
        key = (value.ids.tobytes(), value.axis, value.block)
        if key not in self.gathered:
            self.gathered[key] = self.join(value)
        return self.gathered[key]

    def join(self, value: Value) -> fx.Node:
        """The channels of `value`, in order, cut and joined from the tensors that hold them."""
        tensors, positions = self.tensor_of[value.ids], self.position_of[value.ids]
        runs = _runs(tensors, step=0)
        if len(runs) > MAX_SLICES and len(runs) > len(np.unique(tensors)):
            node, order = self.gather_any_order(replace(value, ids=self._or_whole(value.ids)))
            return self.index(node, _positions(value.ids, order), value)
        parts = [part for run in runs for part in self._take(int(tensors[run[0]]), positions[run], value)]
        return parts[0] if len(parts) == 1 else self.graph.call_function(aten.cat.default, (parts, value.axis))

    def _or_whole(self, ids: Ids) -> Ids:
        """These channels, and all others of a tensor of which they are the most: cutting it would copy it once more."""
        found = []
        for tensor in np.unique(self.tensor_of[ids]):
            part, held = np.unique(ids[self.tensor_of[ids] == tensor]), self.tensors[tensor][1].ids
            found.append(held if 2 * len(part) > len(held) else part)
        return np.concatenate(found)

    def _take(self, tensor: int, positions: Ids, value: Value) -> list[fx.Node]:
        """Some channels of one tensor, to be joined: itself, slices of it, or a gather by index."""
        node, held = self.tensors[tensor]
        runs = _runs(positions, step=1)
        if len(runs) == 1 and len(positions) == len(held.ids):
            return [node]
        if not self._by_slices(Source(len(held.ids), len(positions), len(runs)), value):
            return [self.index(node, positions, value)]
        slices = []
        for run in runs:
            first, last = int(positions[run[0]]), int(positions[run[-1]]) + 1
            bounds = (value.axis, first * value.block, last * value.block)
            slices.append(self.graph.call_function(aten.slice.Tensor, (node, *bounds)))
        return slices

    def _by_slices(self, source: Source, value: Value) -> bool:
        if self.prices is None:
            return source.runs <= MAX_SLICES
        return self.prices.where(value.last).cutting(source, value.entries)[1]

    def index(self, node: fx.Node, positions: Ids, value: Value) -> fx.Node:
        """The channels at these positions of a tensor, gathered by number."""
        entries = (positions[:, None] * value.block + np.arange(value.block)).reshape(-1)
        index = self._attr(self.constants.index(entries))
        if not value.last or not (self.prices is None or self.prices.last_by_rows):
            return self.graph.call_function(aten.index_select.default, (node, value.axis, index))
        # Numbers of the last dimension are gathered one by one, those of another one in rows: ONNX Runtime takes an
        # eighth of the time for tokens of 384 channels, PyTorch half of it.
        last = value.ndim - 1
        turn = (last - 1, last)
        if (node, turn) not in self.gathered:
            self.gathered[node, turn] = self.graph.call_function(aten.transpose.int, (node, *turn))
        rows = self.graph.call_function(aten.index_select.default, (self.gathered[node, turn], last - 1, index))
        return self.graph.call_function(aten.transpose.int, (rows, *turn))


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


def _positions(ids: Ids, order: Ids) -> Ids:
    """Where each of `ids` stands in `order`."""
    sorter = np.argsort(order)
    return sorter[np.searchsorted(order, ids, sorter=sorter)]


def _runs(numbers: Ids, step: int) -> list[Ids]:
    """Indices of the runs in which each number is `step` more than the one before."""
    breaks = np.flatnonzero(np.diff(numbers) != step) + 1
    return np.split(np.arange(len(numbers)), breaks)


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
