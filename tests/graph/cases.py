"""Cases for the table of rules (`test_rules.py`): operators that calculate entry by entry or channel by channel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.graph.small import norm, weight

aten: Any = torch.ops.aten


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
    **{f.__name__: f for f in (torch.expm1, torch.exp2, torch.tan, torch.atan, torch.sinh, torch.cosh, torch.frac)},
    **{f.__name__: f for f in (torch.trunc, torch.sgn, torch.nan_to_num, torch.special.expit)},
    "clip": lambda y: y.clip(-1, 1),
    "log2": lambda y: y.square().add(1).log2() + y.abs().log1p(),
    "logit": lambda y: y.sigmoid().logit(),
    "remainder": lambda y: y.remainder(0.7) + y.fmod(0.3),
    "of two": lambda y: (
        torch.logaddexp(y, -y) + torch.atan2(y, y + 3) + torch.hypot(y, y) + torch.addcdiv(y, y, y.abs() + 1)
    ),
    "of yes and no": lambda y: (y > 0).logical_not() * y + y.isnan(),
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

CALCULATING: dict[str, Case] = {
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
    "masked_fill": apart(lambda n, y: y.masked_fill(y > 1, 0.5).masked_fill(n.p > 0, 0.0), p=p(8, 1, 1)),
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
    "avg_pool3d": apart(lambda n, y: F.avg_pool3d(y.unsqueeze(2), (1, 2, 2))),
    "grid_sample": apart(
        lambda n, y: F.grid_sample(y, n.p.expand(y.shape[0], -1, -1, -1), align_corners=False), p=p(1, 4, 4, 2)
    ),
    "glu": apart(lambda n, y: F.glu(torch.cat([y, y.neg()], 1), 1)),
    "glu of rows": whole(lambda n, y: F.glu(y, 2)),
    "zeros around, channels last": apart(lambda n, y: F.pad(y.movedim(1, -1), (0, 0, 0, 1, 2, 0)), axis=3),
    "zero channels": whole(lambda n, y: F.pad(y[:, :6], (0, 0, 0, 0, 1, 1)), kept=6),
    # reductions and softmax
    "mean": apart(lambda n, y: y.mean((-1, 2))),
    "mean kept": apart(lambda n, y: y.mean(dim=-1, keepdim=True)),
    "mean of the batch": apart(lambda n, y: y.mean(0), axis=0),
    "sum": apart(lambda n, y: torch.sum(y, [2, 3], keepdim=True)),
    "amax": apart(lambda n, y: y.amax(-2)),
    "amin": apart(lambda n, y: y.amin((0, 3)), axis=0),
    "var": apart(lambda n, y: y.var((2, 3), correction=0)),
    "std kept": apart(lambda n, y: y / (1 + y.std((2, 3), keepdim=True))),
    "logsumexp": apart(lambda n, y: y.logsumexp((2, 3))),
    "normalised rows": apart(lambda n, y: F.normalize(y, dim=-1)),
    "normalised channels": whole(lambda n, y: F.normalize(y, dim=1)),
    "mean of channels": whole(lambda n, y: y - y.mean(1, keepdim=True)),
    "sum of all": whole(lambda n, y: y + y.sum()),
    "amax of all": whole(lambda n, y: y + y.amax(())),
    "softmax": apart(lambda n, y: y.softmax(-1)),
    "log_softmax": apart(lambda n, y: F.log_softmax(y, dim=2)),
    "softmax of channels": whole(lambda n, y: y.softmax(-3)),
    "log_softmax of channels": whole(lambda n, y: y.log_softmax(1)),
    "_softmax": apart(lambda n, y: aten._softmax.default(y, -1, False)),
    "_log_softmax": whole(lambda n, y: aten._log_softmax.default(y, 1, False)),
}
