"""Pass 8: compute channels times a constant, so that mixes add them as they are."""

from __future__ import annotations

import math

import numpy as np
import torch

from gatedeploy.graph.channels import ChannelGraph, Ids, Need, Operation
from gatedeploy.graph.places import Places
from gatedeploy.graph.sums import Numbers, Sum
from gatedeploy.passes.base import Pass
from gatedeploy.passes.collect_sums import CollectSums

aten = torch.ops.aten
HOMOGENEOUS = frozenset(
    (
        *(aten.relu, aten.leaky_relu, aten.abs, aten.max_pool1d, aten.max_pool2d, aten.avg_pool1d, aten.avg_pool2d),
        *(aten.adaptive_avg_pool1d, aten.adaptive_avg_pool2d, aten.upsample_nearest1d, aten.upsample_nearest2d),
        *(aten._upsample_nearest_exact2d, aten.upsample_linear1d, aten.upsample_bilinear2d, aten.upsample_bicubic2d),
        *(aten.mean, aten.sum, aten.amax, aten.amin, aten.view, aten.reshape, aten.flatten, aten._unsafe_view),
        *(aten.permute, aten.transpose, aten.squeeze, aten.unsqueeze, aten.expand, aten.neg),
    )
)
"""Operators with f(s·x) = s·f(x) for every s > 0."""

LARGEST = 2.0**8
"""No channel is computed more than this many times larger or smaller, so that half precision keeps its range too."""


class AbsorbScales(Pass):
    """Choose a scale s > 0 for every channel so that sums add channels times 1 wherever possible.

    A layer that makes a channel multiplies its row by s, a layer that reads it divides its column by s, and both cost
    nothing. In a mix ψ' = a·ψ + … (InterroGate eq. 3) the factor a goes into the layer that makes ψ.

    Legal, channel by channel, when
    1. a channel is made by a sum, or from one scaled channel by an operator with f(s·x) = s·f(x),
    2. everything that reads it is a sum or such an operator, and no output of the network holds it,
    3. and along everything that is added up no scale exceeds `LARGEST` or its inverse.
    """

    requires = (CollectSums,)

    def run(self, graph: ChannelGraph) -> None:
        """See the class."""
        scales = _Scales(graph.created)
        for value in graph.output_values():
            scales.fix(value.ids)
        for operation in graph.operations:
            if isinstance(operation, Sum):
                continue
            if _is_homogeneous(operation):
                (operand,) = operation.operands
                scales.equal(operation.output.ids, operand.value.ids)
            else:
                for value in (operation.output, *(operand.value for operand in operation.operands)):
                    scales.fix(value.ids)
        scales.fix(graph.image.ids)
        scales.fix(np.array(list(graph.weight_of), dtype=np.int64))
        places = Places(graph)
        added = [_by_tensor(made, places) for made in graph.operations if isinstance(made, Sum)]
        for rank in range(max(map(len, added), default=0)):  # what a sum reads most of comes first
            for parts in added:
                if rank < len(parts):
                    scales.relate(*parts[rank])
        graph.scales = scales.found()

    def ensures(self, graph: ChannelGraph) -> bool:
        """Outputs are what they were."""
        return graph.scales is not None and all((graph.scales[value.ids] == 1).all() for value in graph.output_values())


def _by_tensor(made: Sum, places: Places) -> list[tuple[Ids, Ids, Numbers]]:
    """Rows, the channels that are added to them, and times what, per tensor that a sum adds channels of."""
    terms = [term for term in made.terms if term.kind is None]
    if not terms:
        return []
    rows = np.concatenate([made.output.ids[term.rows] for term in terms])
    reads = np.concatenate([term.reads.ids for term in terms])
    factor = np.concatenate([term.factor for term in terms])
    tensors = places.tensor[reads]
    numbers, counts = np.unique(tensors, return_counts=True)
    parts = [tensors == tensor for tensor in numbers[np.argsort(-counts, kind="stable")]]
    return [(rows[part], reads[part], factor[part]) for part in parts]


def _is_homogeneous(operation: Operation) -> bool:
    return (
        getattr(operation.target, "overloadpacket", None) in HOMOGENEOUS
        and len(operation.operands) == 1
        and operation.operands[0].need is Need.ALIGNED
    )


class _Scales:
    """Groups of channels whose scales follow from each other: log₂ of each is its group's plus `own`."""

    def __init__(self, count: int) -> None:
        self.parent = list(range(count))
        self.own = [0.0] * count
        self.low, self.high = [0.0] * count, [0.0] * count
        self.fixed = [False] * count

    def fix(self, ids: np.ndarray) -> None:
        """Leave these channels as they are."""
        for id_ in ids.tolist():
            self.fixed[self._root(id_)[0]] = True

    def equal(self, left: np.ndarray, right: np.ndarray) -> None:
        """These are scaled alike, whatever that takes."""
        for one, other in zip(left.tolist(), right.tolist(), strict=True):
            self._unite(one, other, 0.0, always=True)

    def relate(self, rows: np.ndarray, reads: np.ndarray, factor: Numbers) -> None:
        """Try to have s(row) · factor = s(read)."""
        for row, read, times in zip(rows.tolist(), reads.tolist(), factor.tolist(), strict=True):
            if times > 0:
                self._unite(read, row, math.log2(times))

    def found(self) -> Numbers:
        """(identities,) the scales."""
        logs = np.zeros(len(self.parent))
        for id_ in range(len(self.parent)):
            root, own = self._root(id_)
            shift = 0.0 if self.fixed[root] else (self.low[root] + self.high[root]) / 2
            logs[id_] = own - shift
        return np.exp2(logs)

    def _unite(self, one: int, other: int, more: float, always: bool = False) -> None:
        """Let log s(one) = log s(other) + more, unless that is known to be otherwise or takes too large a scale."""
        root, own = self._root(one)
        end, its = self._root(other)
        if root == end:
            return
        shift = its + more - own  # log s(root), seen from `end`
        if self.fixed[root]:  # what is 0 there stays 0
            if self.fixed[end] and shift != 0:
                return
            root, end, shift = end, root, -shift
        low = min(self.low[end], self.low[root] + shift)
        high = max(self.high[end], self.high[root] + shift)
        most = math.log2(LARGEST)
        far = max(-low, high) > most if self.fixed[end] else high - low > 2 * most
        if far and not always:
            return
        self.parent[root], self.own[root] = end, shift
        self.low[end], self.high[end] = low, high

    def _root(self, id_: int) -> tuple[int, float]:
        path = []
        while self.parent[id_] != id_:
            path.append(id_)
            id_ = self.parent[id_]
        total = 0.0
        for step in reversed(path):
            total += self.own[step]
            self.parent[step], self.own[step] = id_, total
        return id_, total
