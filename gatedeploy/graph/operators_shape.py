"""Rules of operators that compute nothing: they move, split, join and rename dimensions."""

from __future__ import annotations

import math

import torch

from gatedeploy.errors import InputError
from gatedeploy.graph.channels import Count, Value
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
    return spread(call.graph, value, out, call.node.name) or call.barrier()


@rule(aten.reshape_as, aten.view_as)
def reshape_as(call: Call) -> Value | Spread:
    """A reshape to the sizes of another tensor, of which no more than these is read."""
    sizes = [-1 if depends_on_batch(size) else size for size in call.shape]
    if sizes.count(-1) > 1:
        return call.barrier()
    call.become(aten.reshape.default, {"self": call["self"], "shape": sizes})
    made: Value | Spread = reshape(call)
    return made


def _reshaped(call: Call, value: Value, axis: int, block: int) -> Value:
    if "sizes" in call.arguments:  # unflatten
        sizes, place = list(call["sizes"]), axis - call["dim"] % value.ndim
        if 0 <= place < len(sizes):
            sizes[place] = Count(block)
        return call.channelwise(value, axis, block, sizes=sizes)
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


@rule(aten.transpose, aten.swapaxes, aten.swapdims, aten.mT)
def transpose(call: Call) -> Value:
    """Two dimensions change places; `mT` names none and means the last two."""
    value = call["self"]
    if value.axis is None:
        return call.barrier()
    first, second = swapped(call, value.ndim)
    axis = {first: second, second: first}.get(value.axis, value.axis)
    return call.channelwise(value, axis, value.block)


def swapped(call: Call, ndim: int) -> tuple[int, int]:
    """The two dimensions that change places."""
    named = [call.arguments[name] for name in ("dim0", "dim1", "axis0", "axis1") if name in call.arguments]
    first, second = named or (-2, -1)
    return first % ndim, second % ndim


@rule(aten.movedim, aten.moveaxis)
def movedim(call: Call) -> Value:
    """Some dimensions go elsewhere, the others keep their order."""
    value: Value = call["self"]
    sources, targets = (
        [dim % value.ndim for dim in (dims if isinstance(dims, list) else [dims])]
        for dims in (call["source"], call["destination"])
    )
    order = [dim for dim in range(value.ndim) if dim not in sources]
    for target, source in sorted(zip(targets, sources, strict=True)):
        order.insert(target, source)
    call.become(aten.permute.default, {"self": value, "dims": order})
    made: Value = permute(call)
    return made


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


@rule(aten.expand_as)
def expand_as(call: Call) -> Value:
    """To the sizes of another tensor, of which no more than these is read."""
    own = (None,) * (len(call.shape) - call["self"].ndim) + call.shape_of(call["self"])
    sizes = [-1 if size == before else size for size, before in zip(call.shape, own, strict=True)]
    if any(depends_on_batch(size) for size in sizes):
        return call.barrier()
    call.become(aten.expand.default, {"self": call["self"], "size": sizes, "implicit": False})
    made: Value = expand(call)
    return made


@rule(aten.repeat)
def repeat(call: Call) -> Value:
    """Along other dimensions than the channels'."""
    value, times = call["self"], call["repeats"]
    axis = None if value.axis is None else value.axis + len(times) - value.ndim
    if axis is None or times[axis] != 1:
        return call.barrier()
    return call.channelwise(value, axis, value.block)


@rule(aten.unfold)
def unfold(call: Call) -> Value:
    """Windows along another dimension than the channels'; what lies inside them comes last."""
    value = call["self"]
    if value.axis is None or call["dimension"] % value.ndim == value.axis:
        return call.barrier()
    return call.channelwise(value, value.axis, value.block)
