"""Rules of operators that cut tensors, join them, or put their entries in another order; they compute nothing."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch

from gatedeploy.graph.channels import Need, Operand, Operation, Slot, Value
from gatedeploy.graph.operators import broadcast
from gatedeploy.graph.rules import Call, Shape, rule

aten = torch.ops.aten


@rule(aten.cat, aten.concat)
def cat(call: Call) -> Value:
    """Along the channels: their identities, one after the other. Along another dimension: channelwise.

    The value of the most channels says where channels lie.
    """
    values = list(call["tensors"])
    dim = call["dim"] % len(call.shape)
    widest = max(values, key=lambda value: len(value.ids) if value.axis is not None else 0)
    if widest.axis is None:
        return call.barrier()
    if widest.axis != dim:
        return broadcast(call, widest.axis, widest.block)
    # All parts must count channels in blocks of one size; a block of 1 always fits.
    blocks = {value.block for value in values if value.axis == dim}
    block = blocks.pop() if len(blocks) == 1 and all(value.axis == dim for value in values) else 1
    parts = [call.along(value, dim, block).ids for value in values]
    return Value(np.concatenate(parts), dim, block, call.shape)


@rule(aten.slice, aten.narrow)
def cut(call: Call) -> Value:
    """All of a dimension: nothing. Along the channels: some of their identities. Along another: channelwise."""
    value, dim = call["self"], call["dim"] % call["self"].ndim
    start, step = call["start"] or 0, call.arguments.get("step", 1)
    if (start, step) == (0, 1) and call.arguments.get("end", 0) in (None, sys.maxsize):
        return cast(Value, value)
    if value.axis is None or 0 in call.shape:
        return call.barrier()
    if dim != value.axis:
        return call.channelwise(value, value.axis, value.block)
    if value.block != 1 or len(list(call.tensors())) > 1:  # where it is cut depends on the batch
        return call.barrier()
    start = start + len(value.ids) if start < 0 else start
    kept: Value = replace(value, ids=value.ids[start::step][: call.shape[dim]])
    return kept


@rule(aten.split, aten.split_with_sizes, aten.chunk)
def split(call: Call) -> Any:
    """Along the channels: their identities, in parts."""
    value, dim = call["self"], call["dim"] % call["self"].ndim
    if value.axis != dim or value.block != 1 or any(0 in shape for shape in call.shape):
        return call.barrier()
    ends = np.cumsum([shape[dim] for shape in call.shape])
    return tuple(replace(value, ids=ids) for ids in np.split(value.ids, ends[:-1]))


@rule(aten.select)
def select_one(call: Call) -> Value:
    """One entry of a dimension; of the channels' dimension one channel, which has none any more."""
    value, dim = call["self"], call["dim"] % call["self"].ndim
    if value.axis is None or (dim == value.axis and (value.block != 1 or not isinstance(call["index"], int))):
        return call.barrier()
    return _entry(call, dim, call["index"], call.shape)


@rule(aten.unbind)
def unbind(call: Call) -> Any:
    """Every entry of a dimension."""
    value, dim = call["self"], call["dim"] % call["self"].ndim
    if value.axis is None or (dim == value.axis and value.block != 1) or not call.shape or 0 in call.shape[0]:
        return call.barrier()
    return tuple(_entry(call, dim, index, shape) for index, shape in enumerate(call.shape))


def _entry(call: Call, dim: int, index: Any, shape: Shape) -> Value:
    value, graph, name = call["self"], call.graph, call.node.name
    if dim != value.axis:
        place: Any = {"axis": value.axis - (dim < value.axis), "block": value.block, "shape": shape}
        return graph.by_channel(aten.select.int, value, dim, index, **place, name=name)
    made = graph.new(1, None, 1, shape)
    only = Operand(replace(value, ids=value.ids[[index]]), Need.WHOLE)
    graph.operations.append(Operation(aten.select.int, (Slot(0), dim, 0), {}, (only,), made, name))
    return made


@rule(aten.channel_shuffle)
def channel_shuffle(call: Call) -> Value:
    """Its identities in another order: nothing is computed."""
    value = call.along(call["self"], 1)
    return replace(value, ids=value.ids.reshape(call["groups"], -1).T.ravel())


@rule(aten.pixel_shuffle)
def pixel_shuffle(call: Call) -> Value:
    """Each channel is made of a run of r² channels; they are four dimensions, or more in front."""
    value, runs = call["self"], call["upscale_factor"] ** 2
    axis = value.ndim - 3
    united = call.along(value, axis, runs)
    made = call.graph.new(len(united.ids), axis, 1, call.shape)
    return call.make(made, {id(value): Operand(united, Need.ALIGNED)})


@rule(aten.stack)
def stack(call: Call) -> Value:
    """Equal channels of several tensors side by side along a new dimension."""
    values = list(call["tensors"])
    axis = values[0].axis
    if axis is None or values[0].block != 1:
        return call.barrier()
    operands = {id(value): Operand(call.along(value, axis), Need.ALIGNED) for value in values}
    dim = call["dim"] % len(call.shape)
    return call.make(call.graph.new(len(values[0].ids), axis + (dim <= axis), 1, call.shape), operands)
