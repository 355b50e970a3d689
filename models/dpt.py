"""The dense prediction transformer's head (Ranftl et al., "Vision Transformers for Dense Prediction", ICCV 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from gatedeploy.errors import InputError
from gatedeploy.models.heads import check_counts, check_size, upsample

MAPS = 4


class DPTHead(nn.Module):
    """Four maps of one size, from four depths of a transformer, reassembled into a pyramid and fused from the top.

    Section 3 of the paper; the class token is ignored, one of its three ways to read it out. In the pyramid the maps
    have 1/8, 1/4, 1/2 and all of their channels, at 4, 2, 1 and ½ times their size, as in the authors' code.

    Args:
        in_channels: channels of the four maps, the shallowest first.
        out_channels: channels of the prediction.
        size: (height, width) of the prediction.
        features: channels of every map while they are fused; InterroGate takes 64, the paper 256.

    Raises:
        InputError: there are not four maps, a count is no positive integer, or `size` is no pair.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int, size: Sequence[int], features: int = 64) -> None:
        super().__init__()
        if not isinstance(in_channels, Sequence) or len(in_channels) != MAPS:
            raise InputError(f"dpt head: reads {MAPS} feature maps, got in_channels {in_channels!r}; a ViT has `taps`")
        check_counts("dpt head", out_channels=out_channels, features=features)
        for channels in in_channels:
            check_counts("dpt head", in_channels=channels)
        self.size = check_size("dpt head", size)
        self.reassemble = nn.ModuleList(
            _reassembly(channels, channels >> (MAPS - 1 - depth), depth, features)
            for depth, channels in enumerate(in_channels)
        )
        self.fuse = nn.ModuleList(Fusion(features, first=depth == MAPS - 1) for depth in range(MAPS))
        self.predict = nn.Sequential(
            nn.Conv2d(features, features, 3, padding=1, bias=False),
            nn.BatchNorm2d(features),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Conv2d(features, out_channels, 1),
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Map four `(batch, in_channels[k], h, w)` to `(batch, out_channels, height, width)`."""
        pyramid = [part(x) for part, x in zip(self.reassemble, maps, strict=True)]
        x = self.fuse[-1](pyramid[-1], None, pyramid[-2].shape[2:])
        for depth in range(MAPS - 2, -1, -1):
            height, width = pyramid[max(depth - 1, 0)].shape[2:]
            size = (height, width) if depth else (2 * height, 2 * width)
            x = self.fuse[depth](pyramid[depth], x, size)
        return upsample(self.predict(x), self.size)


class Fusion(nn.Module):
    """What comes from above is added to a map, refined and enlarged (figure 1, right).

    Args:
        features: channels.
        first: whether nothing comes from above.
    """

    def __init__(self, features: int, first: bool) -> None:
        super().__init__()
        self.before = None if first else Residual(features)
        self.after = Residual(features)
        self.project = nn.Conv2d(features, features, 1)

    def forward(self, x: Tensor, above: Tensor | None, size: Sequence[int]) -> Tensor:
        """Two `(batch, features, h, w)` to `(batch, features, *size)`."""
        if self.before is not None:
            x = above + self.before(x)
        enlarged = F.interpolate(self.after(x), size=tuple(size), mode="bilinear", align_corners=True)
        return self.project(enlarged)  # type: ignore[no-any-return]


class Residual(nn.Module):
    """Two 3×3 convolutions, an activation before each, beside the identity."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, features, h, w)` to the same."""
        return x + self.conv2(self.relu2(self.conv1(self.relu1(x))))  # type: ignore[no-any-return]


def _reassembly(in_channels: int, channels: int, depth: int, features: int) -> nn.Sequential:
    """A map of the transformer as one of the pyramid."""
    resize: nn.Module = nn.Identity()
    if depth < MAPS - 2:
        times = 2 ** (MAPS - 2 - depth)
        resize = nn.ConvTranspose2d(channels, channels, times, times)
    elif depth == MAPS - 1:
        resize = nn.Conv2d(channels, channels, 3, 2, padding=1)
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 1), resize, nn.Conv2d(channels, features, 3, padding=1, bias=False)
    )
