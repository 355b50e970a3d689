"""Pass 2: drop every channel that no output needs."""

from __future__ import annotations

import numpy as np

from gatedeploy.graph.channels import ChannelGraph, Operation
from gatedeploy.passes.base import Pass
from gatedeploy.passes.resolve_gates import ResolveGates


class PruneChannels(Pass):
    """Backward liveness, channel by channel, from the outputs.

    1. A divisible operation computes only those of its channels that something live reads, and goes when there are
       none.
    2. Any other operation (a barrier, a view) is needed as a whole as soon as one of its channels is.
    3. What a live channel needs of an operand is live: the channel of its position, or all.
    """

    requires = (ResolveGates,)

    def run(self, graph: ChannelGraph) -> None:
        """See the class."""
        live = np.zeros(graph.created, dtype=bool)
        for value in graph.output_values():
            live[value.ids] = True
        kept: list[Operation] = []
        for operation in reversed(graph.operations):
            if operation.divisible:  # 1
                positions = np.flatnonzero(live[operation.output.ids])
                if len(positions) == 0:
                    continue
                operation.keep(positions)
            elif not live[operation.output.ids].any():  # 2
                continue
            for operand in operation.operands:  # 3
                live[operand.value.ids] = True
            kept.append(operation)
        graph.operations = kept[::-1]

    def ensures(self, graph: ChannelGraph) -> bool:
        """Every channel that a divisible operation makes is read."""
        read = np.zeros(graph.created, dtype=bool)
        for value in graph.output_values():
            read[value.ids] = True
        for operation in graph.operations:
            for operand in operation.operands:
                read[operand.value.ids] = True
        return all(read[operation.output.ids].all() for operation in graph.operations if operation.divisible)
