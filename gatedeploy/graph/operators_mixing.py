"""Rules of operators whose output channels each read all input channels: convolutions and linear layers.

Their operation has the form `target(x, weight, bias, …)`: output channel o needs row o of the weight and of the
bias, and all channels of x, in any order that the weight's columns then follow.
"""

from __future__ import annotations

import math

import torch

from gatedeploy.graph.channels import Count, Need, Operand, Value
from gatedeploy.graph.rules import Call, rule

aten = torch.ops.aten


@rule(aten.conv1d, aten.conv2d, aten.conv3d)
def convolution(call: Call) -> Value:
    """Dense: mixes all channels. Depthwise with one filter per channel: channelwise. Other groups: a barrier."""
    groups = call["groups"]
    if not call.is_weight(call["weight"]) or not _batched(call):
        return call.barrier()
    if groups == 1:
        return mixing(call, axis=1, rows=0, columns=1)
    out_channels, per_group = call.shape_of(call["weight"])[:2]
    if per_group == 1 and out_channels == groups:
        value = call.along(call["input"], 1)
        operands = {id(call["input"]): Operand(value, Need.ALIGNED), **_parameters(call, rows=0, columns=None)}
        return call.make(call.graph.new(groups, 1, 1, len(call.shape)), operands, groups=Count())
    return call.barrier()


@rule(aten.conv_transpose1d, aten.conv_transpose2d, aten.conv_transpose3d)
def transposed_convolution(call: Call) -> Value:
    """Its weight is stored (in, out, …)."""
    if call["groups"] != 1 or not call.is_weight(call["weight"]) or not _batched(call):
        return call.barrier()
    return mixing(call, axis=1, rows=1, columns=0)


@rule(aten.linear)
def linear(call: Call) -> Value:
    """Mixes what lies along the last axis; along any other axis every channel is treated alike and apart."""
    value = call["input"]
    if not call.is_weight(call["weight"]):
        return call.barrier()
    if value.axis is not None and value.axis != value.ndim - 1:
        return call.channelwise(value, value.axis, value.block)
    return mixing(call, axis=value.ndim - 1, rows=0, columns=1)


def mixing(call: Call, axis: int, rows: int, columns: int) -> Value:
    """An operation that reads all channels of its input along `axis` for each channel it makes."""
    given = call["input"]
    block = given.block if given.axis == axis else 1
    value = call.along(given, axis, block)
    operands = {id(given): Operand(value, Need.ANY_ORDER), **_parameters(call, rows, columns)}
    return call.make(call.graph.new(call.shape[axis], axis, 1, len(call.shape)), operands)


def _parameters(call: Call, rows: int, columns: int | None) -> dict[int, Operand]:
    weight, bias = call["weight"], call["bias"]
    operands = {id(weight): Operand(call.along(weight, rows), Need.ALIGNED, columns)}
    if bias is not None:
        operands[id(bias)] = Operand(call.along(bias, 0), Need.ALIGNED)
    return operands


def _batched(call: Call) -> bool:
    return len(call.shape) == len(call.shape_of(call["weight"])) and math.prod(call.shape) > 0
