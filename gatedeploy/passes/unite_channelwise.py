"""Pass 4: apply what treats every channel alike to whole tensors."""

from __future__ import annotations

import numpy as np

from gatedeploy.graph.channels import BLEND, ChannelGraph, Need, Operand, Operation, Value
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
        tensor_of = np.zeros(graph.created, dtype=np.int64)  # by the address of the operation that makes it
        kept: list[Operation] = []
        for operation in graph.operations:
            if not _unary(operation):  # 1
                kept.append(operation)
                _note(operation, tensor_of)
                continue
            tensors = tensor_of[operation.operands[0].value.ids]
            for tensor in dict.fromkeys(tensors.tolist()):
                part = _part(operation, np.flatnonzero(tensors == tensor))
                twin = united.setdefault((tensor, _arguments(part)), part)  # 2
                if twin is part:
                    kept.append(part)
                else:
                    _join(twin, part)
                _note(twin, tensor_of)
        graph.operations = kept

    def ensures(self, graph: ChannelGraph) -> bool:
        """Every operation of the kind reads one tensor."""
        tensor_of = np.zeros(graph.created, dtype=np.int64)
        for operation in graph.operations:
            if _unary(operation) and len(np.unique(tensor_of[operation.operands[0].value.ids])) > 1:
                return False
            _note(operation, tensor_of)
        return True


def _note(operation: Operation, tensor_of: np.ndarray) -> None:
    for value in operation.outputs:
        tensor_of[value.ids] = id(operation)


def _unary(operation: Operation) -> bool:
    needs = [operand.need for operand in operation.operands if operand.value.ndim > 0]
    return operation.divisible and operation.target != BLEND and needs == [Need.ALIGNED]


def _arguments(operation: Operation) -> object:
    value = operation.operands[0].value
    others = tuple(operand.value.ids.tobytes() for operand in operation.operands[1:])
    arguments = (str(operation.target), repr(operation.args), repr(sorted(operation.kwargs.items())))
    return (*arguments, value.axis, value.block, others)


def _part(operation: Operation, positions: np.ndarray) -> Operation:
    part = Operation(
        operation.target, operation.args, operation.kwargs, operation.operands, operation.outputs, operation.name
    )
    part.keep(positions)
    return part


def _join(twin: Operation, part: Operation) -> None:
    """Let `twin` compute the channels of `part` too. `ShareDuplicates` has seen to it that they are others."""
    read = np.concatenate([twin.operands[0].value.ids, part.operands[0].value.ids])
    made = np.concatenate([twin.output.ids, part.output.ids])
    old, new = twin.operands[0], twin.output
    value = Value(read, old.value.axis, old.value.block, old.value.ndim)
    twin.operands = (Operand(value, Need.ALIGNED), *twin.operands[1:])
    twin.outputs = (Value(made, new.axis, new.block, new.ndim),)
