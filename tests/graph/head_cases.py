"""Cases for the table of rules (`test_rules.py`): operators to which several neighbouring channels are one.

The gate takes channels 1, 4 and 6 of eight: of runs of two channels, which are heads or groups here, the first, third
and fourth, so that six rows of the layer are left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.graph.cases import Case, apart, p, whole
from tests.graph.small import conv


def tokens(y: Tensor) -> Tensor:
    return y.flatten(2).transpose(1, 2)


def heads(y: Tensor, count: int = 4) -> Tensor:
    """(batch, heads, tokens, depth)."""
    return tokens(y).reshape(-1, 64, count, 8 // count).transpose(1, 2)


def joined(x: Tensor) -> Tensor:
    return x.transpose(1, 2).reshape(-1, 64, 8)


def attend(y: Tensor, count: int = 4) -> Tensor:
    q = heads(y, count)
    return joined(F.scaled_dot_product_attention(q, q.abs(), q * 2))


def by_hand(y: Tensor) -> Tensor:
    q = heads(y)
    return joined((0.3 * q @ q.transpose(-2, -1)).softmax(-1) @ q)


def by_einsum(y: Tensor) -> Tensor:
    q = tokens(y).reshape(-1, 64, 4, 2)
    weights = torch.einsum("bqhd,bkhd->bhqk", q, q * 2).softmax(-1)
    return torch.einsum("bhqk,bkhd->bqhd", weights, q.abs()).flatten(2)


def fused(y: Tensor) -> Tensor:
    """Queries, keys and values of one layer: channels 0 and 1 of each head are its query and its key."""
    q, k = tokens(y).view(-1, 64, 4, 2, 1).permute(3, 0, 2, 1, 4).unbind(0)
    attended = joined_heads(F.scaled_dot_product_attention(q, k, k))
    return torch.stack([attended, attended], -1).flatten(2)


def joined_heads(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def across(q: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, q, q)


def joined_with_the_batch(y: Tensor) -> Tensor:
    """As PyTorch's `multi_head_attention_forward`: (tokens, batch · heads, depth) on the way."""
    q = y.flatten(2).permute(2, 0, 1)
    q = q.reshape(64, -1, 2).transpose(0, 1).reshape(-1, 4, 64, 2)
    return across(q).permute(0, 1, 3, 2).reshape(-1, 8, 64)


def products_of_batches(y: Tensor) -> Tensor:
    q = y.reshape(-1, 2, 64).mT
    return torch.bmm(torch.bmm(q, q.mT).softmax(-1), q).mT.reshape(-1, 8, 64)


def masked(y: Tensor, mask: Tensor) -> Tensor:
    q = heads(y)
    return joined(F.scaled_dot_product_attention(q, q, q, attn_mask=mask))


def windows(y: Tensor) -> Tensor:
    """Cut into four windows of sixteen pixels, and back."""
    cut = y.permute(0, 2, 3, 1).view(-1, 2, 4, 2, 4, 8).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, 8).abs()
    return cut.view(-1, 2, 2, 4, 4, 8).permute(0, 1, 3, 2, 4, 5).reshape(-1, 8, 8, 8).roll((1, -2), (1, 2))


def six(operator: Callable[[Any, Tensor], Tensor], axis: int = 1, **parts: Callable[[], Any]) -> Case:
    return whole(operator, axis, 6, **parts)


HEADS: dict[str, Case] = {
    "attention of heads": six(lambda n, y: attend(y), axis=2),
    "attention of heads by hand": six(lambda n, y: by_hand(y), axis=2),
    "attention of one head": whole(lambda n, y: attend(y, 1), axis=2),
    "attention with a mask for all": six(lambda n, y: masked(y, n.p), axis=2, p=p(64, 64)),
    "attention with a mask for each head": six(lambda n, y: masked(y, n.p), axis=2, p=p(1, 4, 64, 64)),
    "attention with a mask for each token": six(lambda n, y: masked(y, n.p), axis=2, p=p(64, 1)),
    "attention with fewer keys": whole(
        lambda n, y: joined(
            F.scaled_dot_product_attention(heads(y), heads(y)[:, :2], heads(y)[:, :2], enable_gqa=True)
        ),
        axis=2,
    ),
    "attention across heads": whole(lambda n, y: joined(across(heads(y).transpose(1, 2)).transpose(1, 2)), axis=2),
    "attention of a fused layer": six(lambda n, y: fused(y), axis=2),
    "attention of heads joined with the batch": six(lambda n, y: joined_with_the_batch(y)),
    "attention of heads joined with the batch, by hand": whole(lambda n, y: products_of_batches(y)),
    "attention with heads last": six(lambda n, y: across(heads(y)).permute(0, 2, 3, 1).flatten(2).mT),
    "attention by einsum": six(lambda n, y: by_einsum(y), axis=2),
    "einsum of planes": apart(lambda n, y: torch.einsum("bchw,bchk->bcwk", y, y.abs())),
    "einsum with one for all": apart(lambda n, y: torch.einsum("b c h w, c h k -> b c k", y, n.p), p=p(1, 8, 2)),
    "einsum of all pairs": whole(lambda n, y: torch.einsum("bchw,bdhw->bcd", y, y)),
    "einsum over channels": whole(lambda n, y: torch.einsum("bchw,dc->bdhw", y, n.p), p=p(8, 8)),
    "einsum of any dimensions": whole(lambda n, y: torch.einsum("...w,wk->...k", y, n.p), p=p(8, 8)),
    "product with one matrix": apart(lambda n, y: y @ n.p, p=p(8, 8)),
    "product with a batch of one": apart(lambda n, y: y @ n.p, p=p(1, 1, 8, 8)),
    "product with a vector": whole(lambda n, y: (y @ n.p).unsqueeze(-1) + y, p=p(8)),
    "product over channels": whole(lambda n, y: tokens(y) @ n.p, axis=2, p=p(8, 8)),
    "product of batches": whole(lambda n, y: torch.bmm(tokens(y), n.p.expand_as(y[:, 0])), axis=2, p=p(1, 8, 8)),
    "heads normalised": six(lambda n, y: joined(F.layer_norm(heads(y), (2,), n.p)), axis=2, p=p(2)),
    "tokens normalised": whole(lambda n, y: F.layer_norm(tokens(y), (8,), n.p, n.q), axis=2, p=p(8), q=p(8)),
    "roots of squares": apart(lambda n, y: F.rms_norm(y, (8,), n.p), p=p(8)),
    "rows normalised": apart(lambda n, y: F.layer_norm(y, (8,), n.p), p=p(8)),
    "unbind of pixels": apart(lambda n, y: torch.stack(y.unbind(2)[::-1], 2)),
    "unbind of channels": whole(lambda n, y: torch.stack(y.unbind(1)[::-1], 1)),
    "unflatten": apart(lambda n, y: y.unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2)),
    "part of what is spread": apart(
        lambda n, y: torch.cat([y.view(-1, 2, 4, 8, 8)[:, 1:, 1:3].flatten(1, 2)] * 4, 1), kept=2
    ),
    "one of what is spread": apart(
        lambda n, y: torch.cat([y.view(-1, 2, 4, 8, 8)[:, 1], y.view(-1, 2, 4, 8, 8).select(1, 0)], 1)
    ),
    "one channel of what is spread": apart(lambda n, y: y.view(-1, 2, 4, 8, 8)[:, 0, 1].unsqueeze(1) + y),
    # Channels 4 to 7, and 1 that is added to.
    "channels of what is spread, one by one": whole(
        lambda n, y: torch.stack(y.view(-1, 2, 4, 8, 8).unbind(1)[1].unbind(1), 1).repeat(1, 2, 1, 1) + y, kept=5
    ),
    "nothing of what is spread": whole(
        lambda n, y: torch.cat([y.view(-1, 2, 4, 8, 8)[:, :, 1:1].flatten(1, 2), y, y[:, :0]], 1)
    ),
    "nothing of what is split": whole(
        lambda n, y: torch.cat([part.flatten(1, 2) for part in y.view(-1, 2, 4, 8, 8).split([0, 4], 2)], 1)
    ),
    "parts of what is spread": apart(
        lambda n, y: torch.cat([x.flatten(1, 2) for x in y.view(-1, 4, 2, 8, 8).chunk(2, 2)], 1)
    ),
    "spread and joined": whole(lambda n, y: torch.cat(y.view(-1, 2, 4, 8, 8).chunk(2, 1)[::-1], 2).flatten(1, 2)),
    "pixels of what is spread": six(
        lambda n, y: y.view(-1, 4, 2, 8, 8)[:, :, :, 0, 0].flatten(1, 2)[..., None, None] + y
    ),
    "spread and computed": six(lambda n, y: (y.view(-1, 4, 2, 8, 8) * n.p).flatten(1, 2), p=p(4, 1, 1, 1)),
    "spread over pixels": apart(lambda n, y: y.view(-1, 4, 2, 4, 16).transpose(1, 2).reshape(-1, 8, 8, 8)),
    "windows": apart(lambda n, y: windows(y), axis=3),
    "roll of channels": whole(lambda n, y: y.roll(1, 1)),
    "roll of everything": whole(lambda n, y: y.roll(1)),
    "channel_shuffle": apart(lambda n, y: F.channel_shuffle(y, 2)),
    "pixel_shuffle": apart(
        lambda n, y: F.pixel_shuffle(torch.stack([y, y.abs(), -y, y.exp()], 2).flatten(1, 2), 2)[..., ::2, ::2]
    ),
    "pixel_shuffle of pictures": whole(
        lambda n, y: F.pixel_shuffle(y.flatten(0, 1).unflatten(0, (-1, 4)), 2).reshape(-1, 8, 8, 8)
    ),
    "instance_norm": apart(lambda n, y: n.norm(y), norm=lambda: nn.InstanceNorm2d(8, affine=True)),
    "instance_norm of constants": whole(
        lambda n, y: n.norm(y), norm=lambda: nn.InstanceNorm2d(8, track_running_stats=True)
    ),
    "group_norm of pairs": six(lambda n, y: n.norm(y), norm=lambda: nn.GroupNorm(4, 8)),
    "group_norm of singles": apart(lambda n, y: n.norm(y), norm=lambda: nn.GroupNorm(8, 8, affine=False)),
    "group_norm of all": whole(lambda n, y: n.norm(y), norm=lambda: nn.GroupNorm(1, 8)),
    "pairs": six(lambda n, y: n.layer(y), layer=lambda: conv(8, 8, 3, groups=4)),
    "pairs to one": six(lambda n, y: torch.cat([n.layer(y)] * 2, 1), layer=lambda: conv(8, 4, 1, groups=4)),
    "pairs of rows": whole(
        lambda n, y: n.layer(y.transpose(1, 2)).transpose(1, 2), layer=lambda: conv(8, 8, 1, groups=4)
    ),
}
