"""A residual block whose hidden channels are a mixture of experts, chosen per picture and task.

The plain block has C hidden channels. Here E experts have C / k hidden channels each and every picture passes through
k of them, so that one pass costs what the plain block costs, as M³ViT keeps the cost of its MLPs (Liang et al., "M³ViT:
Mixture-of-Experts Vision Transformer for Efficient Multi-task Learning", NeurIPS 2022). With g_e the router's weight:

    out = ReLU(norm2(Σ_{e chosen} g_e · conv2_e(ReLU(norm1_e(conv1_e(x))))) + shortcut(x))

Only the chosen experts are computed: their kernels are gathered and laid side by side, so that a picture's k experts
are one convolution, and a batch is one grouped convolution with a group per picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gatedeploy.models.resnet import BasicBlock

MOMENTUM = 0.1
EPSILON = 1e-5


@dataclass(frozen=True)
class Routing:
    """Where a router sent a batch.

    Attributes:
        probabilities: (batch, experts), softmax over the experts.
        chosen: (batch, k) int64, the experts taken.
        weights: (batch, k), g_e of the experts taken.
    """

    probabilities: Tensor
    chosen: Tensor
    weights: Tensor


class Router(nn.Module):
    """Chooses k of E experts from what is seen and asked (M³ViT's task-conditioned router, on pooled features).

    p = softmax(W · (average of x over all pixels + embedding of the task) + b). M³ViT concatenates the two, which for a
    linear W is the same family. The k largest p are kept and divided by their sum (Shazeer et al., "Outrageously Large
    Neural Networks", ICLR 2017). For k = 1 the quotient would be the constant 1 and teach the router nothing, so p
    itself is the weight (Switch Transformers, Fedus et al. 2022, eq. 2).
    """

    def __init__(self, channels: int, experts: int, top_k: int, tasks: int) -> None:
        super().__init__()
        self.top_k = top_k
        self.embedding = nn.Embedding(tasks, channels)
        self.score = nn.Linear(channels, experts)

    def forward(self, x: Tensor, task: Tensor) -> Routing:
        """Route `(batch, channels, height, width)`; the index of the task is `(batch,)` int64, or `()` for all."""
        seen = x.mean((2, 3)) + self.embedding(task)
        probabilities = self.score(seen).softmax(1)
        weights, chosen = probabilities.topk(self.top_k, dim=1)
        if self.top_k > 1:
            weights = weights / weights.sum(1, keepdim=True)
        return Routing(probabilities, chosen, weights)


class ExpertNorm(nn.Module):
    """Batch norm with scale, shift and statistics of each expert's own.

    In training an expert's statistics are those of the pictures that came to it; an expert without pictures keeps its
    running ones. With one expert this is `nn.BatchNorm2d`.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, experts: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(experts, channels))
        self.bias = nn.Parameter(torch.zeros(experts, channels))
        self.register_buffer("running_mean", torch.zeros(experts, channels))
        self.register_buffer("running_var", torch.ones(experts, channels))

    def forward(self, x: Tensor, chosen: Tensor) -> Tensor:
        """Norm `(batch, k · channels, height, width)`, the outputs of the experts `chosen: (batch, k)`."""
        slots = split(x, chosen.shape[1])
        mean, var = self._batch_statistics(slots, chosen) if self.training else (self.running_mean, self.running_var)
        scale, shift = affine(self.weight, self.bias, mean, var)
        return (slots * scale[chosen][..., None, None] + shift[chosen][..., None, None]).flatten(1, 2)

    def _batch_statistics(self, slots: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance, (experts, channels), of `slots: (batch, k, channels, height, width)`; updates its own."""
        came = F.one_hot(chosen, len(self.weight)).to(slots.dtype)  # (batch, k, experts)
        pictures = came.sum((0, 1))[:, None]
        share = came / pictures[:, 0].clamp(min=1)
        mean = torch.einsum("bke,bkc->ec", share, slots.mean((3, 4)))
        centred = slots - mean[chosen][..., None, None]
        var = torch.einsum("bke,bkc->ec", share, centred.square().mean((3, 4)))
        with torch.no_grad():
            values = pictures * slots.shape[3] * slots.shape[4]
            step = MOMENTUM * (pictures > 0).to(slots.dtype)
            self.running_mean.lerp_(mean, step)
            self.running_var.lerp_(var * values / (values - 1).clamp(min=1), step)
        return mean, var


class ExpertBlock(nn.Module):
    """A basic residual block with experts for hidden channels.

    Args:
        plain: the block it replaces; stride, dilation, shortcut and second norm are taken from it.
        experts: E.
        top_k: k, which must divide the plain block's channels.
        tasks: how many tasks may ask.
    """

    def __init__(self, plain: BasicBlock, experts: int, top_k: int, tasks: int) -> None:
        super().__init__()
        channels, in_channels = plain.conv1.out_channels, plain.conv1.in_channels
        width = channels // top_k
        self.stride = plain.conv1.stride[0]
        self.dilations = (plain.conv1.dilation[0], plain.conv2.dilation[0])
        self.router = Router(in_channels, experts, top_k, tasks)
        self.kernel1 = nn.Parameter(torch.empty(experts, width, in_channels, 3, 3))
        self.bn1 = ExpertNorm(experts, width)
        self.kernel2 = nn.Parameter(torch.empty(channels, experts, width, 3, 3))
        self.bn2 = plain.bn2
        self.downsample = plain.downsample
        for kernel in (self.kernel1, self.kernel2):  # k experts side by side start as the plain convolution does
            nn.init.normal_(kernel, std=math.sqrt(2 / (9 * channels)))

    def forward(self, x: Tensor, task: Tensor) -> tuple[Tensor, Routing]:
        """Map `(batch, in_channels, height, width)` to `(batch, channels, height / stride, width / stride)`.

        `task` is as for `Router`.
        """
        routing = self.router(x, task)
        hidden = conv_per_picture(x, gathered1(self.kernel1, routing.chosen), self.stride, self.dilations[0])
        hidden = weighted(self.bn1(hidden, routing.chosen).relu(), routing.weights)
        out = self.bn2(conv_per_picture(hidden, gathered2(self.kernel2, routing.chosen), 1, self.dilations[1]))
        shortcut = x if self.downsample is None else self.downsample(x)
        return (out + shortcut).relu(), routing


class AskedBlock(nn.Module):
    """An `ExpertBlock` as it is deployed for one task: norms folded into the kernels, nothing returned but the map."""

    task: Tensor
    kernel1: Tensor
    kernel2: Tensor
    bias1: Tensor
    bias2: Tensor

    def __init__(self, block: ExpertBlock, task: int) -> None:
        super().__init__()
        self.router = block.router
        self.register_buffer("task", torch.tensor(task, device=block.kernel1.device))
        self.stride, self.dilations = block.stride, block.dilations
        self.downsample = block.downsample
        first, second = block.bn1, block.bn2
        assert second.running_mean is not None
        assert second.running_var is not None
        with torch.no_grad():
            scale1, shift1 = affine(first.weight, first.bias, first.running_mean, first.running_var)
            scale2, shift2 = affine(second.weight, second.bias, second.running_mean, second.running_var)
            self.register_buffer("kernel1", block.kernel1 * scale1[:, :, None, None, None])
            self.register_buffer("bias1", shift1)
            self.register_buffer("kernel2", block.kernel2 * scale2[:, None, None, None, None])
            self.register_buffer("bias2", shift2)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, in_channels, height, width)` to `(batch, channels, height / stride, width / stride)`."""
        routing = self.router(x, self.task)
        chosen, batch = routing.chosen, x.shape[0]
        bias1 = self.bias1.index_select(0, chosen.flatten()).flatten()
        hidden = conv_per_picture(x, gathered1(self.kernel1, chosen), self.stride, self.dilations[0], bias1)
        hidden = weighted(hidden.relu(), routing.weights)
        bias2 = self.bias2.repeat(batch)
        out = conv_per_picture(hidden, gathered2(self.kernel2, chosen), 1, self.dilations[1], bias2)
        shortcut = x if self.downsample is None else self.downsample(x)
        return (out + shortcut).relu()


def affine(weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    """A batch norm with given statistics as y = scale · x + shift."""
    scale = weight * (var + EPSILON).rsqrt()
    return scale, bias - scale * mean


def split(x: Tensor, parts: int) -> Tensor:
    """`(batch, parts · channels, height, width)` as `(batch, parts, channels, height, width)`."""
    batch, channels, height, width = x.shape
    return x.reshape(batch, parts, channels // parts, height, width)


def gathered1(kernel: Tensor, chosen: Tensor) -> Tensor:
    """Of (experts, width, in, 3, 3) those chosen, side by side on the output: (batch · k · width, in, 3, 3)."""
    return kernel.index_select(0, chosen.flatten()).flatten(0, 1)


def gathered2(kernel: Tensor, chosen: Tensor) -> Tensor:
    """Of (out, experts, width, 3, 3) those chosen, side by side on the input: (batch · out, k · width, 3, 3)."""
    batch, top_k = chosen.shape
    out, _, width, *window = kernel.shape
    taken = kernel.index_select(1, chosen.flatten())
    if batch == 1:
        return taken.reshape(out, top_k * width, *window)
    return taken.reshape(out, batch, top_k * width, *window).transpose(0, 1).flatten(0, 1)


def conv_per_picture(x: Tensor, kernels: Tensor, stride: int, dilation: int, bias: Tensor | None = None) -> Tensor:
    """A 3×3 convolution with kernels of each picture's own.

    Args:
        x: (batch, in, height, width).
        kernels: (batch · out, in, 3, 3), `out` rows per picture.
        stride: of the convolution.
        dilation: of the convolution; the map is padded by as much.
        bias: (batch · out,) or None.

    Returns:
        (batch, out, height / stride, width / stride).
    """
    batch = x.shape[0]
    if batch == 1:
        return F.conv2d(x, kernels, bias, stride, dilation, dilation)
    side_by_side = F.conv2d(x.flatten(0, 1)[None], kernels, bias, stride, dilation, dilation, groups=batch)
    return split(side_by_side, batch)[0]


def weighted(hidden: Tensor, weights: Tensor) -> Tensor:
    """Multiply every expert's channels of `(batch, k · width, height, width)` by its weight, `(batch, k)`.

    Weighing what goes into the experts' second convolution weighs what comes out of it, for it is linear.
    """
    return (split(hidden, weights.shape[1]) * weights[:, :, None, None, None]).flatten(1, 2)
