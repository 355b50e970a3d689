"""Pass 10: choose the order of the channels in every tensor."""

from __future__ import annotations

import numpy as np

from gatedeploy.graph.channels import ChannelGraph, Need
from gatedeploy.passes.base import Pass, made_once
from gatedeploy.passes.collect_sums import CollectSums
from gatedeploy.passes.lines import Lines, gray_place


class OrderChannels(Pass):
    """Order channels so that what is added lies in one order, and what a layer reads lies side by side.

    Channels that are added to each other, or computed from each other one by one, belong together; such a *line* has
    one place wherever it passes. Where it passes a tensor whose order is not free (the picture, a weight, what a
    barrier makes), that is its place; else lines are put into Gray order of who reads them, so that what a layer reads
    lies in few runs, which slices can cut out.
    """

    requires = (CollectSums,)

    def run(self, graph: ChannelGraph) -> None:
        """See the class."""
        lines = Lines(graph)
        rank = np.argsort(np.argsort(_keys(graph, lines), kind="stable"), kind="stable")
        for operation in graph.operations:
            if operation.divisible:
                operation.keep(np.argsort(rank[lines.of[operation.output.ids]], kind="stable"))

    def ensures(self, graph: ChannelGraph) -> bool:
        """Nothing got lost: every identity is still made once."""
        return made_once(graph)


def _keys(graph: ChannelGraph, lines: Lines) -> np.ndarray:
    """(identities,) for each line, what to sort it by."""
    place = {int(line): position for position, line in enumerate(lines.of[graph.image.ids].tolist())}
    readers: dict[int, int] = {}
    for number, operation in enumerate(graph.operations):
        if not operation.divisible:
            for position, line in enumerate(lines.of[operation.output.ids].tolist()):
                place.setdefault(line, position)
        for operand in operation.operands:
            if operand.need is Need.ANY_ORDER:
                bit = 1 << (len(graph.operations) - number)
                for line in set(lines.of[operand.value.ids].tolist()):
                    readers[line] = readers.get(line, 0) | bit
    keys = np.empty(graph.created, dtype=object)
    keys[:] = [(place.get(line, -1), gray_place(readers.get(line, 0)), line) for line in range(graph.created)]
    return keys
