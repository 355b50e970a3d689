"""Operands of what is written down: channels cut and joined from the tensors that hold them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import fx

from gatedeploy.graph.channels import ChannelGraph, Ids, Value
from gatedeploy.graph.prices import Prices, Source
from gatedeploy.passes.constants import Constants
from gatedeploy.passes.pools import MAX_SLICES, Pools

aten = torch.ops.aten


class Operands:
    """Writes down how each operand comes about, once.

    Args:
        source: the channel graph.
        graph: what is written.
        constants: its weights.
        prices: decide between slices and gathers; without them it is a few slices.
    """

    def __init__(self, source: ChannelGraph, graph: fx.Graph, constants: Constants, prices: Prices | None) -> None:
        self.source = source
        self.graph = graph
        self.constants = constants
        self.prices = prices
        self.tensors: list[tuple[fx.Node, Value]] = []
        self.tensor_of: Ids = np.full(source.created, -1, dtype=np.int64)
        self.position_of: Ids = np.zeros(source.created, dtype=np.int64)
        self.gathered: dict[object, fx.Node] = {}
        self.pools = Pools(source)

    def hold(self, node: fx.Node, value: Value) -> None:
        """From here on these channels are found in `node`."""
        self.tensor_of[value.ids] = len(self.tensors)
        self.position_of[value.ids] = np.arange(len(value.ids))
        self.tensors.append((node, value))

    def attr(self, name: str) -> fx.Node:
        """A weight, by name."""
        key = ("weight", name)
        if key not in self.gathered:
            self.gathered[key] = self.graph.get_attr(name)
        return self.gathered[key]

    def gather_any_order(self, value: Value) -> tuple[fx.Node, Ids]:
        """A tensor that holds the channels of `value`, each once, in the cheapest order, and that order."""
        ids = np.unique(value.ids)
        order = ids[np.lexsort((self.position_of[ids], self.tensor_of[ids]))]
        ordered = Value(order, value.axis, value.block, value.shape)
        return self.gather(ordered), order

    def gather(self, value: Value) -> fx.Node:
        """A tensor that holds exactly the channels of `value`, in order."""
        weights = {self.source.weight_of[id_][:3] for id_ in value.ids.tolist() if id_ in self.source.weight_of}
        if len(weights) == 1 and all(id_ in self.source.weight_of for id_ in value.ids.tolist()):
            return self.attr(self.constants.rows(value))
        for weight in weights:  # joined with something that is computed
            whole = self.source.weight(*weight)
            if self.tensor_of[whole.ids[0]] < 0:
                self.hold(self.attr(self.constants.rows(whole)), whole)
        key = (value.ids.tobytes(), value.axis, value.block)
        if key not in self.gathered:
            self.gathered[key] = self._join(value)
        return self.gathered[key]

    def _join(self, value: Value) -> fx.Node:
        """The channels of `value`, in order, cut and joined from the tensors that hold them."""
        tensors, positions = self.tensor_of[value.ids], self.position_of[value.ids]
        runs = _runs(tensors, step=0)
        if len(runs) > len(np.unique(tensors)) and self._is_dear(
            [(tensors[run], positions[run]) for run in runs], value
        ):
            return self._from_joined(value)
        parts = [part for run in runs for part in self._take(int(tensors[run[0]]), positions[run], value)]
        return parts[0] if len(parts) == 1 else self.graph.call_function(aten.cat.default, (parts, value.axis))

    def _from_joined(self, value: Value) -> fx.Node:
        """The channels of `value`, gathered from the tensors that hold them, joined."""
        ids = self.pools.around(value.ids, self._is_made) if value.last else self._or_whole(value.ids)
        node, order = self.gather_any_order(replace(value, ids=ids))
        return self.index(node, positions_in(value.ids, order), value)

    def _is_dear(self, parts: list[tuple[Ids, Ids]], value: Value) -> bool:
        """Whether to join the tensors and gather, not to cut out these parts, which come by turns, and join them."""
        if self.prices is None or not value.last:
            return len(parts) > MAX_SLICES
        prices = self.prices.where(True)
        held = {int(tensors[0]): len(self.tensors[tensors[0]][1].ids) for tensors, _ in parts}
        cut = sum(
            prices.cutting(Source(held[int(tensors[0])], len(positions), len(_runs(positions, step=1))), value.entries)[
                0
            ]
            for tensors, positions in parts
        )
        return cut > prices.gathering(sum(held.values()), len(value.ids), value.entries)

    def _is_made(self, ids: Ids) -> bool:
        return bool(self.tensor_of[ids[0]] >= 0)

    def _or_whole(self, ids: Ids) -> Ids:
        """These channels, and all others of a tensor of which they are the most: cutting it would copy it once more."""
        found = []
        for tensor in np.unique(self.tensor_of[ids]):
            part, held = np.unique(ids[self.tensor_of[ids] == tensor]), self.tensors[tensor][1].ids
            found.append(held if 2 * len(part) > len(held) else part)
        return np.concatenate(found)

    def _take(self, tensor: int, positions: Ids, value: Value) -> list[fx.Node]:
        """Some channels of one tensor, to be joined: itself, slices of it, or a gather by index."""
        node, held = self.tensors[tensor]
        runs = _runs(positions, step=1)
        if len(runs) == 1 and len(positions) == len(held.ids):
            return [node]
        if not self._by_slices(Source(len(held.ids), len(positions), len(runs)), value):
            part = replace(value, ids=held.ids[positions])
            return [self._from_joined(part) if value.last else self.index(node, positions, value)]
        slices = []
        for run in runs:
            first, last = int(positions[run[0]]), int(positions[run[-1]]) + 1
            bounds = (value.axis, first * value.block, last * value.block)
            slices.append(self.graph.call_function(aten.slice.Tensor, (node, *bounds)))
        return slices

    def _by_slices(self, source: Source, value: Value) -> bool:
        if self.prices is None:
            return source.runs <= MAX_SLICES
        return self.prices.where(value.last).cutting(source, value.entries)[1]

    def index(self, node: fx.Node, positions: Ids, value: Value) -> fx.Node:
        """The channels at these positions of a tensor, gathered by number."""
        entries = (positions[:, None] * value.block + np.arange(value.block)).reshape(-1)
        index = self.attr(self.constants.index(entries))
        if not value.last or not (self.prices is None or self.prices.last_by_rows):
            return self.graph.call_function(aten.index_select.default, (node, value.axis, index))
        # Numbers of the last dimension are gathered one by one, those of another one in rows: ONNX Runtime takes an
        # eighth of the time for tokens of 384 channels, PyTorch half of it.
        last = value.ndim - 1
        turn = (last - 1, last)
        if (node, turn) not in self.gathered:
            self.gathered[node, turn] = self.graph.call_function(aten.transpose.int, (node, *turn))
        rows = self.graph.call_function(aten.index_select.default, (self.gathered[node, turn], last - 1, index))
        return self.graph.call_function(aten.transpose.int, (rows, *turn))


def positions_in(ids: Ids, order: Ids) -> Ids:
    """Where each of `ids` stands in `order`."""
    sorter = np.argsort(order)
    return sorter[np.searchsorted(order, ids, sorter=sorter)]


def _runs(numbers: Ids, step: int) -> list[Ids]:
    """Indices of the runs in which each number is `step` more than the one before."""
    breaks = np.flatnonzero(np.diff(numbers) != step) + 1
    return np.split(np.arange(len(numbers)), breaks)
