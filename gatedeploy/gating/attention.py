"""Where attention is in a traced backbone, so that gates can stand on whole heads.

Supplement C of InterroGate gates the channels of q, k and v (eq. 7–9) and leaves it to future work to prune the
attention matrix itself. A gate per head over q, k and v together does: a head is a task's own or shared as a whole, and
is computed once for all that share it.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx

from gatedeploy.gating.kinds import Kinds

Heads = tuple[fx.Node, fx.Node, fx.Node]
"""Queries, keys and values, (batch, heads, tokens, depth) or with the last two the other way round."""


def attention_heads(graph: fx.Graph, kinds: Kinds) -> list[Heads]:
    """The q, k and v of every attention of `graph` over as many heads each, in order.

    Attention is `scaled_dot_product_attention`, or a softmax between two products of matrices.
    """
    found = [*_called(graph, kinds), *_written_out(graph, kinds)]
    order = {node: number for number, node in enumerate(graph.nodes)}
    return sorted((heads for heads in found if _has_heads(heads)), key=lambda heads: order[heads[0]])


def heads_axis(node: fx.Node) -> int:
    """The dimension of `node` that carries heads."""
    return len(node.meta["shape"]) - 3


def _called(graph: fx.Graph, kinds: Kinds) -> Iterator[Heads]:
    for node in graph.nodes:
        if kinds.is_attention(node):
            given = [*node.args, *(node.kwargs[name] for name in ("query", "key", "value") if name in node.kwargs)]
            yield given[0], given[1], given[2]


def _written_out(graph: fx.Graph, kinds: Kinds) -> Iterator[Heads]:
    """softmax(q kᵀ) v, with scales, masks and dropout between."""
    for node in graph.nodes:
        if not kinds.is_softmax(node):
            continue
        scores, weighted = _before(node, kinds), _behind(node, kinds)
        if scores is not None and weighted is not None:
            query, key = scores.args
            value = weighted.args[1]
            if all(isinstance(part, fx.Node) for part in (query, key, value)):
                yield query, key, value  # type: ignore[misc]


def _before(node: fx.Node, kinds: Kinds) -> fx.Node | None:
    """The product that the softmax is of, if only numbers and biases lie between."""
    shape = node.meta["shape"]
    while not kinds.is_product(node):
        same = [other for other in node.all_input_nodes if other.meta.get("shape") == shape]
        if not same:
            return None
        node = same[0]
    return node


def _behind(node: fx.Node, kinds: Kinds) -> fx.Node | None:
    """The product of what the softmax gives."""
    while len(node.users) == 1:
        user = next(iter(node.users))
        if kinds.is_product(user):
            return user if user.args[0] is node else None
        if not kinds.is_pointwise(user):
            return None
        node = user
    return None


def _has_heads(heads: Heads) -> bool:
    """Whether q, k and v have a dimension for heads, and as many."""
    shapes: list[tuple[int, ...]] = [node.meta.get("shape") or () for node in heads]
    return min(map(len, shapes)) >= 4 and len({shape[-3] for shape in shapes}) == 1
