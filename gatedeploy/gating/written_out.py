"""Modules of `torch.nn` that hold layers, written out, so that gates can stand between these.

`torch.fx` takes what comes with `torch.nn` for one operator. Of attention and of encoders that hides the layers at
which tasks could part, so a tracer follows these functions in place of their `forward`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def multihead_attention(
    module: nn.MultiheadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,  # only a hint: the mask says the same
) -> Any:
    """(batch, tokens, channels), or the first two the other way round, to the same, and the weights if they are needed.

    `NotImplemented` for what is rarely used: biases as further keys, padding, tokens without a batch, a mask for each
    picture.
    """
    rare = module.bias_k is not None or module.add_zero_attn or key_padding_mask is not None
    one_mask = attn_mask is None or _dimensions(attn_mask) == 2
    if rare or not one_mask or _dimensions(query) not in (3, None):
        return NotImplemented
    q, k, v = (_by_head(module, part) for part in _projected(module, query, key, value))
    if need_weights:
        attended, weights = _with_weights(module, q, k, v, attn_mask)
        weights = weights.mean(1) if average_attn_weights else weights
    else:
        attended, weights = _in_one_call(module, q, k, v, attn_mask), None
    laid = attended.transpose(1, 2) if module.batch_first else attended.permute(2, 0, 1, 3)
    return module.out_proj(laid.flatten(2)), weights


def encoder_layer(
    module: nn.TransformerEncoderLayer,
    src: Tensor,
    src_mask: Tensor | None = None,
    src_key_padding_mask: Tensor | None = None,
    is_causal: bool = False,
) -> Any:
    """Attention and two linear layers, each with its norm before or behind."""
    masks = (src_mask, src_key_padding_mask, is_causal)
    if module.norm_first:
        attended = src + module._sa_block(module.norm1(src), *masks)
        return attended + module._ff_block(module.norm2(attended))
    attended = module.norm1(src + module._sa_block(src, *masks))
    return module.norm2(attended + module._ff_block(attended))


def encoder(
    module: nn.TransformerEncoder,
    src: Tensor,
    mask: Tensor | None = None,
    src_key_padding_mask: Tensor | None = None,
    is_causal: bool | None = None,
) -> Any:
    """Layer after layer."""
    for layer in module.layers:
        src = layer(src, src_mask=mask, src_key_padding_mask=src_key_padding_mask, is_causal=bool(is_causal))
    return src if module.norm is None else module.norm(src)


_WRITTEN: dict[Any, Callable[..., Any]] = {
    nn.MultiheadAttention.forward: multihead_attention,
    nn.TransformerEncoderLayer.forward: encoder_layer,
    nn.TransformerEncoder.forward: encoder,
}


def written_out(module: nn.Module) -> Callable[..., Any] | None:
    """The function that does what this module's `forward` does, if it stands here."""
    return _WRITTEN.get(type(module).forward)


def _projected(
    module: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values: by one layer where they are made of the same, else by three."""
    bias = module.in_proj_bias
    if module._qkv_same_embed_dim and query is key and key is value:
        fused = F.linear(query, module.in_proj_weight, bias)
        q, k, v = fused.chunk(3, -1)
        return q, k, v
    weights: list[Any] = [module.q_proj_weight, module.k_proj_weight, module.v_proj_weight]
    if module._qkv_same_embed_dim:
        weights = _thirds(module, module.in_proj_weight)
    biases = [None] * 3 if bias is None else _thirds(module, bias)
    made = [F.linear(*layer) for layer in zip((query, key, value), weights, biases, strict=True)]
    return made[0], made[1], made[2]


def _thirds(module: nn.MultiheadAttention, rows: Tensor) -> list[Any]:
    return [rows[part * module.embed_dim : (part + 1) * module.embed_dim] for part in range(3)]


def _by_head(module: nn.MultiheadAttention, tokens: Tensor) -> Tensor:
    """(batch, heads, tokens, depth)."""
    shape = (module.num_heads, module.head_dim)
    apart: Tensor = tokens.unflatten(-1, shape)  # type: ignore[no-untyped-call]
    return apart.transpose(1, 2) if module.batch_first else apart.permute(1, 2, 0, 3)


def _with_weights(
    module: nn.MultiheadAttention, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    scores = q * module.head_dim**-0.5 @ k.transpose(-2, -1)
    if mask is not None:
        scores = scores.masked_fill(mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    weights = F.dropout(scores.softmax(-1), module.dropout, module.training)
    return weights @ v, weights


def _in_one_call(module: nn.MultiheadAttention, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    if mask is not None and mask.dtype == torch.bool:
        mask = ~mask  # here True lets through
    dropped = module.dropout if module.training else 0.0
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropped)


def _dimensions(tensor: Tensor | None) -> int | None:
    """How many a tensor has, None where it is not known while it is traced."""
    found = getattr(tensor, "ndim", None)
    return found if isinstance(found, int) else None
