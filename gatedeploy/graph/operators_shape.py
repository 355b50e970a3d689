"""Rules of operators that compute nothing: they move, cut, join and rename dimensions."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch

from gatedeploy.errors import InputError
from gatedeploy.graph.channels import Count, Need, Operand, Value
from gatedeploy.graph.operators import broadcast
from gatedeploy.graph.rules import Call, rule
from gatedeploy.graph.spread import Spread, spread
from gatedeploy.shapes import depends_on_batch

aten = torch.ops.aten


@rule(aten.clone, aten.contiguous, aten.alias, aten.detach, aten.lift_fresh_copy)
def same(call: Call) -> Value:
    """The input, channel for channel."""
    value: Value = call["self"]
    return value


@rule(aten.dropout, aten.feature_dropout, aten.alpha_dropout, aten.feature_alpha_dropout)
def dropout(call: Call) -> Value:
    """Nothing, in evaluation mode."""
    if call["train"] and call["p"] > 0:
        raise InputError(f"{call.node.name} drops out in evaluation mode; only deterministic networks can be collapsed")
    value: Value = call["input"]
    return value


@rule(aten.view, aten.reshape, aten.flatten, aten._unsafe_view, aten.unflatten)
def reshape(call: Call) -> Value | Spread:
    """Channels stay whole and apart if what one channel occupies stays one block along one dimension, or several.

    With P entries before the channel axis and S entries per channel, output dimension p carries the channels when
    P = prod(out[:p]) and S is a multiple of prod(out[p+1:]).
    """
    value, out = call["self"], call.shape
    if "size" in call.arguments:  # `view` does not take what a slice left with gaps, `reshape` does
        call.become(aten.reshape.default, {"self": value, "shape": call["size"]})
    if value.axis is None:
        return call.barrier()
    shape = call.shape_of(value)
    before = math.prod(shape[: value.axis])
    entries = value.block * math.prod(shape[value.axis + 1 :])
    for axis in range(len(out)):
        block, rest = divmod(entries, math.prod(out[axis + 1 :]))
        fits = math.prod(out[:axis]) == before and rest == 0 and out[axis] == len(value.ids) * block
        # A block that grows with the batch is none: its length must be known here.
        if fits and not depends_on_batch(block):
            return _reshaped(call, value, axis, block)
    return spread(value, out, call.node.name) or call.barrier()


def _reshaped(call: Call, value: Value, axis: int, block: int) -> Value:
    if "shape" not in call.arguments:  # flatten works it out by itself
        return call.channelwise(value, axis, block)
    sizes = list(call["shape"])
    sizes[axis] = Count(block)
    return call.channelwise(value, axis, block, shape=sizes)


@rule(aten.permute)
def permute(call: Call) -> Value:
    """The channel axis goes where it is put."""
    value = call["self"]
    if value.axis is None:
        return call.barrier()
    return call.channelwise(value, [dim % value.ndim for dim in call["dims"]].index(value.axis), value.block)


@rule(aten.transpose, aten.mT)
def transpose(call: Call) -> Value:
    """Two dimensions change places; `mT` names none and means the last two."""
    value = call["self"]
    if value.axis is None:
        return call.barrier()
    first, second = (call.arguments.get(name, dim) % value.ndim for name, dim in (("dim0", -2), ("dim1", -1)))
    axis = {first: second, second: first}.get(value.axis, value.axis)
    return call.channelwise(value, axis, value.block)


@rule(aten.squeeze)
def squeeze(call: Call) -> Value:
    """Dimensions of size 1 other than the channels' go away."""
    value = call["self"]
    dims = call.arguments.get("dim")
    if value.axis is None or dims is None:
        return call.barrier()
    shape = call.shape_of(value)
    named = {dim % value.ndim for dim in ([dims] if isinstance(dims, int) else dims)}
    gone = {dim for dim in named if shape[dim] == 1}
    if value.axis in gone:
        return call.barrier()
    return call.channelwise(value, value.axis - sum(dim < value.axis for dim in gone), value.block)


@rule(aten.unsqueeze)
def unsqueeze(call: Call) -> Value:
    """A dimension of size 1 comes in."""
    value = call["self"]
    if value.axis is None:
        return call.barrier()
    dim = call["dim"] % (value.ndim + 1)
    return call.channelwise(value, value.axis + (dim <= value.axis), value.block)


@rule(aten.expand)
def expand(call: Call) -> Value:
    """Dimensions of size 1 grow; the channels' may not be one of them."""
    value = call["self"]
    if value.axis is None:
        return call.barrier()
    axis = value.axis + len(call.shape) - value.ndim
    if call.shape[axis] != call.shape_of(value)[value.axis]:
        return call.barrier()
    sizes = list(call["size"])
    sizes[axis] = Count(value.block)
    return call.channelwise(value, axis, value.block, size=sizes)


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
    """One entry of a dimension other than the channels'."""
    value, dim = call["self"], call["dim"] % call["self"].ndim
    if value.axis is None or dim == value.axis:
        return call.barrier()
    return call.channelwise(value, value.axis - (dim < value.axis), value.block)


@rule(aten.unbind)
def unbind(call: Call) -> Any:
    """Every entry of a dimension other than the channels'."""
    value, dim = call["self"], call["dim"] % call["self"].ndim
    if value.axis is None or dim == value.axis or not call.shape or 0 in call.shape[0]:
        return call.barrier()
    entry = partial(call.graph.by_channel, aten.select.int, value, dim, block=value.block, name=call.node.name)
    axis = value.axis - (dim < value.axis)
    return tuple(entry(index, axis=axis, shape=shape) for index, shape in enumerate(call.shape))


@rule(aten.roll)
def roll(call: Call) -> Value:
    """Along dimensions other than the channels'."""
    value = call["self"]
    if value.axis is None or not call["dims"] or value.axis in {dim % value.ndim for dim in call["dims"]}:
        return call.barrier()
    return call.channelwise(value, value.axis, value.block)


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
