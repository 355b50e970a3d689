"""Where a traced backbone can be cut in two: values through which everything behind them goes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from torch import fx, nn

from gatedeploy.errors import InputError
from gatedeploy.gating.kinds import Kinds
from gatedeploy.gating.operators import channel_axis

QUARTERS = 4
"""Into how many stages a backbone of one resolution is divided, such as a vision transformer."""


@dataclass(frozen=True)
class Place:
    """A feature map of a backbone.

    Args:
        name: of the node that makes it; see `Template`.
        shape: of its value without the batch, in the example that was traced.
        axis: of the channels, the batch counted.
    """

    name: str
    shape: tuple[int, ...]
    axis: int

    @property
    def channels(self) -> int:
        """How many it has."""
        return self.shape[self.axis - 1]

    @property
    def extent(self) -> tuple[int, ...]:
        """Its shape without channels: (height, width), or (tokens,)."""
        return self.shape[: self.axis - 1] + self.shape[self.axis :]


def place_of(node: fx.Node) -> Place:
    """The feature map that a node makes."""
    shape = tuple(node.meta["shape"])
    return Place(node.meta["name"], shape[1:], channel_axis(len(shape)))


def cuts(graph: fx.Graph) -> list[fx.Node]:
    """The feature maps without which nothing behind them can be computed, in order.

    Behind such a value nothing reads the picture or a value before it; that the backbone returns a value is no reading.

    Args:
        graph: whose nodes carry shapes, see `Template`.
    """
    order = {node: number for number, node in enumerate(graph.nodes)}
    last = {node: max((order[user] for user in node.users if user.op != "output"), default=-1) for node in order}
    features: set[fx.Node] = set()
    found, needed = [], -1  # the last reader of anything before
    for node in graph.nodes:
        if node.op == "placeholder" or not features.isdisjoint(node.all_input_nodes):
            features.add(node)
        if node not in features:
            continue
        if node.op.startswith("call_"):
            shape = node.meta.get("shape")
            if needed <= order[node] and shape is not None and len(shape) >= 3:
                found.append(node)
        needed = max(needed, last[node])
    return found


def returned(graph: fx.Graph) -> list[fx.Node]:
    """The features that the backbone returns; sizes may be returned too."""
    return [leaf for leaf in graph.output_node().all_input_nodes if leaf.meta.get("shape") is not None]


def layers_until(graph: fx.Graph, root: nn.Module) -> dict[fx.Node, int]:
    """By node, how many convolutions and linear layers there are before it, itself counted."""
    kinds = Kinds(root)
    counts = itertools.accumulate(int(kinds.is_mixing(node)) for node in graph.nodes)
    return dict(zip(graph.nodes, counts, strict=True))


def stage_ends(graph: fx.Graph, root: nn.Module) -> list[fx.Node]:
    """Where tasks' networks exchange features: the last cut of each stage, and every feature that is returned.

    A stage is a run of layers of one resolution and, where there are residual sums, of one number of channels in these;
    more than one of them: a stem of one convolution is none. Where there is but one stage, as in vision transformers,
    each quarter of its cuts is taken for one.

    Args:
        graph: whose nodes carry shapes, see `Template`.
        root: the modules that it calls.
    """
    kinds, found, done = Kinds(root), cuts(graph), layers_until(graph, root)
    width: dict[fx.Node, int] = {}  # channels of the last sum before or at a cut
    stream = 0
    for node in found:
        stream = place_of(node).channels if kinds.is_sum(node) else stream
        width[node] = stream
    runs = [list(run) for _, run in itertools.groupby(found, lambda node: (place_of(node).extent, width[node]))]
    before = [0, *(done[run[-1]] for run in runs)]
    stages = [run for run, start in zip(runs, before, strict=False) if done[run[-1]] - start > 1]
    if len(stages) == 1:
        (whole,) = stages
        ends = [whole[round(len(whole) * part / QUARTERS) - 1] for part in range(1, QUARTERS + 1)]
    else:
        ends = [stage[-1] for stage in stages]
    leaves = returned(graph)
    # What is returned without another layer is the last stage's end in another form.
    kept = {end for end in ends if done[end] < max(done.values())}
    return [node for node in graph.nodes if node in kept or node in leaves]


def named(graph: fx.Graph, root: nn.Module, names: Sequence[str]) -> list[fx.Node]:
    """The nodes of these names, in the order of the graph.

    Raises:
        InputError: there is no such feature map.
    """
    known = {
        node.meta["name"]: node
        for node in graph.nodes
        if node.op != "placeholder" and len(node.meta.get("shape") or ()) >= 2
    }
    for name in names:
        if name not in known:
            ends = ", ".join(node.meta["name"] for node in stage_ends(graph, root))
            raise InputError(f"no feature map {name!r} in the backbone; the ends of its stages are {ends}")
    return [node for name, node in known.items() if name in names]
