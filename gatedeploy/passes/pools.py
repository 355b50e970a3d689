"""Tensors that are read together: joined once, for all who read channels here and there of several."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gatedeploy.graph.channels import ChannelGraph, Ids, Need, Operation, Value
from gatedeploy.graph.places import Places
from gatedeploy.graph.sums import Sum

MAX_SLICES = 4
"""Up to this many slices are cut one by one; more are gathered by index."""


class Pools:
    """Which tensors of tokens to join for a reader, with those that later readers want beside them.

    Behind a gate the queries of a task lie in two tensors, its own and the shared one, head by head; so do its keys and
    values, and those of all other tasks. Joined once, tasks' own and shared ones all together, each of them is one
    gather; joined for every reader anew, each channel is copied twice as often.
    """

    def __init__(self, graph: ChannelGraph) -> None:
        self.places = Places(graph)
        values = (value for operation in graph.operations for value in _in_order(operation) if value.last)
        self.reads = list(dict.fromkeys(self._read(value.ids) for value in values if self._scattered(value.ids)))
        self.joined: list[frozenset[int]] = []

    def around(self, ids: Ids, made: Callable[[Ids], bool]) -> Ids:
        """The channels of the pool that holds `ids`.

        Args:
            ids: channels that a reader wants.
            made: whether a tensor, by its channels, is there to be joined.
        """
        wanted = self._read(ids)
        for pool in self.joined:
            if wanted <= pool:
                return self._channels(pool)
        pool = wanted
        for read in self.reads:
            if read & pool and all(made(self.places.held[tensor]) for tensor in read):
                pool |= read
        self.reads = [read for read in self.reads if not read <= pool]
        self.joined.append(pool)
        return self._channels(pool)

    def _read(self, ids: Ids) -> frozenset[int]:
        return frozenset(np.unique(self.places.tensor[ids]).tolist())

    def _channels(self, pool: frozenset[int]) -> Ids:
        return np.concatenate([self.places.held[tensor] for tensor in sorted(pool)])

    def _scattered(self, ids: Ids) -> bool:
        changes = int((np.diff(self.places.tensor[ids]) != 0).sum())
        return changes >= MAX_SLICES


def _in_order(operation: Operation) -> list[Value]:
    """What an operation reads in an order of its own."""
    if isinstance(operation, Sum):
        return [read.value for read in operation.reads]
    return [operand.value for operand in operation.operands if operand.need is not Need.ANY_ORDER]
