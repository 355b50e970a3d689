"""Rules of operators that treat every channel alike and apart: activations, arithmetic, norms, pooling, resizing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

import gatedeploy.gating.operators  # noqa: F401  registers select and mix
from gatedeploy.errors import InputError
from gatedeploy.graph.channels import Count, Need, Operand, Operation, Slot, Value
from gatedeploy.graph.rules import Call, rule

aten = torch.ops.aten
gated = torch.ops.gatedeploy


@rule(
    *(aten.relu, aten.relu6, aten.leaky_relu, aten.elu, aten.celu, aten.selu, aten.gelu, aten.silu, aten.mish),
    *(aten.hardswish, aten.hardsigmoid, aten.hardtanh, aten.sigmoid, aten.tanh, aten.softplus, aten.log_sigmoid),
    *(aten.hardshrink, aten.softshrink, aten.threshold, aten.clamp, aten.clamp_min, aten.clamp_max),
    *(aten.abs, aten.neg, aten.exp, aten.log, aten.sqrt, aten.rsqrt, aten.square, aten.reciprocal, aten.erf),
    *(aten.sin, aten.cos, aten.floor, aten.ceil, aten.round, aten.sign),
    *(aten.add, aten.sub, aten.rsub, aten.mul, aten.div, aten.pow, aten.maximum, aten.minimum, aten.where, aten.lerp),
    *(aten.eq, aten.ne, aten.lt, aten.le, aten.gt, aten.ge, aten.addcmul, aten.to, aten._to_copy, aten.type_as),
    *(aten.log1p, aten.log2, aten.expm1, aten.exp2, aten.tan, aten.atan, aten.sinh, aten.cosh, aten.logit, aten.clip),
    *(aten.fmod, aten.remainder, aten.trunc, aten.frac, aten.sgn, aten.isnan, aten.nan_to_num, aten.masked_fill),
    *(aten.logical_not, aten.logaddexp, aten.atan2, aten.hypot, aten.addcdiv, aten.special_expit),
)
def pointwise(call: Call) -> Value:
    """Each entry is a function of the operands' entries at the same place, after broadcasting."""
    for value in call.tensors():
        if value.axis is None:
            continue
        axis = value.axis + len(call.shape) - value.ndim
        # `type_as` may read a tensor of more dimensions than its result has.
        if axis >= 0 and call.shape_of(value)[value.axis] == call.shape[axis]:
            return broadcast(call, axis, value.block)
    return call.barrier()


def broadcast(call: Call, axis: int, block: int = 1) -> Value:
    """A channelwise operation over all tensor arguments, their shapes broadcast against each other."""
    operands = {}
    for value in call.tensors():
        own_axis = axis - (len(call.shape) - value.ndim)
        size = call.shape_of(value)[own_axis] if value.ndim and own_axis >= 0 else 0
        if size != call.shape[axis]:
            continue  # no channels, or one for all: read whole
        operands[id(value)] = Operand(call.along(value, own_axis, block), Need.ALIGNED)
    output = call.graph.new(call.shape[axis] // block, axis, block, call.shape)
    return call.make(output, operands)


@rule(aten.prelu)
def prelu(call: Call) -> Value:
    """One slope for all channels, or one per channel along axis 1."""
    value, slope = call["self"], call["weight"]
    if value.axis != 1 or value.block != 1 or not call.is_weight(slope):
        return call.barrier()
    operands = {id(value): Operand(value, Need.ALIGNED)}
    if call.shape_of(slope) == (call.shape[1],):
        operands[id(slope)] = Operand(call.along(slope, 0), Need.ALIGNED)
    return call.make(call.graph.new(len(value.ids), 1, 1, call.shape), operands)


@rule(aten.batch_norm)
def batch_norm(call: Call) -> Value:
    """Evaluation mode: every channel along axis 1 is scaled and shifted by constants of its own."""
    if call["training"]:
        raise InputError(
            f"{call.node.name}: a batch norm that uses the statistics of the batch in evaluation mode "
            "(track_running_stats=False) cannot be collapsed"
        )
    return _normed(call, ("weight", "bias", "running_mean", "running_var"))


@rule(aten.instance_norm)
def instance_norm(call: Call) -> Value:
    """Every channel along axis 1 is normalised by its own statistics."""
    return _normed(call, ("weight", "bias")) if call["use_input_stats"] else call.barrier()


@rule(aten.group_norm)
def group_norm(call: Call) -> Value:
    """Every run of channels along axis 1 is normalised by its own statistics, then each channel scaled and shifted."""
    groups = call["num_groups"]
    if groups == 1:
        return call.barrier()
    block = call.shape[1] // groups
    made = _normed(call, ("weight", "bias"), block, num_groups=Count())
    return call.graph.divide(made, call.node.name, call.shape) if block > 1 else made


def _normed(call: Call, constants: Sequence[str], block: int = 1, **changed: Any) -> Value:
    """Each channel along axis 1 is normalised with its own entries of `constants`, where these are given."""
    value = call.along(call["input"], 1, block)
    operands = {id(call["input"]): Operand(value, Need.ALIGNED)}
    for name in constants:
        if call[name] is not None:
            operands[id(call[name])] = Operand(call.along(call[name], 0, block), Need.ALIGNED)
    return call.make(call.graph.new(len(value.ids), 1, block, call.shape), operands, **changed)


@rule(aten.layer_norm, aten.rms_norm)
def layer_norm(call: Call) -> Value:
    """Over other dimensions than the channels': each is normalised apart. Over them: all are needed, in any order.

    Weights and results follow the order in which the channels come, where it goes over these alone.
    """
    value, dims = call["input"], len(call["normalized_shape"])
    affine = [weight for weight in (call["weight"], call.arguments.get("bias")) if weight is not None]
    if value.axis is not None and value.axis < value.ndim - dims:
        return call.channelwise(value, value.axis, value.block)
    if value.axis is None or dims > 1 or value.block > 1 or not all(map(call.is_weight, affine)):
        return call.barrier()
    operands = {id(weight): Operand(call.along(weight, 0), Need.ALIGNED) for weight in affine}
    operands[id(value)] = Operand(value, Need.TOGETHER)
    return call.make(call.graph.new(len(value.ids), value.axis, 1, call.shape), operands)


@rule(aten._native_batch_norm_legit_no_training)
def functional_batch_norm(call: Call) -> Any:
    """What export's general rewriting makes of `batch_norm`; only the first of its three results is ever read."""
    given = call.arguments | {"training": False, "cudnn_enabled": False}
    names = ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps", "cudnn_enabled")
    call.become(aten.batch_norm.default, {name: given[name] for name in names})
    call.shape = call.shape[0]
    return batch_norm(call), None, None


@rule(
    *(aten.max_pool1d, aten.avg_pool1d, aten.adaptive_avg_pool1d, aten.upsample_nearest1d, aten.upsample_linear1d),
)
def along_lines(call: Call) -> Value:
    """Pooling and resizing of (batch, channels, length)."""
    return _spatial(call, ndim=3)


@rule(
    *(aten.max_pool2d, aten.avg_pool2d, aten.adaptive_avg_pool2d, aten.upsample_nearest2d),
    *(aten._upsample_nearest_exact2d, aten.upsample_bilinear2d, aten.upsample_bicubic2d),
)
def in_planes(call: Call) -> Value:
    """Pooling and resizing of (batch, channels, height, width)."""
    return _spatial(call, ndim=4)


@rule(aten.avg_pool3d)
def in_space(call: Call) -> Value:
    """Pooling of (batch, channels, depth, height, width)."""
    return _spatial(call, ndim=5)


@rule(aten.grid_sampler)
def grid_sample(call: Call) -> Value:
    """Every channel is sampled at the same places."""
    return _spatial(call, ndim=4)


@rule(aten.flip, aten.roll, aten.cumsum)
def along_a_dimension(call: Call) -> Value:
    """Along other dimensions than the channels'."""
    value, dims = call["self"], call.arguments.get("dims", call.arguments.get("dim"))
    dims = dims if isinstance(dims, list) else [dims]
    if value.axis is None or not dims or value.axis in {dim % value.ndim for dim in dims}:  # none named: all as one
        return call.barrier()
    return call.channelwise(value, value.axis, value.block)


@rule(aten.glu)
def glu(call: Call) -> Value:
    """Half of the channels, each times the sigmoid of its counterpart in the other half."""
    value, dim = call["self"], call["dim"] % call["self"].ndim
    if value.axis != dim or value.block != 1:
        return call.barrier()
    half, name = len(value.ids) // 2, call.node.name
    kept, gating = replace(value, ids=value.ids[:half]), replace(value, ids=value.ids[half:])
    factor = call.graph.by_channel(aten.sigmoid.default, gating, axis=dim, shape=call.shape, name=name)
    made = call.graph.new(half, dim, 1, call.shape)
    operands = (Operand(kept, Need.ALIGNED), Operand(factor, Need.ALIGNED))
    call.graph.operations.append(Operation(aten.mul.Tensor, (Slot(0), Slot(1)), {}, operands, made, name))
    return made


def _spatial(call: Call, ndim: int) -> Value:
    """Channelwise, unless there is a dimension less: then there is no batch, and what lies there are the channels."""
    value = call["input"] if "input" in call.arguments else call["self"]
    if value.axis != 1 or value.block != 1 or value.ndim != ndim:
        return call.barrier()
    return call.channelwise(value, 1)


@rule(aten.pad, aten.constant_pad_nd)
def pad(call: Call) -> Value:
    """Padding that leaves the channel axis as it is; `pad` counts two entries per dimension from the last."""
    value, pad = call["self"], call["pad"]
    if value.axis is None:
        return call.barrier()
    place = 2 * (value.ndim - 1 - value.axis)
    if any(pad[place : place + 2]):
        return call.barrier()
    return call.channelwise(value, value.axis, value.block)


@rule(aten.mean, aten.sum, aten.amax, aten.amin, aten.var, aten.std, aten.logsumexp, aten.linalg_vector_norm)
def reduction(call: Call) -> Value:
    """A reduction over dimensions other than the channels'."""
    value, dims = call["self"], call.arguments.get("dim")
    if value.axis is None or dims is None or len(dims) == 0:
        return call.barrier()
    reduced = {dim % value.ndim for dim in dims}
    if value.axis in reduced:
        return call.barrier()
    gone = 0 if call["keepdim"] else sum(dim < value.axis for dim in reduced)
    return call.channelwise(value, value.axis - gone, value.block)


@rule(aten.softmax, aten.log_softmax, aten._softmax, aten._log_softmax)
def softmax(call: Call) -> Value:
    """A softmax over another dimension than the channels'."""
    value = call["self"]
    if value.axis is None or call["dim"] % value.ndim == value.axis:
        return call.barrier()
    return call.channelwise(value, value.axis, value.block)


@rule(gated.select)
def select(call: Call) -> Value:
    """Channel c is the specific or the shared feature's channel c; which one is for `ResolveGates` to say.

    A gate of one α chooses the whole tensor, whichever axis it names, so it follows the channels to theirs.
    """
    features = [call["specific"], call["shared"]]
    axis, block, group = call["axis"] % len(call.shape), 1, call["group"]
    if call.shape_of(call["gate_logits"]) == (1,):
        axis, block = next(((value.axis, value.block) for value in features if value.axis is not None), (axis, 1))
        group = call.shape[axis] // block
    operands = _aligned(call, features, axis, block)
    output = call.graph.new(call.shape[axis] // block, axis, block, call.shape)
    return call.make(output, operands, group=group, axis=axis)


@rule(gated.blend)
def blend(call: Call) -> Value:
    """Channel c is a weighted sum of the specific and the shared feature's channels c.

    One weight for the whole tensor follows the channels to their axis, as a gate of one α does.
    """
    features = [call["specific"], call["shared"]]
    axis, block = call["axis"] % len(call.shape), 1
    if call.shape_of(call["weight"]) == (1,):
        axis, block = next(((value.axis, value.block) for value in features if value.axis is not None), (axis, 1))
    operands = _aligned(call, features, axis, block)
    return call.make(call.graph.new(call.shape[axis] // block, axis, block, call.shape), operands, axis=axis)


@rule(gated.mix)
def mix(call: Call) -> Value:
    """Channel c is a weighted sum of the features' channels c."""
    axis = call["axis"] % len(call.shape)
    operands = _aligned(call, call["features"], axis)
    return call.make(call.graph.new(call.shape[axis], axis, 1, call.shape), operands)


def _aligned(call: Call, features: list[Value], axis: int, block: int = 1) -> dict[int, Operand]:
    if len({call.shape_of(value) for value in features}) > 1:
        raise InputError(
            f"{call.node.name}: its features differ in shape; gates and mixes take features of one shape, so expand "
            "what is to be broadcast first"
        )
    return {id(value): Operand(call.along(value, axis, block), Need.ALIGNED) for value in features}
