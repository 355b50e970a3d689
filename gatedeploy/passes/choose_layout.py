"""Pass 6: choose the order of the channels in every tensor."""

from __future__ import annotations

import numpy as np

from gatedeploy.graph.channels import ChannelGraph, Ids, Need, Operation
from gatedeploy.passes.base import Pass, made_once
from gatedeploy.passes.unite_channelwise import UniteChannelwise


class ChooseLayout(Pass):
    """Order channels so that operations find them as they want them, and as little as possible is copied.

    What a convolution or linear layer makes can be in any order, its rows follow, so such a tensor is *free* until
    somebody has ordered it.

    1. A channelwise operation takes the order of an operand that is not free: then that operand need not be permuted.
       Where all are free it takes the first one's.
    2. A free operand of which a channelwise operation reads all is put into the order of that operation, and one of
       which runs are taken for channels into the order of these.
    """

    requires = (UniteChannelwise,)

    def run(self, graph: ChannelGraph) -> None:
        """See the class."""
        made = graph.makers()
        free = {id(operation) for operation in graph.operations if _is_free(operation)}
        place = np.zeros(graph.created, dtype=np.int64)
        for index, operation in enumerate(graph.operations):
            aligned = [operand.value.ids for operand in operation.operands if operand.need is Need.ALIGNED]
            data = [ids for ids in aligned if int(ids[0]) not in graph.weight_of]
            channelwise = bool(data) and not _is_free(operation)
            if channelwise:
                fixed = [ids for ids in data if not _free_maker(ids, made, free)]
                operation.keep(np.argsort(place[(fixed or data)[0]], kind="stable"))  # 1
            for operand in operation.operands:
                if operand.need is Need.RUN or (operand.need is Need.ALIGNED and channelwise):
                    _follow(operand.value.ids, made, free, place)  # 2
            place[operation.output.ids] = (index << 32) + np.arange(len(operation.output.ids))

    def ensures(self, graph: ChannelGraph) -> bool:
        """Nothing got lost: every identity is still made once."""
        return made_once(graph)


def _is_free(operation: Operation) -> bool:
    return operation.divisible and any(operand.need is Need.ANY_ORDER for operand in operation.operands)


def _free_maker(ids: Ids, made: dict[int, tuple[Operation, int]], free: set[int]) -> Operation | None:
    """The free operation that makes exactly `ids`, if one does."""
    maker = made.get(int(ids[0]), (None,))[0]
    if maker is None or id(maker) not in free or len(maker.output.ids) != len(ids):
        return None
    return maker if set(ids.tolist()) == set(maker.output.ids.tolist()) else None


def _follow(ids: Ids, made: dict[int, tuple[Operation, int]], free: set[int], place: Ids) -> None:
    maker = _free_maker(ids, made, free)
    if maker is not None:
        row_of = {id_: row for row, id_ in enumerate(maker.output.ids.tolist())}
        maker.keep(np.array([row_of[id_] for id_ in ids.tolist()], dtype=np.int64))
        place[maker.output.ids] = (place[maker.output.ids] >> 32 << 32) + np.arange(len(ids))
        free.discard(id(maker))
