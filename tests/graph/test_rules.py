"""Every rule of the table: what it takes apart computes the same afterwards, and what it must not it leaves whole.

Each case is an operator between a layer and a gate. The gate takes three of eight channels, so of an operator that
goes channel by channel three rows of the layer are left, of any other all eight. Height, width and channels are all
eight, so that a rule which confuses axes is caught.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gatedeploy as gd
from gatedeploy.graph.capture import capture
from gatedeploy.graph.rules import RULES
from gatedeploy.program import Program
from tests.graph.small import (
    PICTURE,
    UNSEEN,
    Net,
    assert_equal,
    calls,
    collapsed,
    conv,
    gate,
    norm,
    prepared,
    shape,
    weight,
)

aten: Any = torch.ops.aten
SELECT = torch.ops.gatedeploy.select
OWN = [1, 4, 6]
"""The channels of the task's own feature that the gate takes."""


@dataclass(frozen=True, eq=False)
class Case:
    """An operator, where its result carries the eight channels, how many rows of the layer stay, and what it uses."""

    operator: Callable[[Any, Tensor], Tensor]
    axis: int
    kept: int
    parts: Callable[[], dict[str, Any]]


def apart(operator: Callable[[Any, Tensor], Tensor], axis: int = 1, kept: int = 3, **parts: Callable[[], Any]) -> Case:
    return Case(operator, axis, kept, lambda: {name: make() for name, make in parts.items()})


def whole(operator: Callable[[Any, Tensor], Tensor], axis: int = 1, kept: int = 8, **parts: Callable[[], Any]) -> Case:
    return Case(operator, axis, kept, lambda: {name: make() for name, make in parts.items()})


def _axis_0() -> gd.ChannelGate:
    return gate(1, 0, 0, 1, 0, 1, 0, 0, axis=0)


def _attention() -> nn.MultiheadAttention:
    return nn.MultiheadAttention(8, 2)


def p(*shape: int) -> Callable[[], nn.Parameter]:
    return lambda: weight(*shape)


def _unary(act: Callable[[Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    return lambda n, y: act(y)


UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    **{f.__name__: f for f in (F.relu, F.relu6, F.leaky_relu, F.elu, F.celu, F.selu, F.gelu, F.silu, F.mish)},
    **{f.__name__: f for f in (F.hardswish, F.hardsigmoid, F.hardtanh, F.softplus, F.logsigmoid, F.hardshrink)},
    **{f.__name__: f for f in (F.softshrink, torch.sigmoid, torch.tanh, torch.abs, torch.neg, torch.exp)},
    **{f.__name__: f for f in (torch.square, torch.erf, torch.sin, torch.cos, torch.floor, torch.ceil, torch.sign)},
    **{f.__name__: f for f in (torch.round, torch.clone, torch.detach, torch.alias_copy, F.dropout)},
    "gelu tanh": lambda y: F.gelu(y, approximate="tanh"),
    "threshold": lambda y: F.threshold(y, 0.1, 20.0),
    "log": lambda y: y.square().add(1).log(),
    "sqrt": lambda y: (y * y + 1).sqrt(),
    "rsqrt": lambda y: (1 + y**2).rsqrt(),
    "reciprocal": lambda y: y.abs().add(1).reciprocal(),
    "clamp": lambda y: y.clamp(-1, max=0.5),
    "clamp_min": lambda y: torch.clamp_min(y, -0.1),
    "clamp_max": lambda y: y.clamp_max(max=0.1),
    "contiguous": lambda y: y.transpose(2, 3).contiguous(),
    "alias": aten.alias.default,
    "detach": aten.detach.default,
    "lift": aten.lift_fresh_copy.default,
    "dropout": lambda y: F.dropout(y, 0.5, training=False),
    "dropout2d": lambda y: F.dropout2d(y, p=0.5, training=False),
    "alpha_dropout": lambda y: F.alpha_dropout(y, 0.5, False),
    "feature_alpha_dropout": lambda y: F.feature_alpha_dropout(y, 0.5, False),
    "to": lambda y: y.to(torch.float64),
    "to, copied": lambda y: y.to(dtype=torch.float64, copy=True),
    "_to_copy": lambda y: aten._to_copy.default(y, dtype=torch.float64),
    "numbers": lambda y: 2 - (y * 3 + 1) / 4,
    "rsub": lambda y: torch.rsub(y, 1.5),
    "comparisons": lambda y: torch.where(y > 0, 1.0, y) * (y < 1) + (y >= 0.5).to(y) + (y <= -0.5).to(y),
    "equality": lambda y: (y.round() == 0).to(y.dtype) + torch.ne(y.round(), 1).to(y.dtype) * y,
}
for name in ("dropout", "clone", "detach", "alias_copy"):
    UNARY.setdefault(name, getattr(torch, name))
del UNARY["alias_copy"]

CASES: dict[str, Case] = {
    **{name: apart(_unary(act)) for name, act in UNARY.items()},
    # two operands, broadcast against each other
    "add": apart(lambda n, y: torch.add(y, y.abs(), alpha=3)),
    "sub": apart(lambda n, y: y.sub(other=y.abs(), alpha=2)),
    "mul of squeezed": apart(lambda n, y: y.mean((2, 3), keepdim=True) * y),
    "mul of one channel": apart(lambda n, y: y[:, :1].mean((2, 3), True) * y, kept=4),
    "mul of a map": apart(lambda n, y: y * n.p, p=p(1, 1, 8, 8)),
    "mul of rows": apart(lambda n, y: n.p * y, p=p(8, 1)),
    "mul of columns": apart(lambda n, y: y * n.p, p=p(8)),
    "mul of both": apart(lambda n, y: y * n.p, p=p(8, 8)),
    "mul per channel": apart(lambda n, y: n.p * y, p=p(8, 1, 1)),
    "mul per channel and pixel": apart(lambda n, y: n.p * y + n.q, p=p(8, 8, 8), q=p(1, 8, 8, 8)),
    "mul of a one": apart(lambda n, y: y * n.p, p=p(1)),
    "mul of a number": apart(lambda n, y: y * n.p, p=p()),
    "mul with more dimensions": apart(lambda n, y: (y * n.p).sum(0), p=p(2, 1, 8, 1, 1)),
    "mul with the transposed": whole(lambda n, y: y * y.transpose(1, 2)),
    "div": apart(lambda n, y: torch.div(y, y.abs() + n.p), p=lambda: torch.ones(8, 1, 1)),
    "div floor": apart(lambda n, y: torch.div(y, 0.7, rounding_mode="floor")),
    "div without rounding": apart(lambda n, y: torch.div(y, y.abs() + 1, rounding_mode=None)),
    "pow": apart(lambda n, y: 1.5**y + y.abs() ** n.p, p=lambda: torch.full((8, 1, 1), 0.5)),
    "extremes": apart(lambda n, y: torch.maximum(torch.minimum(y, n.p), y * 0.5), p=p(8, 1, 1)),
    "where": apart(lambda n, y: torch.where(n.p > 0, y, y.square()), p=p(8, 1, 1)),
    "where of rows": apart(lambda n, y: torch.where(n.p > 0, y, n.q), p=p(8, 1), q=p(8, 1, 1)),
    "lerp": apart(lambda n, y: torch.lerp(y, y.abs(), 0.3) + torch.lerp(y, n.p, n.q), p=p(8, 1, 1), q=p(8, 1, 1)),
    "addcmul": apart(lambda n, y: torch.addcmul(y, n.p, y, value=0.5), p=p(1, 8, 1, 1)),
    "clamp by weights": apart(lambda n, y: torch.clamp(y, min=n.p), p=p(8, 1, 1)),
    "to of a scalar": apart(lambda n, y: y * n.p.to(y) + n.p, p=p()),
    "to of a vector": apart(lambda n, y: y * n.p.to(y).view(8, 1, 1), p=p(8)),
    "type_as": apart(lambda n, y: (y > 0).type_as(y) * y),
    "type_as of a scalar": whole(lambda n, y: y * n.p.type_as(y), p=p()),
    # norms and slopes
    "batch_norm": apart(lambda n, y: n.norm(y), norm=lambda: norm(8)),
    "batch_norm without affine": apart(lambda n, y: n.norm(y) * 1, norm=lambda: norm(8, affine=False)),
    "batch_norm of rows": whole(lambda n, y: n.norm(y.transpose(1, 2)).transpose(1, 2), norm=lambda: norm(8)),
    "functional batch_norm": apart(
        lambda n, y: aten._native_batch_norm_legit_no_training.default(
            y, n.norm.weight, n.norm.bias, n.norm.running_mean, n.norm.running_var, 0.1, 1e-5
        )[0],
        norm=lambda: norm(8),
    ),
    "prelu": apart(lambda n, y: n.slope(y), slope=lambda: nn.PReLU(8)),
    "prelu of one": apart(lambda n, y: n.slope(y), slope=nn.PReLU),
    "prelu of a number": apart(lambda n, y: F.prelu(y, n.p), p=p()),
    "prelu of rows": whole(lambda n, y: n.slope(y.transpose(1, 2)).transpose(1, 2), slope=lambda: nn.PReLU(8)),
    "batch_norm of a weight": apart(lambda n, y: y * n.layer(n.p), layer=lambda: norm(8), p=p(1, 8, 1, 1)),
    "layer_norm": whole(lambda n, y: F.layer_norm(y, (8, 8, 8))),
    "group_norm": whole(lambda n, y: F.group_norm(y, 2)),
    # pooling, resizing, padding
    "max_pool2d": apart(lambda n, y: F.max_pool2d(y, 3, stride=2, padding=1, ceil_mode=True)),
    "avg_pool2d": apart(lambda n, y: F.avg_pool2d(y, 3, 2, padding=1, count_include_pad=False)),
    "adaptive_avg_pool2d": apart(lambda n, y: F.adaptive_avg_pool2d(y, (3, None))),
    "max_pool1d": apart(lambda n, y: F.max_pool1d(y.flatten(2), 2)),
    "avg_pool1d": apart(lambda n, y: F.avg_pool1d(y.flatten(2), 2)),
    "adaptive_avg_pool1d": apart(lambda n, y: F.adaptive_avg_pool1d(y.flatten(2), 3)),
    "nearest": apart(lambda n, y: F.interpolate(y, scale_factor=2)),
    "nearest-exact": apart(lambda n, y: F.interpolate(y, size=(5, 3), mode="nearest-exact")),
    "bilinear": apart(lambda n, y: F.interpolate(y, size=5, mode="bilinear", align_corners=True)),
    "bicubic": apart(lambda n, y: F.interpolate(y, scale_factor=(2, 1.5), mode="bicubic")),
    "nearest 1d": apart(lambda n, y: F.interpolate(y.flatten(2), size=9)),
    "linear 1d": apart(lambda n, y: F.interpolate(y.flatten(2), scale_factor=2.0, mode="linear")),
    "pooling of rows": whole(lambda n, y: F.max_pool2d(y.transpose(1, 2), (2, 1)).transpose(1, 2).repeat(1, 2, 1, 1)),
    "pooling without a batch": whole(lambda n, y: F.avg_pool1d(y.mean((2, 3)), 3, 1, 1)),
    "pooling of planes": whole(lambda n, y: F.max_pool2d(y.flatten(2), 3, 1, 1)),
    "zeros around": apart(lambda n, y: F.pad(y, (1, 2, 0, 1), value=3.0)),
    "reflected": apart(lambda n, y: F.pad(y, (1, 1, 2, 0), mode="reflect")),
    "cropped": apart(lambda n, y: F.pad(y, (-1, -1))),
    "constant_pad_nd": apart(lambda n, y: aten.constant_pad_nd.default(y, [1, 1], 0.5)),
    "zero channels": whole(lambda n, y: F.pad(y[:, :6], (0, 0, 0, 0, 1, 1)), kept=6),
    # reductions and softmax
    "mean": apart(lambda n, y: y.mean((-1, 2))),
    "mean kept": apart(lambda n, y: y.mean(dim=-1, keepdim=True)),
    "mean of the batch": apart(lambda n, y: y.mean(0), axis=0),
    "sum": apart(lambda n, y: torch.sum(y, [2, 3], keepdim=True)),
    "amax": apart(lambda n, y: y.amax(-2)),
    "amin": apart(lambda n, y: y.amin((0, 3)), axis=0),
    "mean of channels": whole(lambda n, y: y - y.mean(1, keepdim=True)),
    "sum of all": whole(lambda n, y: y + y.sum()),
    "amax of all": whole(lambda n, y: y + y.amax(())),
    "softmax": apart(lambda n, y: y.softmax(-1)),
    "log_softmax": apart(lambda n, y: F.log_softmax(y, dim=2)),
    "softmax of channels": whole(lambda n, y: y.softmax(-3)),
    "log_softmax of channels": whole(lambda n, y: y.log_softmax(1)),
    "_softmax": apart(lambda n, y: aten._softmax.default(y, -1, False)),
    "_log_softmax": whole(lambda n, y: aten._log_softmax.default(y, 1, False)),
    # dimensions that move
    "permute": apart(lambda n, y: y.permute(0, -1, 2, 1), axis=3),
    "transpose": apart(lambda n, y: y.transpose(-1, 1), axis=3),
    "transpose of others": apart(lambda n, y: y.transpose(2, 3)),
    "unsqueeze": apart(lambda n, y: y.unsqueeze(-1)),
    "unsqueeze before": apart(lambda n, y: y.unsqueeze(1), axis=2),
    "unsqueeze from behind": apart(lambda n, y: y.unsqueeze(-4), axis=2),
    "squeeze": apart(lambda n, y: y.mean((2, 3), keepdim=True).squeeze(-1).squeeze(2)),
    "squeeze of several": apart(lambda n, y: y.mean((2, 3), keepdim=True).squeeze((2, -1))),
    "squeeze of nothing": apart(lambda n, y: y.squeeze(2)),
    "squeeze before": apart(lambda n, y: y.unsqueeze(1).squeeze(1)),
    "squeeze of all": whole(lambda n, y: y.unsqueeze(1).squeeze()),
    "expand": apart(lambda n, y: y.mean((2, 3), keepdim=True).expand(-1, 8, 5, -1)),
    "expand before": apart(lambda n, y: y.expand(2, *y.shape), axis=2),
    "expand of one channel": whole(lambda n, y: y.mean(1, keepdim=True).expand(-1, 8, -1, -1)),
    "repeat": whole(lambda n, y: y.repeat(1, 1, 2, 1)),
    "flip": whole(lambda n, y: y.flip(1)),
    "view as tokens": apart(lambda n, y: y.view(y.shape[0], 8, -1)),
    "reshape": apart(lambda n, y: torch.reshape(y, (-1, 8, 4, 16))),
    "flatten": apart(lambda n, y: y.flatten(start_dim=-2)),
    "_unsafe_view": apart(lambda n, y: aten._unsafe_view.default(y, [-1, 8, 64])),
    "reshape to more": apart(lambda n, y: y.reshape(-1, 1, 8, 2, 32), axis=2),
    "reshape that joins channels and rows": whole(lambda n, y: y.reshape(-1, 4, 2, 64).transpose(1, 2).flatten(1, 2)),
    "reshape that splits channels": whole(lambda n, y: y.view(-1, 2, 4, 8, 8).transpose(1, 2).reshape(-1, 8, 8, 8)),
    "reshape of the batch": apart(lambda n, y: y.unsqueeze(0).flatten(0, 1)),
    "reshape of pixels and batch": whole(lambda n, y: y.permute(2, 1, 0, 3).flatten(1, 2).mean(0)[:8], axis=0),
    "view of what was made contiguous": whole(
        lambda n, y: y.view(-1, 2, 4, 8, 8).transpose(1, 2).contiguous().view(-1, 8, 8, 8)
    ),
    "reshape that joins the batch": whole(
        lambda n, y: n.attention(*3 * [y.flatten(2).permute(2, 0, 1)])[0], axis=2, attention=_attention
    ),
    # blocks of neighbouring entries
    "flattened and back": apart(lambda n, y: torch.relu(y.flatten(1)).view(-1, 8, 8, 8)),
    "flattened, scaled and back": apart(lambda n, y: (n.p * y.flatten(1)).view(-1, 8, 8, 8), p=p(512)),
    "flattened, expanded and back": apart(
        lambda n, y: y.flatten(1).unsqueeze(1).expand(-1, 3, -1).sum(1).reshape(-1, 8, 64)
    ),
    "flattened and sliced": whole(lambda n, y: y.flatten(1)[:, 1:65].view(-1, 8, 8)),
    "flattened, and softmax": whole(lambda n, y: y.flatten(1).softmax(1).view(-1, 8, 8, 8)),
    "pixels before channels": apart(lambda n, y: y.permute(0, 2, 3, 1).flatten(1, 2), axis=2),
    "pixels and channels joined": whole(lambda n, y: y.permute(0, 2, 3, 1).flatten(1).view(-1, 8, 8, 8), axis=3),
    # cut, joined, taken apart
    "slice": apart(lambda n, y: torch.cat([y[:, 5:], y[:, :-3]], dim=-3)),
    "slice of everything": apart(lambda n, y: y[:, :][:, :, :][..., :8]),
    "slice of nothing": whole(lambda n, y: torch.cat([y[:, 8:], y], 1)),
    "slice with steps": apart(lambda n, y: torch.cat([y[:, ::2], y[:, 1:100:2]], 1)),
    "slice from far behind": apart(lambda n, y: y[:, -100:]),
    "slice of rows": apart(lambda n, y: y[:, :, 1:-1:2]),
    "narrow": apart(lambda n, y: torch.cat([y.narrow(1, -3, 3), y.narrow(-3, 0, 5)], 1)),
    "narrow of rows": apart(lambda n, y: y.narrow(2, 1, 3)),
    "split": apart(lambda n, y: torch.concat([*y.split([3, 4, 1], dim=1)][::-1], 1)),
    "chunk": apart(lambda n, y: torch.cat(y.chunk(3, dim=-3), dim=1)),
    "split of equals": apart(lambda n, y: torch.cat(torch.split(y, 5, 1), 1)),
    "split into one": whole(lambda n, y: y.split(8, 2)[0]),
    "unbind of one": whole(lambda n, y: y.unsqueeze(1).unbind(1)[0]),
    "split of rows": whole(lambda n, y: torch.cat(y.split([4, 4], dim=2), 2)),
    "cat of rows": apart(lambda n, y: torch.cat([y, y.square()], dim=2)),
    "cat of the batch": apart(lambda n, y: torch.cat([y, y.square()])),
    "cat of the batch, flattened": apart(
        lambda n, y: torch.cat([y.flatten(1), y.flatten(1).abs()]).view(2, -1, 512).mean(0).view(-1, 8, 8, 8)
    ),
    "cat with a class token": apart(
        lambda n, y: torch.cat([n.p.expand(y.shape[0], -1, -1), y.flatten(2).mT], 1), axis=2, p=p(1, 1, 8)
    ),
    "cat with an empty tensor": whole(lambda n, y: torch.cat([torch.empty(0, dtype=y.dtype), y], 1)),
    "part of a weight": apart(
        lambda n, y: torch.cat([y.mean(0, True)[:, :1], n.p], 1)[:, 1:2] * y.transpose(1, 2), axis=2, p=p(1, 3, 8, 8)
    ),
    "cat with a weight": apart(lambda n, y: torch.cat([y.mean(0, True)[:, :5], n.p], 1), kept=2, p=p(1, 3, 8, 8)),
    "cat with a view": whole(lambda n, y: torch.cat([y[:, :4], y.transpose(1, 2)[:, :4]], 1)),
    "select": apart(lambda n, y: y.select(-1, -1) + y[:, :, 0]),
    "select of the batch": apart(lambda n, y: y[0], axis=0),
    "select of a channel": whole(lambda n, y: y - y[:, 2:3] + y.select(1, 3).unsqueeze(1)),
    "stack": apart(lambda n, y: torch.stack([y, y.abs()], dim=-1).mean(-1)),
    "stack before": apart(lambda n, y: torch.stack([y, y.abs()], 1), axis=2),
    "stack of flattened": whole(
        lambda n, y: torch.stack([y.flatten(1), y.flatten(1).abs()], 1).sum(1).view(-1, 8, 8, 8)
    ),
    "stack of views": whole(lambda n, y: torch.stack([y, y.transpose(1, 2)], 0).amax(0)),
    "index": whole(lambda n, y: y[:, torch.arange(7, -1, -1)]),
    # layers
    "depthwise": apart(lambda n, y: n.layer(y), layer=lambda: conv(8, 8, 3, groups=8)),
    "depthwise 1d": apart(lambda n, y: n.layer(y.flatten(2)), layer=lambda: nn.Conv1d(8, 8, 3, groups=8, bias=False)),
    "depthwise of rows": whole(
        lambda n, y: n.layer(y.transpose(1, 2)).transpose(1, 2), layer=lambda: conv(8, 8, 1, groups=8)
    ),
    "conv2d": whole(lambda n, y: n.layer(y), layer=lambda: conv(8, 8, 3, padding="same", dilation=2)),
    "conv1d": whole(lambda n, y: n.layer(y.flatten(2)), layer=lambda: nn.Conv1d(8, 8, 3, stride=2)),
    "conv3d": whole(lambda n, y: n.layer(y.unsqueeze(2)), layer=lambda: nn.Conv3d(8, 8, (1, 3, 3))),
    "grouped": whole(lambda n, y: n.layer(y), layer=lambda: conv(8, 8, 3, groups=2)),
    "depth multiplier": whole(lambda n, y: n.layer(y)[:, ::2], layer=lambda: conv(8, 16, 3, groups=8)),
    "conv of rows": whole(lambda n, y: n.layer(y.transpose(1, 2)), layer=lambda: conv(8, 8, 1)),
    "conv_transpose1d": whole(lambda n, y: n.layer(y.flatten(2)), layer=lambda: nn.ConvTranspose1d(8, 8, 2, 2)),
    "conv_transpose2d": whole(
        lambda n, y: n.layer(y), layer=lambda: nn.ConvTranspose2d(8, 8, 3, 2, 1, output_padding=1, bias=False)
    ),
    "conv_transpose3d": whole(lambda n, y: n.layer(y.unsqueeze(2)), layer=lambda: nn.ConvTranspose3d(8, 8, 1)),
    "grouped conv_transpose2d": whole(lambda n, y: n.layer(y), layer=lambda: nn.ConvTranspose2d(8, 8, 2, groups=2)),
    "conv of a computed weight": whole(lambda n, y: F.conv2d(y, n.p.exp(), padding=1), p=p(8, 8, 3, 3)),
    "conv of a weight": apart(lambda n, y: y * n.layer(n.p), layer=lambda: conv(3, 8), p=p(1, 3, 1, 1)),
    "conv with a computed bias": whole(lambda n, y: F.conv2d(y, n.w, n.p * 2), w=p(8, 8, 1, 1), p=p(8)),
    "conv with a gated bias": whole(
        lambda n, y: F.conv2d(y, n.w, n.gate(n.p, n.q)), w=p(8, 8, 1, 1), p=p(8), q=p(8), gate=_axis_0
    ),
    "gram matrix": apart(lambda n, y: y.mean((2, 3)) * F.linear(n.p, n.p).sum(0), p=p(8, 3)),
    "linear on its bias": apart(lambda n, y: y.mean((2, 3)) * F.linear(n.p, n.q, n.p), p=p(8), q=p(8, 8)),
    "linear of one row": whole(lambda n, y: F.linear(y, n.p), p=p(8)),
    "linear": whole(lambda n, y: n.layer(y.permute(0, 2, 3, 1)), axis=3, layer=lambda: nn.Linear(8, 8)),
    "linear on blocks": whole(lambda n, y: n.layer(y.flatten(1)), layer=lambda: nn.Linear(512, 8)),
    "linear over columns": apart(lambda n, y: n.layer(y), layer=lambda: nn.Linear(8, 8)),
    "linear over rows": apart(lambda n, y: F.linear(y.transpose(2, 3), n.p, n.q), p=p(5, 8), q=p(5)),
    "linear of a computed weight": whole(
        lambda n, y: F.linear(y.mean((2, 3)), n.p.exp()), p=p(8, 8)
    ),
    "matmul": whole(lambda n, y: y.transpose(1, 3) @ n.p, axis=3, p=p(8, 8)),
    # gates behind gates
    "select behind": apart(lambda n, y: n.gate(y, y.abs()), gate=lambda: gd.ChannelGate(8, group=3)),
    "mix behind": apart(lambda n, y: n.mix(y, y.abs(), y), mix=lambda: gd.Mix(3, 8)),
    "select of a whole": apart(lambda n, y: n.gate(y, y.abs()), gate=gd.TensorGate),
    "select of whole tokens": apart(
        lambda n, y: n.gate(y.flatten(2).mT, y.flatten(2).mT.abs()), axis=2, gate=gd.TensorGate
    ),
    "select of whole lines": apart(lambda n, y: n.gate(y.flatten(2), y.flatten(2).abs()), gate=gd.TensorGate),
    "select of tokens before the batch": apart(
        lambda n, y: SELECT(y.permute(2, 0, 3, 1), y.permute(2, 0, 3, 1).abs(), n.p, y.shape[0], 1), axis=3, p=p(1)
    ),
    "select of rows": whole(lambda n, y: n.gate(y, y.abs()), gate=lambda: gd.ChannelGate(8, axis=2)),
    "mix of columns": whole(lambda n, y: n.mix(y, y.abs()), mix=lambda: gd.Mix(2, 8, axis=-1)),
}  # fmt: skip


class Between(nn.Module):
    """Two layers, the operator behind each, a gate."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.own, self.shared = conv(3, 8), conv(3, 8)
        self.gate = gd.ChannelGate(8, axis=case.axis)
        self.gate.choose([channel in OWN for channel in range(8)])
        self.parts = Net(lambda n, x: x, **case.parts())
        self.operator = case.operator

    def forward(self, x: Tensor) -> Tensor:
        own, shared = (self.operator(self.parts, layer(x)) for layer in (self.own, self.shared))
        return self.gate(own, shared)


class Cases(nn.Module):
    """Several cases side by side, for a capture costs more than an operator."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.names = names
        self.cases = nn.ModuleList(Between(CASES[name]) for name in names)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: case(x) for name, case in zip(self.names, self.cases, strict=True)}


TOGETHER = 20


@cache
def captured(group: int) -> tuple[Cases, Program]:
    torch.manual_seed(group)
    network = Cases(tuple(CASES)[group * TOGETHER : (group + 1) * TOGETHER])
    prepared(network)
    return network, capture(network, PICTURE)


@cache
def collapsed_group(group: int) -> tuple[gd.Collapsed, list[tuple[dict[str, Tensor], dict[str, Tensor]]]]:
    """The collapsed cases, and what they and the gated ones say about pictures and a batch size never seen."""
    network, program = captured(group)
    thin = gd.collapse(program)
    with torch.no_grad():
        return thin, [(thin(pictures), network(pictures)) for pictures in (UNSEEN, UNSEEN[:1])]


@pytest.mark.parametrize("name", CASES)
def test_an_operator_is_taken_apart_where_it_may_be(name: str) -> None:
    group, number = divmod(list(CASES).index(name), TOGETHER)
    thin, computed = collapsed_group(group)
    for got, expected in computed:
        assert_equal(got[name], expected[name])
    assert thin.program.weights[f"cases.{number}.own.weight"].shape[0] == CASES[name].kept


def test_every_rule_of_the_table_was_tried() -> None:
    groups = range(-(-len(CASES) // TOGETHER))
    nodes = [node for group in groups for node in captured(group)[1].graph.nodes]
    called = {str(getattr(node.target, "overloadpacket", None)) for node in nodes}
    assert {str(packet) for packet in RULES} - called == set()


@pytest.mark.parametrize(
    "case",
    [
        whole(lambda n, y: F.scaled_dot_product_attention(y, y.abs(), y * 2)),
        whole(lambda n, y: F.rrelu(y)),
        whole(lambda n, y: n.gru(y[:, :, 0])[0], gru=lambda: nn.GRU(8, 8, batch_first=True)),
    ],
    ids=["attention", "rrelu", "gru"],
)
def test_operators_that_could_draw_numbers_and_do_not(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CASES, "quiet", case)
    thin = collapsed(Cases(("quiet",)))
    assert thin.program.weights["cases.0.own.weight"].shape[0] == case.kept


def test_a_slice_of_everything_is_no_operation() -> None:
    """`x[:, 1:3]` is exported as two slices, the first of the whole batch."""
    thin = collapsed(Net(lambda n, x: n.b(n.a(x)[:, 1:3]), a=conv(), b=conv(2)))
    assert calls(thin.program) == ["conv2d", "conv2d"]


def test_a_feature_may_have_no_channels() -> None:
    collapsed(Net(lambda n, x: {"none": n.a(x)[:, 4:], "all": n.a(x)}, a=conv()))


def test_channels_that_are_repeated_for_each_picture_are_a_barrier() -> None:
    network = Net(lambda n, x: n.gate(n.a(x), n.b(x)).permute(2, 1, 0, 3).flatten(1, 2), a=conv(), b=conv())
    collapsed(network.having(gate=gate(1, 0, 0, 1)))


def test_a_gate_of_a_whole_tensor_follows_its_channels() -> None:
    def run(n: Net, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return n.gate(n.a(tokens), n.b(tokens))[..., 1:]

    network = Net(run, a=nn.Linear(3, 4), b=nn.Linear(3, 4), gate=gd.TensorGate())
    assert shape(collapsed(network), "a.weight") == (3, 3)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (torch.rand_like, "draws random numbers when it is evaluated .rand_like: aten.rand_like.default"),
        (torch.bernoulli, "only deterministic networks can be collapsed"),
        (F.dropout, "dropout drops out in evaluation mode; only deterministic networks"),
        (lambda y: y + torch.empty_like(y).normal_(), "draws random numbers"),
        (
            nn.BatchNorm2d(3, track_running_stats=False),
            r"uses the statistics of the batch .*\(track_running_stats=False",
        ),
    ],
    ids=["rand_like", "bernoulli", "dropout", "normal_", "batch statistics"],
)
def test_what_is_not_deterministic_is_refused(act: Callable[[Tensor], Tensor], message: str) -> None:
    network = Net(lambda n, x: act(x.sigmoid())).having(act=act)
    with pytest.raises(gd.InputError, match=message):
        gd.collapse(network, example_input=PICTURE)
