"""What a collapsed network costs, as a function of its gates, without collapsing it.

Which channels the collapse computes follows from liveness (`passes/prune_channels.py`): those that an output needs.
Here liveness is a number: how likely a channel is needed where each choice of a gate is drawn on its own. So the cost
can be differentiated, and where all choices are made it is that of the collapsed network, to the last multiply-add.
What one layer computes for several branches counts for each of them: networks that `gate` made have no such layer, and
of others the cost is a bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gatedeploy.gating.operators import MIX, SELECT, per_channel
from gatedeploy.graph.build import channel_graph
from gatedeploy.graph.channels import BY_POSITION, ChannelGraph, Ids, Need, Operation
from gatedeploy.graph.operators_mixing import CONVOLUTIONS, TRANSPOSED
from gatedeploy.graph.precompute import precomputed
from gatedeploy.program import Program
from gatedeploy.shapes import entries
from gatedeploy.specs import SHARED

aten = torch.ops.aten


def layer_macs(operation: Operation) -> float:
    """Multiply-adds of all that `operation` computes, for one picture; 0 of what is no convolution or linear layer.

    Of a channel that it reads twice, both columns of the weight become one.
    """
    packet = getattr(operation.target, "overloadpacket", None)
    if packet not in (*CONVOLUTIONS, *TRANSPOSED, aten.convolution, aten.linear):
        return 0
    operand, weight = (operation.operands[slot.operand] for slot in operation.args[:2])
    read, columns = operand.value, 1.0
    if operand.need is Need.ANY_ORDER:
        columns = len(np.unique(read.ids)) / len(read.ids)
    transposed = packet in TRANSPOSED or (packet is aten.convolution and bool(operation.args[6]))
    met = read.shape if transposed else operation.output.shape
    return columns * entries(met) * math.prod(int(size) for size in weight.value.shape[1:])


class GateCost:
    """The cost of a gated network's collapse, for any choices of its gates.

    Args:
        program: the gated network.
        price: what an operation costs where all its channels are computed; each has an equal part of it.

    Attributes:
        gates: how many choices each gate has, by the name of its logits.
        branches: the tasks and `shared`; a task's is what its own branch and head compute, all else is `shared`'s.
        whole: what the gated network costs, with all its branches.
    """

    def __init__(self, program: Program, price: Callable[[Operation], float] = layer_macs) -> None:
        graph = channel_graph(precomputed(program))
        places = _Places(graph)
        self.branches = (*graph.outputs, SHARED)
        self._steps = [_step(graph, places, operation, price) for operation in graph.operations]
        self.whole = sum(step.cost for step in self._steps)
        self._outputs = [read for value in graph.output_values() for read in places.of(value.ids)]
        self._branch_of = [self.branches.index(_branch(graph, operation)) for operation in graph.operations]
        self.gates = {step.gate: len(graph.weights[step.gate]) for step in self._steps if step.gate is not None}

    def __call__(self, openness: Mapping[str, Tensor]) -> Tensor:
        """(branches,) what each costs, in float64.

        Args:
            openness: by gate, `(choices,)` in [0, 1] on the CPU: how likely each choice takes the task's own feature.
        """
        one = torch.ones((), dtype=torch.float64)
        unneeded: list[Tensor | None] = [None] * len(self._steps)
        for read in self._outputs:
            self._need(unneeded, read, one)
        parts: list[list[Tensor]] = [[torch.zeros_like(one)] for _ in self.branches]
        for number in reversed(range(len(self._steps))):
            step, share = self._steps[number], unneeded[number]
            unneeded[number] = None
            if share is None:
                continue
            needed, some = 1 - share, 1 - share.prod()
            if step.cost:
                parts[self._branch_of[number]].append(step.cost * (step.share(needed) if step.divisible else some))
            by_operand = [needed] * len(step.reads)
            if step.gate is not None:
                own = per_channel(openness[step.gate].double(), step.group, step.channels)
                by_operand = [needed * own, needed * (1 - own)]
            for part, reads in zip(by_operand, step.reads, strict=True):
                for read in reads:
                    self._need(unneeded, read, some if read.by is None else part[read.by])
        return torch.stack([torch.stack(each).sum() for each in parts])

    def of_all(self, openness: float) -> Tensor:
        """(branches,) what each costs where every choice is as open: 1 takes all of a task's own, 0 shares all."""
        return self({name: torch.full((count,), float(openness)) for name, count in self.gates.items()})

    def _need(self, unneeded: list[Tensor | None], read: _Read, needed: Tensor) -> None:
        """Note how likely what is read is needed: a number, or one for each channel that is read."""
        before = unneeded[read.maker]
        before = torch.ones(self._steps[read.maker].channels, dtype=torch.float64) if before is None else before
        rest = 1 - needed
        if not isinstance(read.positions, slice):
            # What several channels of the reader need counts once: as the likeliest of them.
            rest = torch.ones_like(before).scatter_reduce(0, read.positions, rest.expand(len(read.positions)), "amin")
        unneeded[read.maker] = before * rest


@dataclass(frozen=True)
class _Read:
    """Channels of what one operation makes, read by another.

    Args:
        maker: the number of the operation that makes them.
        positions: which of its output channels; a slice of all where they are all, in their order.
        by: which of the reader's output channels needs each; None where any of them needs all.
    """

    maker: int
    positions: Tensor | slice
    by: Tensor | slice | None


@dataclass(frozen=True)
class _Step:
    """An operation: how many channels it makes, what all of them cost, and by operand what it reads of others.

    `gate` and `group` are a gate's: the name of its logits, and how many channels follow a choice. `groups` are those
    of a convolution.
    """

    channels: int
    cost: float
    divisible: bool
    reads: tuple[list[_Read], ...]
    gate: str | None
    group: int
    groups: int

    def share(self, needed: Tensor) -> Tensor:
        """Which share of its channels is computed; of a convolution in groups, as many for each as for the largest."""
        if self.groups == 1:
            return needed.mean()
        by_group = needed.view(self.groups, -1)
        return (1 - (1 - by_group).prod(1)).mean() * by_group.mean(1).max()


ALL = slice(None)


class _Places:
    """Which operation makes an identity, and where."""

    def __init__(self, graph: ChannelGraph) -> None:
        self.maker = np.full(graph.created, -1, dtype=np.int64)
        self.position = np.zeros(graph.created, dtype=np.int64)
        self.made = [len(operation.output.ids) for operation in graph.operations]
        for number, operation in enumerate(graph.operations):
            self.maker[operation.output.ids] = number
            self.position[operation.output.ids] = np.arange(self.made[number])

    def of(self, ids: Ids, readers: int | None = None) -> list[_Read]:
        """What is read of each operation; weights and the picture are made by none.

        Args:
            ids: of the operand.
            readers: how many channels read it, each as many neighbouring ones; None where each reads all.
        """
        makers, found = self.maker[ids], []
        for maker in np.unique(makers[makers >= 0]).tolist():
            at = np.flatnonzero(makers == maker)
            positions, by = self.position[ids[at]], at if readers is None else at // (len(ids) // readers)
            everything = np.array_equal(positions, np.arange(self.made[maker]))
            one_each = everything and np.array_equal(by, np.arange(readers or 0))
            found.append(
                _Read(
                    maker,
                    ALL if everything else torch.from_numpy(positions),
                    None if readers is None else ALL if one_each else torch.from_numpy(by),
                )
            )
        return found


def _step(graph: ChannelGraph, places: _Places, operation: Operation, price: Callable[[Operation], float]) -> _Step:
    channels, operands = len(operation.output.ids), operation.operands
    if operation.target in (SELECT, MIX):
        operands = operands[:-1]  # the logits
    reads = tuple(
        places.of(operand.value.ids, channels if operand.need in BY_POSITION else None) for operand in operands
    )
    gate, group = None, 1
    if operation.target is SELECT:
        gate, group = graph.constant(operation.operands[-1].value, operation.name), int(operation.args[3])
    runs = [operand.value.ids.reshape(channels, -1) for operand in operands if operand.need is Need.RUN]
    costs = price(operation)
    groups = len(np.unique(runs[0], axis=0)) if costs and runs else 1
    return _Step(channels, costs, operation.divisible, reads, gate, group, groups)


def _branch(graph: ChannelGraph, operation: Operation) -> str:
    """Whose the operation's weights are; `gate` calls them `branches.<branch>.…` and `heads.<task>.…`."""
    for value in (operand.value for operand in operation.operands):
        first, _, rest = (
            graph.weight_of.get(int(value.ids[0]), ("",))[0].partition(".") if len(value.ids) else ("",) * 3
        )
        name = rest.partition(".")[0]
        if first in ("branches", "heads") and name in graph.outputs:
            return name
    return SHARED
