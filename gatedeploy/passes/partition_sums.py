"""Pass 9: choose which channels lie in one tensor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gatedeploy.graph.channels import ChannelGraph, Ids, Operation
from gatedeploy.graph.prices import Prices
from gatedeploy.graph.sums import Numbers, Sum, Term
from gatedeploy.passes.base import Pass, made_once
from gatedeploy.passes.bits import places_in
from gatedeploy.passes.collect_sums import CollectSums
from gatedeploy.passes.partition_search import PartitionSearch
from gatedeploy.passes.strands import Strands


class PartitionSums(Pass):
    """Cut and join what sums make so that the layers between them cost least.

    A layer between two tensors is dense: it has a column of zeros for every channel that it reads and none of its rows
    needs, and a block of zeros for rows that need nothing of a tensor that others of its rows read. Large tensors waste
    multiply-adds, small ones waste vector units and launches; the prices decide.

    1. Any rows of a sum can be computed apart from the others.
    2. Rows of several sums can be computed together where these have layers of the same kinds, results of one shape,
       and none depends on another.
    """

    requires = (CollectSums,)

    def __init__(self, prices: Prices) -> None:
        self.prices = prices

    def run(self, graph: ChannelGraph) -> None:
        """See the class."""
        strands = Strands(graph)
        search = PartitionSearch(strands, self.prices)
        search.improve()
        parts: dict[tuple[int, int], list[tuple[Sum, Ids]]] = {}
        for number, each in enumerate(strands.sums):
            for label in search.partition.labels[strands.rope[number]]:
                rows = np.flatnonzero(np.isin(strands.place[each.output.ids], places_in(search.partition.holds[label])))
                if len(rows):
                    parts.setdefault((strands.family[number], label), []).append((each, rows))
        others = [operation for operation in graph.operations if not isinstance(operation, Sum)]
        graph.operations = in_order([*(_joined(rows) for rows in parts.values()), *others], graph)

    def ensures(self, graph: ChannelGraph) -> bool:
        """Every identity is made once."""
        return made_once(graph)


def _joined(parts: list[tuple[Sum, Ids]]) -> Sum:
    """One sum of these rows of several."""
    terms: list[Term] = []
    offsets: list[Numbers] = []
    count = 0
    for made, rows in parts:
        for term in made.terms:
            kept = term.keep(rows, len(made.output.ids))
            if kept is not None:
                terms.append(replace(kept, rows=kept.rows + count))
        offsets.append(np.zeros(len(rows)) if made.offset is None else made.offset[rows])
        count += len(rows)
    first = parts[0][0]
    output = replace(first.output, ids=np.concatenate([made.output.ids[rows] for made, rows in parts]))
    plain = all(made.offset is None for made, _ in parts)
    return Sum.of(first.name, output, terms, None if plain else np.concatenate(offsets))


def in_order(operations: list[Operation], graph: ChannelGraph) -> list[Operation]:
    """The operations so that each comes after what it reads, near to where its first channel was made before."""
    before = {id_: place for place, each in enumerate(graph.operations) for id_ in each.output.ids.tolist()}
    operations = sorted(operations, key=lambda each: before[int(each.output.ids[0])])
    maker = {id_: place for place, each in enumerate(operations) for id_ in each.output.ids.tolist()}
    reads = [
        sorted({maker[id_] for operand in each.operands for id_ in operand.value.ids.tolist() if id_ in maker})
        for each in operations
    ]
    done: dict[int, None] = {}
    for start in range(len(operations)):
        stack = [start]
        while stack:
            waiting = [place for place in reads[stack[-1]] if place not in done]
            if waiting and stack[-1] not in done:
                stack += reversed(waiting)
            else:
                done[stack.pop()] = None
    return [operations[place] for place in done]
