"""Small backbones of the kinds that people bring today, written the way their authors write them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 8


class ConvNeXt(nn.Module):
    """Depthwise 7×7, layer norm over the last axis, MLP, layer scale; a norm over channels before downsampling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 2, 2)
        self.depthwise = nn.Conv2d(WIDTH, WIDTH, 7, padding=3, groups=WIDTH)
        self.norm = nn.LayerNorm(WIDTH, eps=1e-6)
        self.expand, self.act, self.project = nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        self.gamma = nn.Parameter(torch.rand(WIDTH))
        self.weight, self.bias = nn.Parameter(torch.rand(WIDTH)), nn.Parameter(torch.rand(WIDTH))
        self.down = nn.Conv2d(WIDTH, WIDTH, 2, 2)

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        y = self.depthwise(x).permute(0, 2, 3, 1)
        y = self.gamma * self.project(self.act(self.expand(self.norm(y))))
        x = x + y.permute(0, 3, 1, 2)
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = self.weight[:, None, None] * ((x - mean) / torch.sqrt(variance + 1e-6)) + self.bias[:, None, None]
        return self.down(x)


class GlobalResponse(nn.Module):
    """ConvNeXt V2's norm: each channel's strength over the mean of all."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc1, self.fc2 = nn.Conv2d(3, WIDTH, 2, 2), nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, 4)
        self.gamma, self.beta = nn.Parameter(torch.rand(1, 1, 1, 16)), nn.Parameter(torch.rand(1, 1, 1, 16))

    def forward(self, x: Tensor) -> Any:
        x = F.gelu(self.fc1(self.stem(x).permute(0, 2, 3, 1)))
        strength = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
        x = self.gamma * (x * (strength / (strength.mean(dim=-1, keepdim=True) + 1e-6))) + self.beta + x
        return self.fc2(x).permute(0, 3, 1, 2)


class Swin(nn.Module):
    """Shifted windows, a relative position bias looked up in a table, a mask, and patches merged."""

    mask: Tensor
    index: Tensor

    def __init__(self, heads: int = 2, window: int = 4, side: int = 8) -> None:
        super().__init__()
        self.heads, self.window, self.side = heads, window, side
        self.patch = nn.Conv2d(3, WIDTH, 1)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(4 * WIDTH)
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.merge = nn.Linear(4 * WIDTH, 2 * WIDTH, bias=False)
        self.table = nn.Parameter(torch.randn((2 * window - 1) ** 2, heads) * 0.1)
        place = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        apart = place[:, :, None] - place[:, None, :] + window - 1
        self.register_buffer("index", apart[0] * (2 * window - 1) + apart[1])
        zone = torch.zeros(1, side, side, 1)
        zone[:, side - window // 2 :] += 1
        zone[:, :, side - window // 2 :] += 2
        zones = self.windows(zone).squeeze(-1)
        self.register_buffer("mask", (zones[:, None] - zones[:, :, None]).ne(0).float() * -100)

    def windows(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        w = self.window
        x = x.view(batch, height // w, w, width // w, w, channels)
        return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, w * w, channels)

    def forward(self, x: Tensor) -> Any:
        x = self.patch(x).permute(0, 2, 3, 1)
        shift, w, count = self.window // 2, self.window**2, (self.side // self.window) ** 2
        cut = self.windows(torch.roll(self.norm1(x), shifts=(-shift, -shift), dims=(1, 2)))
        qkv = self.qkv(cut).reshape(-1, w, 3, self.heads, WIDTH // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        scores = (q * 0.5) @ k.transpose(-2, -1)
        bias = self.table[self.index.view(-1)].view(w, w, -1).permute(2, 0, 1).contiguous()
        scores = scores + bias.unsqueeze(0)
        scores = scores.view(-1, count, self.heads, w, w) + self.mask.unsqueeze(1).unsqueeze(0)
        weights = scores.view(-1, self.heads, w, w).softmax(dim=-1)
        out = self.proj((weights @ v).transpose(1, 2).reshape(-1, w, WIDTH))
        n = self.side // self.window
        out = out.view(-1, n, n, self.window, self.window, WIDTH).permute(0, 1, 3, 2, 4, 5)
        x = x + torch.roll(out.contiguous().view(-1, self.side, self.side, WIDTH), (shift, shift), (1, 2))
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        return self.merge(self.norm2(x)).permute(0, 3, 1, 2)


class ShuffleNet(nn.Module):
    """ShuffleNet V2: half of the channels go through, the others are convolved, then both are shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, WIDTH, 3, 2, 1), nn.BatchNorm2d(WIDTH), nn.ReLU(inplace=True))
        half = WIDTH // 2
        self.branch = nn.Sequential(
            *(nn.Conv2d(half, half, 1), nn.BatchNorm2d(half), nn.ReLU(inplace=True)),
            *(nn.Conv2d(half, half, 3, 1, 1, groups=half), nn.BatchNorm2d(half)),
            *(nn.Conv2d(half, half, 1), nn.BatchNorm2d(half), nn.ReLU(inplace=True)),
        )
        self.last = nn.Conv2d(WIDTH, 5, 1)

    def forward(self, x: Tensor) -> Any:
        kept, x = self.stem(x).chunk(2, dim=1)
        x = torch.cat((kept, self.branch(x)), dim=1)
        batch, channels, height, width = x.size()
        x = x.view(batch, 2, channels // 2, height, width)
        x = torch.transpose(x, 1, 2).contiguous()
        return self.last(x.view(batch, -1, height, width))


class MobileNetV3(nn.Module):
    """Expansion, depthwise, squeeze and excitation with hard sigmoid, projection, hard swish."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.Hardswish())
        self.expand = nn.Sequential(nn.Conv2d(4, 16, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish())
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 5, 1, 2, groups=16, bias=False), nn.BatchNorm2d(16))
        self.squeeze, self.excite = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.project = nn.Sequential(nn.Conv2d(16, 4, 1, bias=False), nn.BatchNorm2d(4))

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        y = self.depthwise(self.expand(x))
        scale = F.hardsigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, output_size=1)))), inplace=True)
        return x + self.project(F.hardswish(scale * y))


class ResNeXt(nn.Module):
    """A bottleneck with a convolution in groups, and group norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 3, 2, 1)
        self.conv1, self.norm1 = nn.Conv2d(WIDTH, WIDTH, 1, bias=False), nn.GroupNorm(4, WIDTH)
        self.conv2, self.norm2 = nn.Conv2d(WIDTH, 2 * WIDTH, 3, 1, 1, groups=4, bias=False), nn.BatchNorm2d(2 * WIDTH)
        self.conv3 = nn.Conv2d(2 * WIDTH, WIDTH, 1)

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x).relu_()
        y = self.norm1(self.conv1(x)).relu()
        return F.relu(x + self.conv3(F.relu(self.norm2(self.conv2(y)))), inplace=True)


class Res2Net(nn.Module):
    """Parts of the channels, each convolved after the one before was added."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv3 = nn.Conv2d(3, WIDTH, 3, 2, 1), nn.Conv2d(WIDTH, 5, 1)
        self.convs = nn.ModuleList(nn.Conv2d(2, 2, 3, 1, 1, bias=False) for _ in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm2d(2) for _ in range(3))

    def forward(self, x: Tensor) -> Any:
        parts = torch.split(torch.relu(self.conv1(x)), 2, 1)
        found: list[Tensor] = []
        for number, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = parts[number] if number == 0 else found[-1] + parts[number]
            found.append(torch.relu(norm(conv(y))))
        return self.conv3(torch.cat([*found, parts[3]], 1))


class Mixer(nn.Module):
    """MLPs over tokens and over channels in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, WIDTH, 4, 4)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.tokens = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 4))
        self.channels = nn.Sequential(nn.Linear(WIDTH, 12), nn.GELU(), nn.Linear(12, WIDTH))

    def forward(self, x: Tensor) -> Any:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        x = x + self.channels(self.norm2(x))
        return x.mean(dim=1)


class SpatialGatingMLP(nn.Module):
    """gMLP: one half of the channels, mixed over tokens, gates the other."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.fc1, self.fc2 = nn.Conv2d(3, WIDTH, 4, 4), nn.Linear(WIDTH, 12), nn.Linear(6, WIDTH)
        self.norm, self.over_tokens = nn.LayerNorm(6), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Any:
        x = self.patch(x).flatten(2).transpose(1, 2)
        u, v = F.gelu(self.fc1(x)).chunk(2, dim=-1)
        v = self.over_tokens(self.norm(v).transpose(-1, -2)).transpose(-1, -2)
        return x + self.fc2(u * v)


class ViTWithClassToken(nn.Module):
    """A class token, q and k normed per head, layer scale, logits for a class token alone."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, WIDTH, 4, 4)
        self.cls_token, self.pos_embed = nn.Parameter(torch.randn(1, 1, WIDTH)), nn.Parameter(torch.randn(1, 5, WIDTH))
        self.norm1, self.qkv, self.proj = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.q_norm, self.k_norm = nn.LayerNorm(4), nn.LayerNorm(4)
        self.scale1 = nn.Parameter(torch.rand(WIDTH))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Any:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1) + self.pos_embed
        batch, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(batch, tokens, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        y = F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v, dropout_p=0.0)
        x = x + self.proj(y.transpose(1, 2).reshape(batch, tokens, width)) * self.scale1
        return self.norm(x)[:, 0]


class CrossCovariance(nn.Module):
    """XCiT: attention between the channels of each head."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.qkv, self.proj = (
            nn.Conv2d(3, WIDTH, 2, 2),
            nn.Linear(WIDTH, 3 * WIDTH),
            nn.Linear(WIDTH, WIDTH),
        )
        self.temperature = nn.Parameter(torch.rand(2, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Any:
        x = self.patch(x).flatten(2).transpose(1, 2)
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, 2, width // 2).permute(2, 0, 3, 4, 1).unbind(0)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        weights = ((q @ k.transpose(-2, -1)) * self.temperature).softmax(dim=-1)
        return x + self.proj((weights @ v).permute(0, 3, 1, 2).reshape(batch, tokens, width))


class ReducedAttention(nn.Module):
    """SegFormer: keys and values of a smaller map, from one layer; a depthwise convolution in the MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.reduce = nn.Conv2d(3, WIDTH, 3, 2, 1), nn.Conv2d(WIDTH, WIDTH, 2, 2)
        self.norm, self.q, self.kv = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2 * WIDTH)
        self.proj, self.fc1, self.fc2 = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 12), nn.Linear(12, WIDTH)
        self.depthwise = nn.Conv2d(12, 12, 3, 1, 1, groups=12)

    def forward(self, x: Tensor) -> Any:
        feature = self.patch(x)
        batch, width, height, side = feature.shape
        x = feature.flatten(2).transpose(1, 2)
        q = self.q(x).reshape(batch, -1, 2, width // 2).permute(0, 2, 1, 3)
        small = self.norm(self.reduce(feature).reshape(batch, width, -1).permute(0, 2, 1))
        kv = self.kv(small).reshape(batch, -1, 2, 2, width // 2).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, kv[0], kv[1])
        x = x + self.proj(y.transpose(1, 2).reshape(batch, -1, width))
        y = self.fc1(x).transpose(1, 2).view(batch, 12, height, side)
        return x + self.fc2(F.gelu(self.depthwise(y).flatten(2).transpose(1, 2)))


class TorchEncoder(nn.Module):
    """PyTorch's own module of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, WIDTH, 4, 4)
        self.norm, self.attention = nn.LayerNorm(WIDTH), nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 12), nn.GELU(), nn.Dropout(0.0), nn.Linear(12, WIDTH))

    def forward(self, x: Tensor) -> Any:
        x = self.patch(x).flatten(2).permute(0, 2, 1)
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(x)


class NonLocal(nn.Module):
    """Attention over pixels with `bmm`, and an ECA gate: a convolution along the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 3, 2, 1)
        self.theta, self.phi, self.g = (nn.Conv2d(WIDTH, 4, 1) for _ in range(3))
        self.out = nn.Sequential(nn.Conv2d(4, WIDTH, 1), nn.BatchNorm2d(WIDTH))
        self.eca = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Any:
        x = torch.relu(self.stem(x))
        batch, _, height, width = x.shape
        theta, phi, g = (layer(x).view(batch, 4, -1) for layer in (self.theta, self.phi, self.g))
        weights = torch.bmm(theta.permute(0, 2, 1), phi).softmax(-1)
        y = torch.bmm(weights, g.permute(0, 2, 1)).permute(0, 2, 1).contiguous().view(batch, 4, height, width)
        x = x + self.out(y)
        scale = self.eca(x.mean((2, 3)).unsqueeze(1)).sigmoid().transpose(1, 2).unsqueeze(-1)
        return x * scale.expand_as(x)


class PixelShuffled(nn.Module):
    """Super-resolution: two halvings of the channels for each doubling of the sides, beside a plain enlargement."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.up = nn.Conv2d(3, 4, 3, 1, 1), nn.Conv2d(4, 3 * 4, 3, 1, 1)
        self.down = nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Any:
        y = F.leaky_relu(self.conv(x), 0.1)
        big = F.pixel_shuffle(self.up(y), 2) + F.interpolate(x, scale_factor=2, mode="bicubic")
        return {"big": big, "small": self.down(F.pixel_unshuffle(big, 2))}


class RepVGG(nn.Module):
    """Three branches added up: 3×3, 1×1 and a norm alone; instance norm at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 3, 1, 1)
        self.dense = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, 1, 1, bias=False), nn.BatchNorm2d(WIDTH))
        self.point = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 1, bias=False), nn.BatchNorm2d(WIDTH))
        self.identity, self.last = nn.BatchNorm2d(WIDTH), nn.InstanceNorm2d(WIDTH, affine=True)

    def forward(self, x: Tensor) -> Any:
        x = F.silu(self.stem(x))
        return self.last(F.relu(self.dense(x) + self.point(x) + self.identity(x)))


class Gathered(nn.Module):
    """A dictionary of features and a tuple in it, from a loop over children, one layer used at two depths."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleDict(
            {"one": nn.Conv2d(3, 4, 3, 2, 1), "two": nn.Conv2d(4, 6, 3, 2, 1), "three": nn.Conv2d(6, 6, 1)}
        )
        self.again = self.stages["three"]

    def forward(self, x: Tensor) -> Any:
        found = []
        for layer in self.stages.values():
            x = F.relu(layer(x))
            found.append(x)
        return {"pyramid": (found[0], (found[1], found[2])), "last": F.max_pool2d(self.again(x), kernel_size=2)}


MODERN = [
    *(ConvNeXt, GlobalResponse, Swin, ShuffleNet, MobileNetV3, ResNeXt, Res2Net, Mixer, SpatialGatingMLP),
    *(ViTWithClassToken, CrossCovariance, ReducedAttention, TorchEncoder, NonLocal, PixelShuffled, RepVGG, Gathered),
]
