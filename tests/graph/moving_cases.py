"""More cases: operators that move, cut, join and mix channels."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import gatedeploy as gd
from tests.graph.cases import Case, apart, p, whole
from tests.graph.small import conv, gate

aten: Any = torch.ops.aten
SELECT = torch.ops.gatedeploy.select


def _axis_0() -> gd.ChannelGate:
    return gate(1, 0, 0, 1, 0, 1, 0, 0, axis=0)


def _attention() -> nn.MultiheadAttention:
    return nn.MultiheadAttention(8, 2)


def fold(y: torch.Tensor) -> torch.Tensor:
    """Into 16 patches, of which equal pixels make a picture, as MobileViT does, and back."""
    pixels = y.reshape(-1, 2, 4, 2).transpose(1, 2).reshape(-1, 8, 16, 4).transpose(1, 3).reshape(-1, 16, 8)
    back = pixels.abs().view(-1, 4, 16, 8).transpose(1, 3).reshape(-1, 4, 2, 2)
    return back.transpose(1, 2).reshape(-1, 8, 8, 8)


MOVING: dict[str, Case] = {
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
    "expand_as": apart(lambda n, y: y.mean((2, 3), keepdim=True).expand_as(y)),
    "expand_as of the batch": whole(lambda n, y: y[:1].expand_as(y)),
    "reshape_as": apart(lambda n, y: y.flatten(2).reshape_as(y.transpose(2, 3))),
    "view_as": apart(lambda n, y: y.view_as(y.flatten(1)).unflatten(1, (8, 64))),
    "unflatten of a block": apart(lambda n, y: y.flatten(1).unflatten(1, (8, 64))),
    "unflatten behind": apart(lambda n, y: y.unflatten(-1, (4, 2))),
    "swapaxes": apart(lambda n, y: y.swapaxes(-1, 1).swapdims(0, 2), axis=3),
    "movedim": apart(lambda n, y: y.movedim(1, -1).moveaxis((0, 3), (3, 1)).movedim(-1, 0), axis=2),
    "repeat": apart(lambda n, y: y.repeat(2, 1, 1, 2, 1), axis=2),
    "repeat of channels": whole(lambda n, y: y.repeat(1, 2, 1, 1)[:, 4:12]),
    "flip": apart(lambda n, y: y.flip(2, -1)),
    "flip of channels": whole(lambda n, y: y.flip(1)),
    "cumsum": apart(lambda n, y: y.cumsum(-1)),
    "cumsum of channels": whole(lambda n, y: y.cumsum(1)),
    "unfold": apart(lambda n, y: y.unfold(2, 3, 2)),
    "unfold of channels": whole(lambda n, y: y.unfold(1, 8, 1).movedim(-1, 1)),
    "view as tokens": apart(lambda n, y: y.view(y.shape[0], 8, -1)),
    "reshape": apart(lambda n, y: torch.reshape(y, (-1, 8, 4, 16))),
    "flatten": apart(lambda n, y: y.flatten(start_dim=-2)),
    "_unsafe_view": apart(lambda n, y: aten._unsafe_view.default(y, [-1, 8, 64])),
    "reshape to more": apart(lambda n, y: y.reshape(-1, 1, 8, 2, 32), axis=2),
    "reshape that joins channels and rows": apart(lambda n, y: y.reshape(-1, 4, 2, 64).transpose(1, 2).flatten(1, 2)),
    "reshape that splits channels": apart(lambda n, y: y.view(-1, 2, 4, 8, 8).transpose(1, 2).reshape(-1, 8, 8, 8)),
    "reshape of the batch": apart(lambda n, y: y.unsqueeze(0).flatten(0, 1)),
    "reshape of pixels and batch": whole(lambda n, y: y.permute(2, 1, 0, 3).flatten(1, 2).mean(0)[:8], axis=0),
    "view of what was made contiguous": apart(
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
    "pixels and channels joined": apart(lambda n, y: y.permute(0, 2, 3, 1).flatten(1).view(-1, 8, 8, 8), axis=3),
    "pixels and channels joined, scaled": whole(
        lambda n, y: (n.p * y.permute(0, 2, 3, 1).flatten(1)).unflatten(1, (8, 8, 8)), axis=3, p=p(512)
    ),
    "pixels, channels and pixels joined, scaled": whole(
        lambda n, y: (y.transpose(1, 2).flatten(1) * n.p).view(-1, 8, 8, 8), axis=2, p=p(512)
    ),
    "batch and channels joined": apart(lambda n, y: y.flatten(0, 1).transpose(1, 2).view(-1, 8, 8, 8)),
    "batch and channels joined, scaled": whole(lambda n, y: (y.flatten(0, 1) * n.p).view(-1, 8, 8, 8), p=p(8)),
    "folded": apart(lambda n, y: fold(y)),
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
    "unbind of one": apart(lambda n, y: y.unsqueeze(1).unbind(1)[0]),
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
    "select of a channel": whole(lambda n, y: y - y[:, 2:3] + y.select(1, 3).unsqueeze(1), kept=5),
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
    "depth multiplier": apart(lambda n, y: n.layer(y)[:, ::2], layer=lambda: conv(8, 16, 3, groups=8)),
    "conv of rows": whole(lambda n, y: n.layer(y.transpose(1, 2)), layer=lambda: conv(8, 8, 1)),
    "conv_transpose1d": whole(lambda n, y: n.layer(y.flatten(2)), layer=lambda: nn.ConvTranspose1d(8, 8, 2, 2)),
    "conv_transpose2d": whole(
        lambda n, y: n.layer(y), layer=lambda: nn.ConvTranspose2d(8, 8, 3, 2, 1, output_padding=1, bias=False)
    ),
    "conv_transpose3d": whole(lambda n, y: n.layer(y.unsqueeze(2)), layer=lambda: nn.ConvTranspose3d(8, 8, 1)),
    "grouped conv_transpose2d": whole(lambda n, y: n.layer(y), layer=lambda: nn.ConvTranspose2d(8, 8, 2, groups=2)),
    "depthwise conv_transpose2d": apart(
        lambda n, y: n.norm(n.layer(y)),
        layer=lambda: nn.ConvTranspose2d(8, 8, 4, 2, 1, groups=8),
        norm=lambda: nn.BatchNorm2d(8),
    ),
    "depth multiplier, transposed": whole(
        lambda n, y: n.layer(y)[:, ::2], layer=lambda: nn.ConvTranspose2d(8, 16, 2, groups=8)
    ),
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
    "linear of a computed weight": whole(lambda n, y: F.linear(y.mean((2, 3)), n.p.exp()), p=p(8, 8)),
    "matmul": whole(lambda n, y: y.transpose(1, 3) @ n.p, axis=3, p=p(8, 8)),
    # gates behind gates
    "select behind": apart(lambda n, y: n.gate(y, y.abs()), gate=lambda: gd.ChannelGate(8, group=3)),
    "blend behind": apart(lambda n, y: n.gate(y, y.abs()), gate=gd.SoftGate),
    "blend of whole tokens": apart(
        lambda n, y: n.gate(y.flatten(2).mT, y.flatten(2).mT.abs()), axis=2, gate=gd.SoftGate
    ),
    "blend of whole lines": apart(lambda n, y: n.gate(y.flatten(2), y.flatten(2).abs()), gate=gd.SoftGate),
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
}
