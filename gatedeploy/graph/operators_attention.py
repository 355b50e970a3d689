"""Rules of attention: every head is a channel, computed from the same head of q, k and v."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gatedeploy.graph.channels import Need, Operand, Value
from gatedeploy.graph.rules import Call, rule

aten = torch.ops.aten


@rule(aten.scaled_dot_product_attention)
def attention(call: Call) -> Value:
    """Head by head, where q, k and v of (batch, …, heads, tokens, depth) have as many heads.

    A mask has the same heads, or one for all.
    """
    axis = _heads_axis(call, [call["query"], call["key"], call["value"]])
    if axis is None or call["enable_gqa"] or call["dropout_p"] != 0:
        return call.barrier()
    return _by_head(call, axis)


@rule(aten.matmul, aten.bmm)
def product(call: Call) -> Value:
    """Of matrices that lie behind the channels: channel by channel, or with one matrix for all."""
    axis = _heads_axis(call, list(call.tensors()))
    return call.barrier() if axis is None else _by_head(call, axis)


@rule(aten.einsum)
def einsum(call: Call) -> Value:
    """One by one along a letter of the result that numbers the channels of an operand."""
    values, (before, _, after) = call["tensors"], call["equation"].replace(" ", "").partition("->")
    letters_of: dict[int, str] = {}
    for value, letters in zip(values, before.split(","), strict=True):
        if letters_of.setdefault(id(value), letters) != letters:  # it is read in two ways
            return call.barrier()
    found = (letters_of[id(value)][value.axis] for value in values if value.axis is not None and "." not in before)
    letter = next((one for one in found if one in after), None)
    if letter is None or any(letters.count(letter) > 1 for letters in letters_of.values()):
        return call.barrier()
    axis, operands = after.index(letter), {}
    for value in values:
        own_axis = letters_of[id(value)].find(letter)
        if own_axis >= 0 and call.shape_of(value)[own_axis] == call.shape[axis]:
            operands[id(value)] = Operand(call.along(value, own_axis), Need.ALIGNED)
    return call.make(call.graph.new(call.shape[axis], axis, 1, call.shape), operands)


def _by_head(call: Call, axis: int) -> Value:
    """Channel by channel along `axis` of the result; what has none there, or one for all, is read whole."""
    heads, operands = call.shape[axis], {}
    for value in call.tensors():
        own_axis = axis - (len(call.shape) - value.ndim)
        if own_axis >= 0 and call.shape_of(value)[own_axis] == heads:
            operands[id(value)] = Operand(call.along(value, own_axis), Need.ALIGNED)
    return call.make(call.graph.new(heads, axis, 1, call.shape), operands)


def _heads_axis(call: Call, features: Sequence[Value]) -> int | None:
    """The dimension of the result that carries the first feature's channels, if it lies before the matrices."""
    for value in features:
        if value.axis is not None:
            axis = value.axis + len(call.shape) - value.ndim
            before = value.axis < value.ndim - 2 and axis < len(call.shape) - 2
            return axis if before and call.shape_of(value)[value.axis] == call.shape[axis] else None
    return None
