"""Channels that belong side by side."""

from __future__ import annotations

import numpy as np

from gatedeploy.graph.channels import ChannelGraph, Ids, Need, Operation
from gatedeploy.graph.sums import Sum


class Lines:
    """Which identities are added to each other or computed from each other one by one; `of` has a number for each."""

    def __init__(self, graph: ChannelGraph) -> None:
        self._parent = np.arange(graph.created, dtype=np.int64)
        for operation in graph.operations:
            for rows, ids in _aligned(operation):
                self._unite(operation.output.ids[rows], ids, graph)
        self.of: Ids = self._roots(self._parent)

    def _unite(self, left: Ids, right: Ids, graph: ChannelGraph) -> None:
        parent = self._parent
        for one, other in zip(left.tolist(), right.tolist(), strict=True):
            if other in graph.weight_of:
                continue
            root, end = self._find(one), self._find(other)
            parent[max(root, end)] = min(root, end)

    def _find(self, id_: int) -> int:
        parent = self._parent
        while parent[id_] != id_:
            parent[id_] = parent[parent[id_]]
            id_ = int(parent[id_])
        return id_

    @staticmethod
    def _roots(parent: Ids) -> Ids:
        while not (parent[parent] == parent).all():
            parent = parent[parent]
        return parent


def _aligned(operation: Operation) -> list[tuple[Ids, Ids]]:
    """Rows of an operation, and what they read one by one."""
    if isinstance(operation, Sum):
        return [(term.rows, term.reads.ids) for term in operation.terms if term.kind is None]
    if not operation.divisible:
        return []
    rows = np.arange(len(operation.output.ids))
    return [(rows, operand.value.ids) for operand in operation.operands if operand.need is Need.ALIGNED]
