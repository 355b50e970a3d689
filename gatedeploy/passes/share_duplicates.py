"""Pass 3: do equal work once."""

from __future__ import annotations

import numpy as np

from gatedeploy.graph.channels import BLEND, BY_POSITION, ChannelGraph, Ids, Operation
from gatedeploy.passes.base import Pass, Renaming
from gatedeploy.passes.prune_channels import PruneChannels
from gatedeploy.passes.resolve_gates import ResolveGates


class ShareDuplicates(Pass):
    """Unite channels that are computed alike from equal identities (value numbering, channel by channel).

    1. Two channels are one when the same operator with the same arguments reads equal identities for both: of some
       operands what belongs to the channel's position, of others all. Weights have identities too, so two layers
       share a channel only where they share its row of the weight.
    2. Operations that are not divisible are one when all they read is equal.
    3. A blend whose operands are one identity *is* that identity: shares sum to one.
    """

    requires = (ResolveGates, PruneChannels)

    def run(self, graph: ChannelGraph) -> None:
        """See the class."""
        renaming = Renaming(graph)
        known: dict[object, int] = {}
        first: dict[object, Operation] = {}
        kept: list[Operation] = []
        for operation in graph.operations:
            renaming.read_by(operation)
            if operation.divisible:
                fresh = _unite_channels(operation, known, renaming)
                if len(fresh) == 0:
                    continue
                operation.keep(fresh)
            else:
                twin = first.setdefault(_signature(operation), operation)
                if twin is not operation:  # 2
                    renaming.rename(operation.output.ids, twin.output.ids)
                    continue
            kept.append(operation)
        graph.operations = kept
        renaming.finish()

    def ensures(self, graph: ChannelGraph) -> bool:
        """No two operations that are not divisible read the same for the same; channels cannot by construction."""
        signatures = [_signature(operation) for operation in graph.operations if not operation.divisible]
        return len(signatures) == len(set(signatures))


def _unite_channels(operation: Operation, known: dict[object, int], renaming: Renaming) -> Ids:
    """Positions of the channels that are computed here for the first time; the others are renamed."""
    signature = _signature(operation)
    count = len(operation.output.ids)
    read = [operand.value.ids for operand in operation.operands if operand.need in BY_POSITION]
    by_position = np.concatenate([ids.reshape(count, -1) for ids in read], axis=1)
    numbers = np.vstack([np.zeros((0, count)), *operation.constants.values()])
    fresh = []
    for position, id_ in enumerate(operation.output.ids.tolist()):
        reads = by_position[position]
        if operation.target is BLEND and (reads == reads[0]).all():  # 3
            renaming.now[id_] = reads[0]
            continue
        key = (signature, reads.tobytes(), numbers[:, position].tobytes())  # 1
        same = known.setdefault(key, id_)
        if same == id_:
            fresh.append(position)
        else:
            renaming.now[id_] = same
    return np.array(fresh, dtype=np.int64)


def _signature(operation: Operation) -> object:
    """All that two operations must have in common besides what they read by position."""
    operands = tuple(
        (operand.need, operand.value.axis, operand.value.block, operand.columns)
        + ((operand.value.ids.tobytes(),) if operand.need not in BY_POSITION or not operation.divisible else ())
        for operand in operation.operands
    )
    settings = (str(operation.target), repr(operation.args), repr(sorted(operation.kwargs.items())))
    return (*settings, operands, operation.output.axis, operation.output.block)
