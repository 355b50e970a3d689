"""Pass 10: choose the order of the channels in every tensor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gatedeploy.graph.channels import ChannelGraph, Ids, Need
from gatedeploy.passes.base import Pass, made_once
from gatedeploy.passes.collect_sums import CollectSums
from gatedeploy.passes.lines import Lines, earlier, gray_place


class OrderChannels(Pass):
    """Order channels so that what is added lies in one order, and what a layer reads lies side by side.

    Channels that are added to each other, or computed from each other one by one, belong together; such a *line* has
    one place wherever it passes. Where it passes a tensor whose order is not free (the picture, a weight, what a
    barrier makes), that is its place; else lines are put into Gray order of who reads them, so that what a layer reads
    lies in few runs, which slices can cut out. Two channels of one line can lie in one tensor, of two branches; then
    the first of all lines that are read alike come first, for most layers read one branch's.
    """

    requires = (CollectSums,)

    def run(self, graph: ChannelGraph) -> None:
        """See the class."""
        lines = Lines(graph)
        keys = _keys(graph, lines)
        group = _ranks([key[:2] for key in keys])
        rank = _ranks(keys)
        for operation in graph.operations:
            if operation.divisible:
                found = lines.of[operation.output.ids]
                operation.keep(np.lexsort((rank[found], earlier(found), group[found])))

    def ensures(self, graph: ChannelGraph) -> bool:
        """Nothing got lost: every identity is still made once."""
        return made_once(graph)


def _keys(graph: ChannelGraph, lines: Lines) -> list[tuple[int, int, int]]:
    """By line, what to sort it by: its place where that is given, what reads it, itself."""
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
    return [(place.get(line, -1), gray_place(readers.get(line, 0)), line) for line in range(graph.created)]


def _ranks(keys: Sequence[tuple[int, ...]]) -> Ids:
    """(keys,) the place of each in their order; equal ones have one place."""
    places = {key: place for place, key in enumerate(sorted(set(keys)))}
    return np.array([places[key] for key in keys], dtype=np.int64)
