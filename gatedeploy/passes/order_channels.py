"""Pass 10: choose the order of the channels in every tensor."""

from __future__ import annotations

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
        lines = Lines(graph).of
        place, readers = _given_places(graph, lines), _readers(graph, lines)
        for operation in graph.operations:
            if operation.divisible:
                found = lines[operation.output.ids]
                operation.keep(np.lexsort((found, earlier(found), readers[found], place[found])))

    def ensures(self, graph: ChannelGraph) -> bool:
        """Nothing got lost: every identity is still made once."""
        return made_once(graph)


def _given_places(graph: ChannelGraph, lines: Ids) -> Ids:
    """(lines,) the place of each in a tensor whose order is not free; -1 where there is none."""
    given: Ids = np.full(graph.created, -1, dtype=np.int64)
    fixed = [graph.image, *(operation.output for operation in graph.operations if not operation.divisible)]
    for value in reversed(fixed):  # the first one counts
        found = lines[value.ids]
        given[found[::-1]] = np.arange(len(found))[::-1]
    return given


def _readers(graph: ChannelGraph, lines: Ids) -> Ids:
    """(lines,) a number by which lines are in Gray order of who reads them; one for those that are read alike."""
    bits: dict[int, int] = {}
    for number, operation in enumerate(graph.operations):
        for operand in operation.operands:
            if operand.need in (Need.ANY_ORDER, Need.RUN):
                bit = 1 << (len(graph.operations) - number)
                for line in set(lines[operand.value.ids].tolist()):
                    bits[line] = bits.get(line, 0) | bit
    alike = {read: place for place, read in enumerate(sorted({0, *bits.values()}, key=gray_place))}
    found: Ids = np.zeros(graph.created, dtype=np.int64)
    for line, read in bits.items():
        found[line] = alike[read]
    return found
