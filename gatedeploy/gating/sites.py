"""Where branches meet: finding the gate sites of a traced backbone.

A site stands at the end of every convolution or linear → norm → activation chain; before a layer norm, which needs
every channel. Where a residual sum follows the chain, resized or not, and an activation follows the sum (ResNet,
HRNet), it stands after that activation, else before the sum (inverted residuals, transformers). Every feature that the
backbone returns is a site too. A module called twice has two sites. With gates per head, the q, k and v of an attention
are sites in place of what they are made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import fx, nn

from gatedeploy.errors import InputError, closest
from gatedeploy.gating.attention import attention_heads, heads_axis
from gatedeploy.gating.kinds import Kinds
from gatedeploy.gating.operators import channel_axis

ENCODER, DECODER = "encoder", "decoder"
ENDS = (ENCODER, DECODER)
"""Sites behind whole branches, where one gate for each task stands (Safe MTL)."""


@dataclass(frozen=True)
class Site:
    """One feature map at which the branches meet.

    Args:
        name: the fx node whose value is gated; of the end of whole branches, `ENCODER` or `DECODER`.
        gate: name of the gates used here; sites of equal `gate` share their α (see `tie` of `gate`).
        channels: how many channels it has along `axis`; heads, where gates stand on these.
        axis: the channel axis.
        group: how many neighbouring channels share one α.
        mixes: whether the shared branch reads on from here, so that eq. 3 is needed.
        end: whether it is the end of whole branches, which is gated as one channel; a node may have its name.
    """

    name: str
    gate: str
    channels: int
    axis: int
    group: int
    mixes: bool
    end: bool = False


def find_sites(
    graph: fx.Graph,
    root: nn.Module,
    wanted: str | Sequence[str] = "auto",
    tie: str | None = None,
    group: int = 1,
    per_head: bool = False,
) -> list[Site]:
    """The sites of a graph whose nodes carry `meta["shape"]`, in the order in which the network reaches them.

    Args:
        graph: the traced evaluation graph.
        root: the modules that it calls.
        wanted: "auto", or the names of the nodes to gate.
        tie: "residual" gives all sites on one residual stream the same gate.
        group: how many neighbouring channels share one α.
        per_head: gate the heads of attention, q, k and v by one gate.

    Raises:
        InputError: no site was found, a wanted site does not exist or is no feature map, tied sites differ in channels,
            no attention was found.
    """
    kinds = Kinds(root)
    chosen = _every_chain(graph, kinds)
    if not isinstance(wanted, str):
        chosen = _named(graph, wanted, chosen)
    heads = _gate_heads(graph, kinds, chosen) if per_head else {}
    ordered = [node for node in graph.nodes if node in chosen]
    if not ordered:
        raise InputError("the backbone has no place for a gate: no convolution or linear layer and no returned feature")
    gates = _tie_residual(graph, ordered, kinds) if tie == "residual" else {node: node.name for node in ordered}
    gates.update(heads)
    sites = [_site(node, chosen[node], gates[node], 1 if node in heads else group) for node in ordered]
    _check_ties(sites)
    return sites


def _every_chain(graph: fx.Graph, kinds: Kinds) -> dict[fx.Node, int | None]:
    """The ends of all chains and the returned features, with the channel axis where the layer tells it."""
    chosen: dict[fx.Node, int | None] = {}
    features: set[fx.Node] = set()  # what depends on the picture: a table of biases is no feature
    for node in graph.nodes:
        if node.op == "placeholder" or not features.isdisjoint(node.all_input_nodes):
            features.add(node)
        if node in features and kinds.is_mixing(node):
            chosen.setdefault(_end_of_chain(node, kinds), kinds.channel_axis(node))
    for node, axis in list(chosen.items()):
        if axis in node.meta["batch"]:  # a layer of each picture's own, its batch laid along the channels
            del chosen[node]
    for leaf in graph.output_node().all_input_nodes:
        if leaf.op != "placeholder" and leaf.meta["shape"] is not None:  # sizes may be returned too
            chosen.setdefault(leaf, None)
    return chosen


def _named(graph: fx.Graph, wanted: Sequence[str], usual: Mapping[fx.Node, int | None]) -> dict[fx.Node, int | None]:
    """The nodes of these names."""
    names = {node.name: node for node in graph.nodes if node.op not in ("placeholder", "output")}
    if not wanted:
        raise InputError("sites: no names were given; leave it out to gate the end of every layer's chain")
    for name in wanted:
        if name not in names:
            near = closest(name, list(names)) or f"; what 'auto' gates is {', '.join(node.name for node in usual)}"
            raise InputError(f"no site {name!r} in the backbone{near}")
    return dict.fromkeys([names[name] for name in wanted])


def _gate_heads(graph: fx.Graph, kinds: Kinds, chosen: dict[fx.Node, int | None]) -> dict[fx.Node, str]:
    """Let sites be q, k and v in place of the layers that make them; returns the name of each one's gate."""
    gates: dict[fx.Node, str] = {}
    for heads in attention_heads(graph, kinds):
        for node in heads:
            gates.setdefault(node, heads[0].name)
    if not gates:
        raise InputError(
            "gates='head': the backbone has no attention whose heads can be gated; expected calls of "
            "scaled_dot_product_attention, or a softmax between two products, over (batch, heads, tokens, depth). What "
            "lies inside a module that is called as a whole cannot be seen: write it out"
        )
    for maker in _layers_of(gates, kinds):
        chosen.pop(_end_of_chain(maker, kinds), None)
    chosen.update({node: heads_axis(node) for node in gates})
    return gates


def _layers_of(heads: Iterable[fx.Node], kinds: Kinds) -> Iterator[fx.Node]:
    """The layers that make q, k and v, as far as nothing else of theirs comes between."""
    waiting, seen = list(heads), set(heads)
    while waiting:
        node = waiting.pop()
        if kinds.is_mixing(node):
            yield node
        elif not kinds.is_sum(node):
            before = set(node.all_input_nodes) - seen
            seen |= before
            waiting.extend(before)


def _site(node: fx.Node, axis: int | None, gate: str, group: int) -> Site:
    shape = node.meta.get("shape")
    if shape is None or len(shape) < 2:
        raise InputError(
            f"{node.name!r} cannot be a gate site: expected a tensor with a batch and channels, got {shape}"
        )
    if axis is None:
        axis = channel_axis(len(shape))
    mixes = any(user.op != "output" for user in node.users)
    return Site(node.name, gate, shape[axis], axis, group, mixes)


def _check_ties(sites: list[Site]) -> None:
    first: dict[str, Site] = {}
    for site in sites:
        other = first.setdefault(site.gate, site)
        if other.channels != site.channels:
            raise InputError(
                f"sites {other.name!r} ({other.channels} channels) and {site.name!r} ({site.channels}) lie on one "
                "residual stream but differ in channels, so they cannot be tied; gate without tie"
            )


def _end_of_chain(start: fx.Node, kinds: Kinds) -> fx.Node:
    """The node at which the chain that `start` begins is gated."""
    end = current = _follow(start, kinds)[0]
    while (total := _sum_of(current, kinds)) is not None:
        current = total
    if current is not end:
        after_sum, activated = _follow(current, kinds)
        if activated:
            return after_sum
    return end


def _sum_of(node: fx.Node, kinds: Kinds) -> fx.Node | None:
    """The sum that nothing but this node's value, resized or not, is read for."""
    while len(node.users) == 1:
        node = next(iter(node.users))
        if kinds.is_sum(node):
            return node
        if not kinds.is_pooling(node):
            return None
    return None


def _follow(node: fx.Node, kinds: Kinds) -> tuple[fx.Node, bool]:
    """Last norm, activation or dropout of the run behind `node` that nobody else reads, and whether one activates."""
    activated = False
    while len(node.users) == 1:
        user = next(iter(node.users))
        if not (kinds.is_norm(user) or kinds.is_activation(user) or kinds.is_pointwise(user)):
            break
        activated = activated or kinds.is_activation(user)
        node = user
    return node, activated


def _tie_residual(graph: fx.Graph, sites: list[fx.Node], kinds: Kinds) -> dict[fx.Node, str]:
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
        carries = kinds.is_norm(node) or kinds.is_activation(node) or kinds.is_pointwise(node)
        if carries or kinds.is_pooling(node):
            leader[node] = find(node.all_input_nodes[0])
        elif kinds.is_sum(node):
            first, second = (find(arg) for arg in node.args)
            leader[second] = leader[node] = first
    names: dict[fx.Node, str] = {}
    return {site: names.setdefault(find(site), site.name) for site in sites}
