"""The obvious lowering, as a reference: whoever reads channels of several tensors joins them and puts them in order."""

from __future__ import annotations

import numpy as np
import torch
from torch import fx

from gatedeploy.graph.build import channel_graph
from gatedeploy.graph.channels import Ids, Value
from gatedeploy.lowering import PASSES
from gatedeploy.passes.base import run_passes
from gatedeploy.passes.choose_layout import ChooseLayout
from gatedeploy.passes.emit import Emitter
from gatedeploy.passes.follow_order import FollowOrder
from gatedeploy.passes.operands import Operands
from gatedeploy.program import Program

aten = torch.ops.aten


def lower_naively(program: Program) -> Program:
    """The collapsed network with every tensor in the original order of its channels, weights in float64.

    It computes the same with the same multiply-adds. Tensors are joined by `cat` and ordered by `index_select`, before
    every reader that wants them otherwise.

    Args:
        program: the gated network.
    """
    graph = channel_graph(program)
    run_passes(graph, [step() for step in PASSES if step not in (ChooseLayout, FollowOrder)])
    return Emitter(graph, operands=_Naive).program()


class _Naive(Operands):
    def gather_any_order(self, value: Value) -> tuple[fx.Node, Ids]:
        """The channels in the order in which the gated network has them."""
        ids, first = np.unique(value.ids, return_index=True)
        order = ids[np.argsort(first)]
        return self.gather(Value(order, value.axis, value.block, value.shape)), order

    def _join(self, value: Value) -> fx.Node:
        """All tensors that hold a channel of `value`, joined, and of those the channels that are wanted."""
        tensors = np.unique(self.tensor_of[value.ids])
        nodes = [self.tensors[tensor][0] for tensor in tensors]
        sizes = [len(self.tensors[tensor][1].ids) for tensor in tensors]
        first = np.cumsum([0, *sizes[:-1]])
        place = first[np.searchsorted(tensors, self.tensor_of[value.ids])] + self.position_of[value.ids]
        whole = nodes[0] if len(nodes) == 1 else self.graph.call_function(aten.cat.default, (nodes, value.axis))
        if len(place) == sum(sizes) and (place == np.arange(len(place))).all():
            return whole
        return self.index(whole, place, value)
