"""What kind of operator a node of a traced backbone is."""

from __future__ import annotations

import operator

import torch
from torch import fx, nn
from torch.nn import functional as F

MIXING_MODULES = (nn.modules.conv._ConvNd, nn.Linear)
MIXING_FUNCTIONS = (
    *(F.linear, torch.conv1d, torch.conv2d, torch.conv3d, F.conv1d, F.conv2d, F.conv3d),
    *(F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d),
)
NORM_MODULES = (nn.modules.batchnorm._NormBase, nn.GroupNorm)
NORM_FUNCTIONS = (F.batch_norm, F.group_norm, F.instance_norm)
ACTIVATION_MODULES = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softsign, nn.LogSigmoid),
    *(nn.Hardshrink, nn.Softshrink, nn.Tanhshrink, nn.Threshold),
)
ACTIVATION_NAMES = frozenset(
    "relu relu6 leaky_relu prelu rrelu elu celu selu gelu silu mish hardswish hardsigmoid hardtanh sigmoid tanh "
    "softplus softsign logsigmoid hardshrink softshrink tanhshrink threshold clamp".split()
)
POINTWISE_MODULES = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.Identity)
POINTWISE_NAMES = frozenset("dropout dropout1d dropout2d dropout3d alpha_dropout contiguous".split())
POOLING_MODULES = (
    *(nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AvgPoolNd, nn.modules.pooling._AdaptiveAvgPoolNd),
    *(nn.modules.pooling._AdaptiveMaxPoolNd, nn.Upsample),
)
POOLING_NAMES = frozenset("max_pool2d avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d interpolate".split())
SUMS = (operator.add, torch.add)
PRODUCTS = (operator.matmul, torch.matmul, torch.bmm)


class Kinds:
    """Tells the nodes of a graph whose modules lie below `root`."""

    def __init__(self, root: nn.Module) -> None:
        self.root = root

    def is_mixing(self, node: fx.Node) -> bool:
        """Whether it is a convolution or linear layer."""
        return self._is(node, MIXING_MODULES) or (node.op == "call_function" and node.target in MIXING_FUNCTIONS)

    def channel_axis(self, node: fx.Node) -> int:
        """The dimension in which a layer makes channels."""
        linear = self._is(node, (nn.Linear,)) or node.target is F.linear
        return len(node.meta["shape"]) - 1 if linear else 1

    def is_norm(self, node: fx.Node) -> bool:
        """Whether it is a norm that does not compare all channels: behind a layer norm each would need every one."""
        return self._is(node, NORM_MODULES) or (node.op == "call_function" and node.target in NORM_FUNCTIONS)

    def is_activation(self, node: fx.Node) -> bool:
        """Whether it is an activation."""
        return self._is(node, ACTIVATION_MODULES) or name_of(node) in ACTIVATION_NAMES

    def is_pointwise(self, node: fx.Node) -> bool:
        """Whether it is dropout or the like."""
        return self._is(node, POINTWISE_MODULES) or name_of(node) in POINTWISE_NAMES

    def is_pooling(self, node: fx.Node) -> bool:
        """Whether it pools or resizes."""
        return self._is(node, POOLING_MODULES) or name_of(node) in POOLING_NAMES

    def is_sum(self, node: fx.Node) -> bool:
        """Whether two tensors are added: `x + 1` is none."""
        adds = (node.op == "call_function" and node.target in SUMS) or (node.op, node.target) == ("call_method", "add")
        return adds and sum(isinstance(arg, fx.Node) and arg.meta.get("shape") is not None for arg in node.args) == 2

    def is_attention(self, node: fx.Node) -> bool:
        """Whether it is attention as one call."""
        return node.op == "call_function" and node.target is F.scaled_dot_product_attention

    def is_softmax(self, node: fx.Node) -> bool:
        """Whether it is a softmax."""
        return self._is(node, (nn.Softmax,)) or name_of(node) == "softmax"

    def is_product(self, node: fx.Node) -> bool:
        """Whether two computed matrices are multiplied."""
        called = node.op == "call_function" and node.target in PRODUCTS
        return (called or name_of(node) in ("matmul", "bmm")) and len(node.args) == 2

    def _is(self, node: fx.Node, kinds: tuple[type, ...]) -> bool:
        return node.op == "call_module" and isinstance(self.root.get_submodule(str(node.target)), kinds)


def name_of(node: fx.Node) -> str:
    """What a call is called, "" for a module's."""
    if node.op == "call_method":
        return str(node.target)
    return getattr(node.target, "__name__", "") if node.op == "call_function" else ""
