"""Training what is live alone, once gates stand still.

From then on what lost at its gate reaches no loss any more. So the passes that collapse a network say which channels
are live, and a step computes these and no others, from pieces of the same parameters. All else stays the gated
network's: parameters, optimisers, checkpoints. Its gradients are the same, and what is dead has none. Heads, behind
the last gates, run as they are, so that they may do what they only do in training, such as dropout.

Norms stay apart, since they are trained, and so does all that would change a number: each weight of the pruned network
is a piece of one of the gated network's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter, getitem
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from gatedeploy.gating.network import GatedNetwork
from gatedeploy.gating.task_network import container
from gatedeploy.graph.build import channel_graph
from gatedeploy.graph.cost import cost
from gatedeploy.graph.precompute import precomputed
from gatedeploy.lowering import PRUNING
from gatedeploy.modes import evaluating
from gatedeploy.parity import compare
from gatedeploy.passes.base import Pass, run_passes
from gatedeploy.passes.choose_layout import ChooseLayout
from gatedeploy.passes.emit import emit
from gatedeploy.passes.fold_norms import FoldNorms
from gatedeploy.passes.follow_order import FollowOrder
from gatedeploy.program import Program
from gatedeploy.training.pieces import NotLiveError, Numbered, Piece
from gatedeploy.training.snapshots import Skeleton
from gatedeploy.training.undisturbed import put_back, same_draws

BATCH_NORM = torch.ops.aten.batch_norm.default
SLICE = torch.ops.aten.slice.Tensor
STATISTICS = slice(3, 5)
"""Which of its arguments are the mean and the variance that it keeps."""
IN_TRAINING = 5
"""Which of them says that it takes those of the batch."""

PASSES: tuple[type[Pass], ...] = (*(step for step in PRUNING if step is not FoldNorms), ChooseLayout, FollowOrder)

ROUNDING = 0.01
"""How far apart, of an output's scale, the two may be in training: what rounding to TF32 makes of a deep network. What
only training does, such as dropout, makes tenths."""


def train_live(
    network: GatedNetwork, images: Tensor, compiled: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None
) -> float:
    """Let `network` compute in training what is live with the gates that it has, from here on.

    Args:
        network: its gates stand behind channels; on its device.
        images: a batch that it is trained on.
        compiled: makes what is computed faster.

    Returns:
        The share of its branches' multiply-adds that is left.

    Raises:
        NotLiveError: it has to be trained whole, and why; nothing has changed then.
    """
    branches = _Branches(copy.deepcopy(network).cpu().float())
    skeleton = Skeleton(branches, network.input)
    numbered = Numbered(skeleton.program)
    graph = channel_graph(precomputed(numbered.program))
    run_passes(graph, [step() for step in PASSES])
    thin = emit(graph)
    live = _Live(thin, numbered, skeleton.source_of, branches.made, next(network.parameters()))
    _check(network, live, images)
    if compiled is not None:
        live.run = compiled(live.run)
    network.run_in_training(live)
    return cost(thin).macs / cost(skeleton.program).macs


class _Branches(nn.Module):
    """A gated network without heads: what they are given, tensor by tensor.

    Args:
        network: to be taken apart.
    """

    def __init__(self, network: GatedNetwork) -> None:
        super().__init__()
        network.heads = container({name: _Given() for name, _ in network.heads.named_children()})
        self.network = network
        with torch.no_grad(), evaluating(network):
            self.made = pytree.tree_structure(network(torch.zeros(2, *network.input.shape)))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """`image`: (batch, channels, height, width). Returns the tensors by their number."""
        return {str(number): tensor for number, tensor in enumerate(pytree.tree_leaves(self.network(image)))}


class _Given(nn.Module):
    def forward(self, features: Any) -> Any:
        return features


class _Live:
    """The pruned branches in training mode, their weights taken from the gated network, and its heads on them.

    Args:
        thin: the pruned program.
        numbered: what it was made of.
        source_of: what the gated branches call the weights of their program.
        made: how features by task are made up of the tensors that the program returns.
        like: a parameter; where it is, and of which precision, constants are too.
    """

    def __init__(
        self,
        thin: Program,
        numbered: Numbered,
        source_of: Mapping[str, str],
        made: pytree.TreeSpec,
        like: Tensor,
    ) -> None:
        self._made = made
        self.run, names, kept = _in_training(thin.graph)
        self._weights: list[Tensor | tuple[Callable[[Any], Tensor], Piece]] = []
        for name in names:
            weight = thin.weights[name]
            piece = numbered.piece(name, weight)
            if piece is None:
                self._weights.append(weight.to(like) if weight.is_floating_point() else weight.to(like.device))
            elif piece.name in source_of:
                along = tuple(None if entries is None else entries.to(like.device) for entries in piece.along)
                source = source_of[piece.name].removeprefix("network.")
                self._weights.append((attrgetter(source), replace(piece, along=along)))
            else:
                raise NotLiveError(f"{name} is computed from weights")
        self._kept = [names.index(name) for name in kept]

    def __call__(self, network: Any, image: Tensor) -> dict[str, Tensor]:
        pieces = [each if isinstance(each, Tensor) else each[1].of(each[0](network)) for each in self._weights]
        given = self.run(image, *pieces)
        with torch.no_grad():
            for number in self._kept:
                weight = self._weights[number]
                assert not isinstance(weight, Tensor)
                weight[1].put_back(weight[0](network), pieces[number])
        features = pytree.tree_unflatten([given[str(number)] for number in range(len(given))], self._made)
        heads = dict(network.heads.named_children())
        return {task: heads[task](read) if task in heads else read for task, read in features.items()}


def _in_training(thin: fx.Graph) -> tuple[Callable[..., Any], list[str], list[str]]:
    """The graph as a function of the picture and of its weights, their names, and those that batch norms update."""
    graph, values, kept = fx.Graph(), {}, []
    (image,) = (node for node in thin.nodes if node.op == "placeholder")
    values[image] = graph.placeholder("image")
    read = [node for node in thin.nodes if node.op == "get_attr"]
    names = list(dict.fromkeys(str(node.target) for node in read))
    weights = {name: graph.placeholder(f"weight_{number}") for number, name in enumerate(names)}
    values |= {node: weights[str(node.target)] for node in read}
    for node in thin.nodes:
        if node.target is SLICE:
            continue
        if node.op not in ("placeholder", "get_attr"):
            values[node] = graph.node_copy(node, values.__getitem__)
        _cut(graph, node, values)
        if node.target is BATCH_NORM:
            kept += [str(each.target) for each in node.args[STATISTICS]]
            values[node].update_arg(IN_TRAINING, True)
    return fx.GraphModule(nn.Module(), graph).forward, names, kept


def _cut(graph: fx.Graph, node: fx.Node, values: dict[fx.Node, fx.Node]) -> None:
    """Write all slices of what `node` makes at once."""
    slices = [user for user in node.users if user.target is SLICE]
    if slices:
        places = [(user.args[1], user.args[2], user.args[3]) for user in slices]
        cut = graph.call_function(_cut_out, (values[node], places))
        for number, user in enumerate(slices):
            values[user] = graph.call_function(getitem, (cut, number))


class _Slices(torch.autograd.Function):
    """Slices of one tensor, whose gradients are added up in place: PyTorch would fill a whole tensor for each."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, places: Sequence[tuple[int, int, int]]) -> tuple[Tensor, ...]:
        ctx.shape, ctx.places = tensor.shape, places
        return tuple(tensor.narrow(axis, start, end - start) for axis, start, end in places)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        total = grads[0].new_zeros(ctx.shape)
        for (axis, start, end), grad in zip(ctx.places, grads, strict=True):
            total.narrow(axis, start, end - start).add_(grad)
        return total, None


def _cut_out(tensor: Tensor, places: Sequence[tuple[int, int, int]]) -> tuple[Tensor, ...]:
    made: tuple[Tensor, ...] = _Slices.apply(tensor, places)  # type: ignore[no-untyped-call]
    return made


def _check(network: GatedNetwork, live: _Live, images: Tensor) -> None:
    """Raise `NotLiveError` unless both predict the same in training; the network stays as it is."""
    was_training = network.training
    network.train()
    try:
        with put_back(network.buffers()), torch.no_grad():
            with same_draws(images.device):
                expected = network(images)
            with same_draws(images.device):
                got = live(network, images)
    finally:
        network.train(was_training)
    if not compare(expected, got, ROUNDING).holds:
        raise NotLiveError("in training its branches do more than in evaluation, such as dropout")
