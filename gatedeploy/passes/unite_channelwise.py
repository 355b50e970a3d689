"""Pass 4: apply what treats every channel alike to whole tensors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gatedeploy.graph.channels import BLEND, ChannelGraph, Need, Operand, Operation
from gatedeploy.graph.sums import Sum
from gatedeploy.passes.base import Pass
from gatedeploy.passes.share_duplicates import ShareDuplicates


class UniteChannelwise(Pass):
    """Compute an activation, pooling or reshape once per tensor that it reads, not once per task that asks for it.

    Behind a gate a task's feature consists of channels of two tensors, its own and the shared one. Applied to that
    feature, an operator would first need the channels copied side by side; applied to each tensor in place it does
    not, and what several tasks read of the shared tensor is computed in one go.

    Legal when
    1. the operation reads one value, channel by channel, and its arguments hold nothing else of the graph, and
    2. operations that are united have equal arguments and read channels that one operation made.
    """

    requires = (ShareDuplicates,)

    def run(self, graph: ChannelGraph) -> None:
        """See the class."""
        united: dict[object, Operation] = {}
        tensors = _Tensors(graph)
        kept: list[Operation] = []
        for operation in graph.operations:
            if not is_unary(operation):  # 1
                kept.append(operation)
                tensors.note(operation)
                continue
            read = tensors.of[feature(operation).value.ids]
            for tensor in dict.fromkeys(read.tolist()):
                part = _part(operation, np.flatnonzero(read == tensor))
                twin = united.setdefault((tensor, arguments(part)), part)  # 2
                if twin is part:
                    kept.append(part)
                else:
                    _join(twin, part)
                tensors.note(twin)
        graph.operations = kept

    def ensures(self, graph: ChannelGraph) -> bool:
        """Every operation of the kind reads one tensor."""
        tensors = _Tensors(graph)
        for operation in graph.operations:
            if is_unary(operation) and len(np.unique(tensors.of[feature(operation).value.ids])) > 1:
                return False
            tensors.note(operation)
        return True


class _Tensors:
    """Which tensor each identity is a channel of, by number: the picture is 0, weights come first."""

    def __init__(self, graph: ChannelGraph) -> None:
        self.of = np.zeros(graph.created, dtype=np.int64)
        self.numbers: dict[object, int] = {}
        for id_, (*weight, _) in graph.weight_of.items():
            self.of[id_] = self._number(tuple(weight))

    def note(self, operation: Operation) -> None:
        self.of[operation.output.ids] = self._number(id(operation))

    def _number(self, key: object) -> int:
        return self.numbers.setdefault(key, len(self.numbers) + 1)


def is_unary(operation: Operation) -> bool:
    """Whether `operation` computes channels of one value, one by one."""
    if isinstance(operation, Sum):
        return False
    needs = [operand.need for operand in operation.operands if operand.value.ndim > 0]
    return operation.divisible and operation.target != BLEND and needs == [Need.ALIGNED]


def feature(operation: Operation) -> Operand:
    """The one operand of a unary operation that has channels; a number may stand before it."""
    (feature,) = (operand for operand in operation.operands if operand.need is Need.ALIGNED)
    return feature


def arguments(operation: Operation) -> object:
    """What two unary operations must have in common to be one, besides the tensor that they read."""
    value = feature(operation).value
    others = tuple(operand.value.ids.tobytes() for operand in operation.operands if operand.need is Need.WHOLE)
    arguments = (str(operation.target), repr(operation.args), repr(sorted(operation.kwargs.items())))
    return (*arguments, value.axis, value.block, others)


def _part(operation: Operation, positions: np.ndarray) -> Operation:
    part = Operation(
        operation.target, operation.args, operation.kwargs, operation.operands, operation.output, operation.name
    )
    part.keep(positions)
    return part


def _join(twin: Operation, part: Operation) -> None:
    """Let `twin` compute the channels of `part` too. `ShareDuplicates` has seen to it that they are others."""
    made = np.concatenate([twin.output.ids, part.output.ids])
    twin.output = replace(twin.output, ids=made)
    read = np.concatenate([feature(twin).value.ids, feature(part).value.ids])
    twin.operands = tuple(
        replace(operand, value=replace(operand.value, ids=read)) if operand.need is Need.ALIGNED else operand
        for operand in twin.operands
    )
