"""The operators that make a network gated, registered with PyTorch so that they survive `torch.export`.

`gatedeploy::select` is InterroGate eq. 2, `gatedeploy::mix` eq. 3, and `gatedeploy::blend` Safe MTL eq. 1. Everything
downstream, the compiler too, recognises a gated network by them alone, whoever wrote the network.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def per_channel(values: Tensor, group: int, channels: int) -> Tensor:
    """One value per channel from one value per `group` neighbouring channels; the last group may be smaller."""
    if len(values) == 1:
        return values.expand(channels)
    return values if group == 1 else values.repeat_interleave(group)[:channels]


def along(values: Tensor, axis: int, ndim: int) -> Tensor:
    """Shape a `(channels,)` vector so that it broadcasts along `axis` of a tensor with `ndim` dimensions."""
    shape = [1] * ndim
    shape[axis] = -1
    return values.view(shape)


def channel_axis(ndim: int) -> int:
    """Where channels are looked for: (batch, tokens, channels), else (batch, channels, …)."""
    return 2 if ndim == 3 else 1


@torch.library.custom_op("gatedeploy::select", mutates_args=())
def select(specific: Tensor, shared: Tensor, gate_logits: Tensor, group: int, axis: int) -> Tensor:
    """φ' = G·φ + (1−G)·ψ with G = 1[σ(α) > ½] (InterroGate eq. 2).

    `specific`, `shared`: equal shapes with `channels` along `axis`. `gate_logits` α: (⌈channels / group⌉,).
    The threshold is taken as α > 0: σ(α) > ½ says the same, but σ rounds small α to ½ and would make a gate
    depend on the precision it is computed in.
    """
    channels = specific.shape[axis]
    chosen = along(per_channel(gate_logits > 0, group, channels), axis, specific.ndim)
    return torch.where(chosen, specific, shared)


@select.register_fake
def _(specific: Tensor, shared: Tensor, gate_logits: Tensor, group: int, axis: int) -> Tensor:
    return torch.empty_like(specific)


def _remember_select(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, int, int], output: Tensor) -> None:
    specific, shared, gate_logits, ctx.group, ctx.axis = inputs
    ctx.save_for_backward(specific, shared, gate_logits)


def _select_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """The chosen input gets the gradient; α gets it straight through the threshold, as if G were σ(α)."""
    specific, shared, gate_logits = ctx.saved_tensors
    channels = specific.shape[ctx.axis]
    chosen = along(per_channel(gate_logits > 0, ctx.group, channels), ctx.axis, specific.ndim)
    to_specific = torch.where(chosen, grad, 0.0) if ctx.needs_input_grad[0] else None
    to_shared = torch.where(chosen, 0.0, grad) if ctx.needs_input_grad[1] else None
    to_gate = None
    if ctx.needs_input_grad[2]:
        others = [dim for dim in range(specific.ndim) if dim != ctx.axis % specific.ndim]
        by_channel = (grad * (specific - shared)).sum(others, dtype=gate_logits.dtype)
        openness = gate_logits.sigmoid()
        to_gate = openness * (1 - openness) * _per_group(by_channel, ctx.group)
    return to_specific, to_shared, to_gate, None, None


def _per_group(by_channel: Tensor, group: int) -> Tensor:
    """Sum neighbouring channels into their groups: the transpose of `per_channel`."""
    if group == 1:
        return by_channel
    missing = -by_channel.shape[0] % group
    return torch.nn.functional.pad(by_channel, (0, missing)).view(-1, group).sum(1)


select.register_autograd(_select_backward, setup_context=_remember_select)


@torch.library.custom_op("gatedeploy::blend", mutates_args=())
def blend(specific: Tensor, shared: Tensor, weight: Tensor, axis: int) -> Tensor:
    """φ' = w·φ + (1−w)·ψ (Safe MTL eq. 1, whose α is 1 − w), exactly φ where w is 1 and exactly ψ where it is 0.

    `specific`, `shared`: equal shapes with `channels` along `axis`. `weight` w in [0, 1]: (1,) or (channels,).
    """
    own = along(weight.to(specific.dtype).expand(specific.shape[axis]), axis, specific.ndim)
    return specific * own + shared * (1 - own)


@blend.register_fake
def _(specific: Tensor, shared: Tensor, weight: Tensor, axis: int) -> Tensor:
    return torch.empty_like(specific)


def _remember_blend(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, int], output: Tensor) -> None:
    specific, shared, weight, ctx.axis = inputs
    ctx.save_for_backward(specific, shared, weight)


def _blend_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    specific, shared, weight = ctx.saved_tensors
    axis = ctx.axis % specific.ndim
    own = along(weight.to(grad.dtype).expand(specific.shape[axis]), axis, grad.ndim)
    to_weight = None
    if ctx.needs_input_grad[2]:
        others = [dim for dim in range(specific.ndim) if dim != axis]
        to_weight = (grad * (specific - shared)).sum(others, dtype=weight.dtype)
        to_weight = to_weight.sum(0, keepdim=True) if len(weight) == 1 else to_weight
    return grad * own, grad * (1 - own), to_weight, None


blend.register_autograd(_blend_backward, setup_context=_remember_blend)


@torch.library.custom_op("gatedeploy::mix", mutates_args=())
def mix(features: list[Tensor], mix_logits: Tensor, axis: int) -> Tensor:
    """ψ' = Σ_t softmax_t(β)_t · φ'_t, the softmax taken over tasks for each channel (InterroGate eq. 3).

    `features`: one tensor per task, equal shapes with `channels` along `axis`. `mix_logits` β: (tasks, channels).
    """
    share = mix_logits.softmax(0).to(features[0].dtype)
    mixed = features[0] * along(share[0], axis, features[0].ndim)
    for feature, part in zip(features[1:], share[1:], strict=True):
        mixed.addcmul_(feature, along(part, axis, feature.ndim))
    return mixed


@mix.register_fake
def _(features: list[Tensor], mix_logits: Tensor, axis: int) -> Tensor:
    return torch.empty_like(features[0])


def _remember_mix(ctx: Any, inputs: tuple[list[Tensor], Tensor, int], output: Tensor) -> None:
    features, mix_logits, ctx.axis = inputs
    ctx.save_for_backward(mix_logits, *features)


def _mix_backward(ctx: Any, grad: Tensor) -> tuple[list[Tensor], Tensor, None]:
    mix_logits, *features = ctx.saved_tensors
    share = mix_logits.softmax(0)
    others = [dim for dim in range(grad.ndim) if dim != ctx.axis % grad.ndim]
    to_share = torch.stack([(grad * feature).sum(others, dtype=share.dtype) for feature in features])
    to_logits = share * (to_share - (share * to_share).sum(0))
    to_features = [grad * along(part, ctx.axis, grad.ndim) for part in share.to(grad.dtype)]
    return to_features, to_logits, None


mix.register_autograd(_mix_backward, setup_context=_remember_mix)

SELECT = torch.ops.gatedeploy.select.default
BLEND = torch.ops.gatedeploy.blend.default
MIX = torch.ops.gatedeploy.mix.default
"""What they are called in captured graphs."""
