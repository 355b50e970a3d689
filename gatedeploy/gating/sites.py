"""Where branches meet: finding the gate sites of a traced backbone.

A site stands at the end of every convolution or linear → norm → activation chain. Where a residual sum follows the
chain, resized or not, and an activation follows the sum (ResNet, HRNet), it stands after that activation, else before
the sum (inverted residuals, transformers). Every feature that the backbone returns is a site too. A module called twice
has two sites.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.nn import functional as F

from gatedeploy.errors import InputError, closest
from gatedeploy.gating.operators import channel_axis

MIXING_MODULES = (nn.modules.conv._ConvNd, nn.Linear)
MIXING_FUNCTIONS = (
    *(F.linear, torch.conv1d, torch.conv2d, torch.conv3d, F.conv1d, F.conv2d, F.conv3d),
    *(F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d),
)
NORM_MODULES = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
NORM_FUNCTIONS = (F.batch_norm, F.group_norm, F.layer_norm, F.instance_norm)
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


@dataclass(frozen=True)
class Site:
    """One feature map at which the branches meet.

    Args:
        name: the fx node whose value is gated.
        gate: name of the gates used here; sites of equal `gate` share their α (see `tie` of `gate`).
        channels: how many channels it has along `axis`.
        axis: the channel axis.
        mixes: whether the shared branch reads on from here, so that eq. 3 is needed.
    """

    name: str
    gate: str
    channels: int
    axis: int
    mixes: bool


def find_sites(
    graph: fx.Graph, root: nn.Module, wanted: str | list[str] = "auto", tie: str | None = None
) -> list[Site]:
    """The sites of a graph whose nodes carry `meta["shape"]`, in the order in which the network reaches them.

    Args:
        graph: the traced evaluation graph.
        root: the modules that it calls.
        wanted: "auto", or the names of the nodes to gate.
        tie: "residual" gives all sites on one residual stream the same gate.

    Raises:
        InputError: no site was found, a wanted site does not exist or is no feature map, tied sites differ in channels.
    """
    reader = _Reader(root)
    chosen: dict[fx.Node, int | None] = {}
    if wanted == "auto":
        for node in graph.nodes:
            if reader.is_mixing(node):
                chosen.setdefault(_end_of_chain(node, reader), reader.channel_axis(node))
        for leaf in graph.output_node().all_input_nodes:
            chosen.setdefault(leaf, None)
    else:
        names = {node.name: node for node in graph.nodes if node.op not in ("placeholder", "output")}
        for name in wanted:
            if name not in names:
                raise InputError(f"no site {name!r} in the backbone{closest(name, list(names))}")
            chosen[names[name]] = None
    ordered = [node for node in graph.nodes if node in chosen]
    if not ordered:
        raise InputError("the backbone has no place for a gate: no convolution or linear layer and no returned feature")
    gates = _tie_residual(graph, ordered, reader) if tie == "residual" else {node: node.name for node in ordered}
    sites = [_site(node, chosen[node], gates[node]) for node in ordered]
    _check_ties(sites)
    return sites


def _site(node: fx.Node, axis: int | None, gate: str) -> Site:
    shape = node.meta.get("shape")
    if shape is None or len(shape) < 2:
        raise InputError(
            f"{node.name!r} cannot be a gate site: expected a tensor with a batch and channels, got {shape}"
        )
    if axis is None:
        axis = channel_axis(len(shape))
    mixes = any(user.op != "output" for user in node.users)
    return Site(node.name, gate, shape[axis], axis, mixes)


def _check_ties(sites: list[Site]) -> None:
    first: dict[str, Site] = {}
    for site in sites:
        other = first.setdefault(site.gate, site)
        if other.channels != site.channels:
            raise InputError(
                f"sites {other.name!r} ({other.channels} channels) and {site.name!r} ({site.channels}) lie on one "
                "residual stream but differ in channels, so they cannot be tied; gate without tie"
            )


class _Reader:
    """What kind of operator a node of a traced graph is."""

    def __init__(self, root: nn.Module) -> None:
        self.root = root

    def is_mixing(self, node: fx.Node) -> bool:
        return self._is(node, MIXING_MODULES) or (node.op == "call_function" and node.target in MIXING_FUNCTIONS)

    def channel_axis(self, node: fx.Node) -> int:
        linear = self._is(node, (nn.Linear,)) or node.target is F.linear
        return len(node.meta["shape"]) - 1 if linear else 1

    def is_norm(self, node: fx.Node) -> bool:
        return self._is(node, NORM_MODULES) or (node.op == "call_function" and node.target in NORM_FUNCTIONS)

    def is_activation(self, node: fx.Node) -> bool:
        return self._is(node, ACTIVATION_MODULES) or _name(node) in ACTIVATION_NAMES

    def is_pointwise(self, node: fx.Node) -> bool:
        return self._is(node, POINTWISE_MODULES) or _name(node) in POINTWISE_NAMES

    def is_pooling(self, node: fx.Node) -> bool:
        return self._is(node, POOLING_MODULES) or _name(node) in POOLING_NAMES

    def is_sum(self, node: fx.Node) -> bool:
        """Whether two tensors are added: `x + 1` is none."""
        adds = (node.op == "call_function" and node.target in SUMS) or (node.op, node.target) == ("call_method", "add")
        return adds and sum(isinstance(arg, fx.Node) and arg.meta.get("shape") is not None for arg in node.args) == 2

    def _is(self, node: fx.Node, kinds: tuple[type, ...]) -> bool:
        return node.op == "call_module" and isinstance(self.root.get_submodule(str(node.target)), kinds)


def _name(node: fx.Node) -> str:
    if node.op == "call_method":
        return str(node.target)
    return getattr(node.target, "__name__", "") if node.op == "call_function" else ""


def _end_of_chain(start: fx.Node, reader: _Reader) -> fx.Node:
    """The node at which the chain that `start` begins is gated."""
    end = current = _follow(start, reader)[0]
    while (total := _sum_of(current, reader)) is not None:
        current = total
    if current is not end:
        after_sum, activated = _follow(current, reader)
        if activated:
            return after_sum
    return end


def _sum_of(node: fx.Node, reader: _Reader) -> fx.Node | None:
    """The sum that nothing but this node's value, resized or not, is read for."""
    while len(node.users) == 1:
        node = next(iter(node.users))
        if reader.is_sum(node):
            return node
        if not reader.is_pooling(node):
            return None
    return None


def _follow(node: fx.Node, reader: _Reader) -> tuple[fx.Node, bool]:
    """Last norm, activation or dropout of the run behind `node` that nobody else reads, and whether one activates."""
    activated = False
    while len(node.users) == 1:
        user = next(iter(node.users))
        if not (reader.is_norm(user) or reader.is_activation(user) or reader.is_pointwise(user)):
            break
        activated = activated or reader.is_activation(user)
        node = user
    return node, activated


def _tie_residual(graph: fx.Graph, sites: list[fx.Node], reader: _Reader) -> dict[fx.Node, str]:
    """Name of each site's gate: the first site on its residual stream.

    A stream is what sums join and what norms, activations, dropout and pooling carry on; convolutions and all
    else begin a new one.
    """
    leader: dict[fx.Node, fx.Node] = {}

    def find(node: fx.Node) -> fx.Node:
        while leader[node] is not node:
            node = leader[node]
        return node

    for node in graph.nodes:
        leader[node] = node
        carries = reader.is_norm(node) or reader.is_activation(node) or reader.is_pointwise(node)
        if carries or reader.is_pooling(node):
            leader[node] = find(node.all_input_nodes[0])
        elif reader.is_sum(node):
            first, second = (find(arg) for arg in node.args)
            leader[second] = leader[node] = first
    names: dict[fx.Node, str] = {}
    return {site: names.setdefault(find(site), site.name) for site in sites}
