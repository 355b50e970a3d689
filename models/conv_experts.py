"""A residual block whose hidden channels are a mixture of experts, chosen per picture and task.

The plain block has C hidden channels. Here E experts have C / k hidden channels each and every picture passes through
k of them, so that one pass costs what the plain block costs, as M³ViT keeps the cost of its MLPs (Liang et al., "M³ViT:
Mixture-of-Experts Vision Transformer for Efficient Multi-task Learning", NeurIPS 2022). With g_e the router's weight:

    out = ReLU(norm2(Σ_{e chosen} g_e · conv2_e(ReLU(norm1_e(conv1_e(x))))) + shortcut(x))

In training and deployed only the chosen experts are computed: their kernels are gathered and laid side by side, so that
a picture's k experts are one convolution, and a batch is one grouped convolution with a group per picture. In
evaluation all are, as two wide convolutions between which those not chosen are multiplied by 0: E / k times the work,
but a graph that does not depend on the picture.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gatedeploy.models.resnet import BasicBlock
from gatedeploy.models.routing import Experts, Routing, check_top_k

MOMENTUM = 0.1
EPSILON = 1e-5


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
        """Norm `(batch, k · channels, height, width)`, outputs of the experts `chosen: (batch, k)`, in training."""
        slots = split(x, chosen.shape[1])
        scale, shift = affine(self.weight, self.bias, *self._batch_statistics(slots, chosen))
        return (slots * scale[chosen][..., None, None] + shift[chosen][..., None, None]).flatten(1, 2)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Scale and shift of the running statistics, (experts, channels) each."""
        return affine(self.weight, self.bias, self.running_mean, self.running_var)

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


class ConvExperts(Experts):
    """A basic residual block with experts for hidden channels.

    Args:
        plain: the block it replaces; stride, dilation, shortcut and second norm are taken from it.
        experts: E.
        top_k: k, which must divide the plain block's channels.
        tasks: how many tasks may ask.

    Raises:
        InputError: k does not fit.
    """

    def __init__(self, plain: BasicBlock, experts: int, top_k: int, tasks: int) -> None:
        channels, in_channels = plain.conv1.out_channels, plain.conv1.in_channels
        check_top_k(experts, top_k, channels)
        super().__init__(in_channels, experts, top_k, tasks)
        width = channels // top_k
        self.stride = plain.conv1.stride[0]
        self.dilations = (plain.conv1.dilation[0], plain.conv2.dilation[0])
        self.kernel1 = nn.Parameter(torch.empty(experts, width, in_channels, 3, 3))
        self.bn1 = ExpertNorm(experts, width)
        self.kernel2 = nn.Parameter(torch.empty(channels, experts, width, 3, 3))
        self.bn2 = plain.bn2
        self.downsample = plain.downsample
        for kernel in (self.kernel1, self.kernel2):  # k experts side by side start as the plain convolution does
            nn.init.normal_(kernel, std=math.sqrt(2 / (9 * channels)))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, in_channels, height, width)` to `(batch, channels, height / stride, width / stride)`."""
        x = self.for_all(x)
        routing = self.router(x.mean((2, 3)), self.task)
        if self.training:
            self.routing = routing
        out = self.bn2(self._chosen(x, routing) if self.training else self._all(x, routing))
        shortcut: Tensor = x if self.downsample is None else self.downsample(x)
        return F.relu(out + shortcut)

    def _chosen(self, x: Tensor, routing: Routing) -> Tensor:
        hidden = conv_per_picture(x, gathered1(self.kernel1, routing.chosen), self.stride, self.dilations[0])
        hidden = weighted(self.bn1(hidden, routing.chosen).relu(), routing.weights)
        return conv_per_picture(hidden, gathered2(self.kernel2, routing.chosen), 1, self.dilations[1])

    def _all(self, x: Tensor, routing: Routing) -> Tensor:
        scale, shift = self.bn1.folded()
        first = (self.kernel1 * scale[..., None, None, None]).flatten(0, 1)
        hidden = F.conv2d(x, first, shift.flatten(), self.stride, self.dilations[0], self.dilations[0])
        hidden = weighted(hidden.relu(), routing.of_all())
        return F.conv2d(hidden, self.kernel2.flatten(1, 2), None, 1, self.dilations[1], self.dilations[1])

    def deployed(self) -> Experts:
        """A copy with norms folded into kernels, which computes the chosen experts alone."""
        return DeployedConvExperts(self)


class DeployedConvExperts(Experts):
    """`ConvExperts` as they are deployed."""

    kernel1: Tensor
    kernel2: Tensor
    bias1: Tensor
    bias2: Tensor

    def __init__(self, block: ConvExperts) -> None:
        super().__init__(block.kernel1.shape[2], block.kernel1.shape[0], block.router.top_k, block.tasks)
        self.router, self.downsample = block.router, block.downsample
        self.stride, self.dilations = block.stride, block.dilations
        second = block.bn2
        assert second.running_mean is not None
        assert second.running_var is not None
        with torch.no_grad():
            scale1, shift1 = block.bn1.folded()
            scale2, shift2 = affine(second.weight, second.bias, second.running_mean, second.running_var)
            self.register_buffer("kernel1", block.kernel1 * scale1[..., None, None, None])
            self.register_buffer("bias1", shift1)
            self.register_buffer("kernel2", block.kernel2 * scale2[:, None, None, None, None])
            self.register_buffer("bias2", shift2)

    def forward(self, x: Tensor) -> Tensor:
        """As `ConvExperts` in evaluation."""
        x = self.for_all(x)
        routing = self.router(x.mean((2, 3)), self.task)
        chosen = routing.chosen
        bias1 = self.bias1.index_select(0, chosen.flatten()).flatten()
        hidden = conv_per_picture(x, gathered1(self.kernel1, chosen), self.stride, self.dilations[0], bias1)
        hidden = weighted(hidden.relu(), routing.weights)
        bias2 = self.bias2.repeat(x.shape[0])
        out = conv_per_picture(hidden, gathered2(self.kernel2, chosen), 1, self.dilations[1], bias2)
        shortcut = x if self.downsample is None else self.downsample(x)
        return (out + shortcut).relu()

    def deployed(self) -> Experts:
        """Itself."""
        return self


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
