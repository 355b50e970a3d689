"""Channels that belong side by side."""

from __future__ import annotations

import numpy as np

from gatedeploy.graph.channels import ChannelGraph, Ids, Need, Operation
from gatedeploy.graph.groups import Groups
from gatedeploy.graph.sums import Sum


class Lines:
    """Which identities are added to each other or computed from each other one by one; `of` has a number for each."""

    def __init__(self, graph: ChannelGraph) -> None:
        groups = Groups(graph.created)
        for operation in graph.operations:
            for rows, ids in _aligned(operation):
                for row, id_ in zip(operation.output.ids[rows].tolist(), ids.tolist(), strict=True):
                    if id_ not in graph.weight_of:
                        groups.unite(row, id_)
        self.of: Ids = np.array([groups.of(id_) for id_ in range(graph.created)], dtype=np.int64)


def _aligned(operation: Operation) -> list[tuple[Ids, Ids]]:
    """Rows of an operation, and what they read one by one."""
    if isinstance(operation, Sum):
        return [(term.rows, term.reads.ids) for term in operation.terms if term.kind is None]
    if not operation.divisible:
        return []
    rows = np.arange(len(operation.output.ids))
    return [(rows, operand.value.ids) for operand in operation.operands if operand.need is Need.ALIGNED]


def gray_place(bits: int) -> int:
    """Where `bits` stands in the reflected Gray code: sorted by it, neighbours differ in few bits, the low ones first.

    So what one of several readers reads lies in few runs, if each bit says whether one of them reads it.
    """
    place, step = bits, 1
    while step < bits.bit_length():
        place ^= place >> step
        step *= 2
    return place


def earlier(values: Ids) -> Ids:
    """(n,) for each of n values, how many before it are the same."""
    seen: dict[int, int] = {}
    found = []
    for value in values.tolist():
        found.append(seen.get(value, 0))
        seen[value] = found[-1] + 1
    return np.array(found, dtype=np.int64)
