"""Pass 7, or 12 of those by price: let norms over all channels take these in the order in which they lie."""

from __future__ import annotations

import numpy as np

from gatedeploy.graph.channels import ChannelGraph, Need
from gatedeploy.graph.places import Places
from gatedeploy.passes.base import Pass, made_once
from gatedeploy.passes.prune_channels import PruneChannels


class FollowOrder(Pass):
    """Let an operation that needs all channels together read tensor by tensor, and make its own in that order.

    Behind gates a task's stream of tokens lies in several tensors, its own channels and those that it shares. A layer
    norm over it does not care for their order as long as its weights and its results follow, and what reads these is
    most often a layer, whose columns follow too. So tensors are joined as they lie, and nothing is gathered.

    Legal when
    1. the operation computes the same in any order of its channels (`Need.TOGETHER`).
    """

    requires = (PruneChannels,)

    def run(self, graph: ChannelGraph) -> None:
        """See the class."""
        places = Places(graph)
        for operation in graph.operations:
            for operand in operation.operands:
                if operand.need is Need.TOGETHER:  # 1
                    ids = operand.value.ids
                    operation.keep(np.lexsort((places.position[ids], places.tensor[ids])))
                    places.position[operation.output.ids] = np.arange(len(ids))

    def ensures(self, graph: ChannelGraph) -> bool:
        """Nothing got lost: every identity is still made once."""
        return made_once(graph)
