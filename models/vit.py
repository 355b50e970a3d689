"""Vision transformers (Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021).

A trunk maps a picture to feature maps `(batch, out_channels, height / 16, width / 16)`, one channel per dimension of
the tokens, so that it takes the heads of other trunks.
Parameters are called what timm calls them (`blocks.0.attn.qkv.weight`), so that its weights load.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gatedeploy.errors import InputError
from gatedeploy.models.heads import check_counts, check_size
from gatedeploy.models.resnet import check_in_channels

PATCH = 16
DEPTH = 12
EPSILON = 1e-6


class ViT(nn.Module):
    """A trunk: patches, positions, a class token, and blocks of attention and MLP with the norms before them.

    Args:
        width: dimensions of a token.
        heads: of the attention.
        size: (height, width) of the picture, multiples of 16.
        taps: after which blocks, counted from 1, the tokens are returned as maps; None takes the last one, normed.
        class_token: return the class token, normed, as a map of one pixel instead.
        in_channels: channels of the picture.

    Attributes:
        out_channels: `width`, once for each tap.
        stride: how many pixels of the picture lie between two neighbours of a map.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        size: Sequence[int],
        taps: Sequence[int] | None,
        class_token: bool,
        in_channels: int,
    ) -> None:
        super().__init__()
        self.grid = tuple(side // PATCH for side in size)
        self.taps = None if taps is None else tuple(taps)
        self.class_token = class_token
        self.out_channels = width if taps is None else (width,) * len(taps)
        self.stride = PATCH
        self.patch_embed = PatchEmbed(width, in_channels)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid[0] * self.grid[1], width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(DEPTH if taps is None else max(taps)))
        self.norm = nn.LayerNorm(width, EPSILON) if taps is None else nn.Identity()
        for parameter in (self.pos_embed, *(part.weight for part in self.modules() if isinstance(part, nn.Linear))):
            nn.init.trunc_normal_(parameter, std=0.02)
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.zeros_(part.bias)

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Map `(batch, in_channels, height, width)` to `(batch, width, height / 16, width / 16)`, once for each tap."""
        patches = self.patch_embed(image)
        x = torch.cat([self.cls_token.expand(patches.shape[0], -1, -1), patches], dim=1) + self.pos_embed
        tapped = []
        for number, block in enumerate(self.blocks, start=1):
            x = block(x)
            if self.taps is not None and number in self.taps:
                tapped.append(self._map(x))
        if tapped:
            return tuple(tapped)
        x = self.norm(x)
        return x[:, 0, :, None, None] if self.class_token else self._map(x)

    def fitted(self, key: str, value: Tensor) -> Tensor:
        """A pretrained tensor as this trunk has it: positions of another picture's square grid are interpolated."""
        if key != "pos_embed" or value.ndim != 3 or value.shape == self.pos_embed.shape:
            return value
        side = math.isqrt(value.shape[1] - 1)
        if value.shape[1] != 1 + side**2:
            return value
        grid = value[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        resized = F.interpolate(grid.float(), size=self.grid, mode="bicubic", align_corners=False, antialias=True)
        return torch.cat([value[:, :1], resized.flatten(2).transpose(1, 2).to(value.dtype)], dim=1)

    def _map(self, tokens: Tensor) -> Tensor:
        return tokens[:, 1:].transpose(1, 2).reshape(-1, tokens.shape[2], *self.grid)


class PatchEmbed(nn.Module):
    """One token for each patch of 16×16 pixels."""

    def __init__(self, width: int, in_channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, width, PATCH, PATCH)

    def forward(self, image: Tensor) -> Tensor:
        """Map `(batch, in_channels, height, width)` to `(batch, patches, width)`."""
        return self.proj(image).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention and MLP, each of the norm of the stream and added to it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, EPSILON)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, EPSILON)
        self.mlp = MLP(width)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, tokens, width)` to the same."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Multi-head self-attention; q, k and v come from one linear layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, tokens, width)` to the same."""
        batch, tokens, width = x.shape
        q, k, v = (
            self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        )
        attended = F.scaled_dot_product_attention(q, k, v)
        return self.proj(attended.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class MLP(nn.Module):
    """Two linear layers, four times as wide between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, tokens, width)` to the same."""
        return self.fc2(self.act(self.fc1(x)))  # type: ignore[no-any-return]


def vit_s16(
    size: int | Sequence[int] = 224,
    taps: Sequence[int] | None = None,
    class_token: bool = False,
    in_channels: int = 3,
) -> ViT:
    """ViT-S/16: 12 blocks of 384 dimensions and 6 heads (Touvron et al., "DeiT", ICML 2021, table 1).

    Args:
        size: height and width of the picture, multiples of 16, or one number for both.
        taps: after which of the 12 blocks the tokens are returned as maps; left out, the last one's, normed.
        class_token: return the class token as a map of one pixel, to classify by.
        in_channels: channels of the picture.

    Raises:
        InputError: the picture has no whole patches, or there are no such blocks.
    """
    return _vit("vit_s16", 384, 6, size, taps, class_token, in_channels)


def vit_b16(
    size: int | Sequence[int] = 224,
    taps: Sequence[int] | None = None,
    class_token: bool = False,
    in_channels: int = 3,
) -> ViT:
    """ViT-B/16: 12 blocks of 768 dimensions and 12 heads (Dosovitskiy et al. 2021, table 1).

    Args:
        size: height and width of the picture, multiples of 16, or one number for both.
        taps: after which of the 12 blocks the tokens are returned as maps; left out, the last one's, normed.
        class_token: return the class token as a map of one pixel, to classify by.
        in_channels: channels of the picture.

    Raises:
        InputError: the picture has no whole patches, or there are no such blocks.
    """
    return _vit("vit_b16", 768, 12, size, taps, class_token, in_channels)


def _vit(
    name: str,
    width: int,
    heads: int,
    size: int | Sequence[int],
    taps: Sequence[int] | None,
    class_token: bool,
    in_channels: int,
) -> ViT:
    check_in_channels(name, in_channels)
    height, width_px = check_size(name, [size, size] if isinstance(size, int) else size)
    if height % PATCH or width_px % PATCH:
        raise InputError(f"{name}: pictures of {height}×{width_px} have no whole patches of {PATCH}×{PATCH} pixels")
    if taps is not None:
        if not isinstance(taps, Sequence) or not taps or class_token:
            raise InputError(f"{name}: taps must be numbers of blocks, and without class_token; got {taps!r}")
        check_counts(name, **{f"taps[{number}]": tap for number, tap in enumerate(taps)})
        if list(taps) != sorted(set(taps)) or max(taps) > DEPTH:
            raise InputError(f"{name}: taps must rise and be at most {DEPTH}, got {list(taps)}")
    return ViT(width, heads, (height, width_px), taps, class_token, in_channels)
