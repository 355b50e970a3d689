"""Rules of convolutions and linear layers.

Their operation has the form `target(x, weight, bias, …)`: output channel o needs row o of the weight and of the
bias, and all channels of x, in any order that the weight's columns then follow. Of a convolution in groups it needs
the channels of its group, in their order; of a depthwise one channel o alone.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from gatedeploy.graph.channels import Count, Need, Operand, Operation, Value
from gatedeploy.graph.rules import Call, rule

aten = torch.ops.aten
CONVOLUTIONS = (aten.conv1d, aten.conv2d, aten.conv3d)
TRANSPOSED = (aten.conv_transpose1d, aten.conv_transpose2d, aten.conv_transpose3d)


def is_layer(operation: Operation) -> bool:
    """Whether `operation` is a convolution or linear layer that makes each channel from a row of its weight."""
    packet = getattr(operation.target, "overloadpacket", None)
    return packet in (*CONVOLUTIONS, *TRANSPOSED, aten.linear) and operation.operands[1].need is Need.ALIGNED


@rule(*CONVOLUTIONS)
def convolution(call: Call) -> Value:
    """Dense: mixes all channels. Depthwise with one filter per channel: channelwise. In groups: those of the group."""
    groups = call["groups"]
    if not _has_own_weights(call) or not _batched(call):
        return call.barrier()
    if groups == 1:
        return mixing(call, axis=1, rows=0, columns=1)
    out_channels, per_group = call.shape_of(call["weight"])[:2]
    value = call.along(call["input"], 1)
    read = Operand(value, Need.ALIGNED)
    if per_group > 1 or out_channels > groups:
        runs = np.repeat(value.ids.reshape(groups, per_group), out_channels // groups, axis=0)
        read = Operand(replace(value, ids=runs.ravel()), Need.RUN)
    operands = {id(call["input"]): read, **_parameters(call, rows=0, columns=None)}
    return call.make(call.graph.new(out_channels, 1, 1, call.shape), operands, groups=Count())


@rule(*TRANSPOSED)
def transposed_convolution(call: Call) -> Value:
    """Its weight is stored (in, out, …). Depthwise with one filter per channel: channelwise. In groups: whole."""
    if not _has_own_weights(call) or not _batched(call):
        return call.barrier()
    if call["groups"] == 1:
        return mixing(call, axis=1, rows=1, columns=0)
    given, (channels, per_group) = call["input"], call.shape_of(call["weight"])[:2]
    if call["groups"] != channels or per_group != 1:
        return call.barrier()
    read = Operand(call.along(given, 1), Need.ALIGNED)
    made = call.graph.new(channels, 1, 1, call.shape)
    return call.make(made, {id(given): read, **_parameters(call, rows=0, columns=None)}, groups=Count())


@rule(aten.linear)
def linear(call: Call) -> Value:
    """Mixes what lies along the last axis; along any other axis every channel is treated alike and apart."""
    value = call["input"]
    if not _has_own_weights(call) or len(call.shape_of(call["weight"])) != 2:
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
    return call.make(call.graph.new(call.shape[axis], axis, 1, call.shape), operands)


def _parameters(call: Call, rows: int, columns: int | None) -> dict[int, Operand]:
    weight, bias = call["weight"], call["bias"]
    operands = {id(weight): Operand(call.along(weight, rows), Need.ALIGNED, columns)}
    if bias is not None:
        operands[id(bias)] = Operand(call.along(bias, 0), Need.ALIGNED)
    return operands


def _has_own_weights(call: Call) -> bool:
    """Whether weight and bias are weights of the network, whole and as they are, and not the input as well."""
    parameters = [call["weight"]] if call["bias"] is None else [call["weight"], call["bias"]]
    return all(call.is_weight(parameter) and parameter is not call["input"] for parameter in parameters)


def _batched(call: Call) -> bool:
    """Whether the input has a batch, which convolutions can do without."""
    return len(call.shape) == len(call.shape_of(call["weight"]))
