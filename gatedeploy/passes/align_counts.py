"""Pass 11: give tensors as many channels as kernels like."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gatedeploy.graph.channels import ChannelGraph, Ids, Need, Operation
from gatedeploy.graph.places import Places
from gatedeploy.graph.prices import Prices
from gatedeploy.graph.sums import Sum, Term, selection
from gatedeploy.passes.base import Pass
from gatedeploy.passes.order_channels import OrderChannels
from gatedeploy.passes.unite_channelwise import feature, is_unary


class AlignCounts(Pass):
    """Compute the last channel of a tensor several times, until the tensor has whole vectors of channels.

    Kernels compute channels in vectors and store them so; a tensor of more than one vector but no whole number of them
    leaves that form for every layer that reads it (ONNX Runtime takes no convolution into it whose input is no multiple
    of 4). Nobody needs the copies: their weights are 0 wherever they are read. A copy is as finite as what it is a copy
    of.

    Legal when all that read the tensor are
    1. sums, which read it by layers, or add it where a 1×1 layer could,
    2. and operators that compute channels of it one by one, of all of it, for whose results the same holds.
    """

    requires = (OrderChannels,)

    def __init__(self, prices: Prices) -> None:
        self.prices = prices

    def run(self, graph: ChannelGraph) -> None:
        """See the class."""
        places = Places(graph)
        free = _free(graph, places)
        copies: dict[int, Ids] = {}
        for number, operation in zip(places.made, graph.operations, strict=True):
            count = len(operation.output.ids)
            if number not in free or self.prices.aligned(count) == count:
                continue
            new = np.arange(graph.created, graph.created + self.prices.aligned(count) - count)
            if isinstance(operation, Sum):
                _repeat_last(operation, new, places, copies)
            elif len(read := copies.get(int(places.tensor[feature(operation).value.ids[0]]), new[:0])) == len(new):
                _follow(operation, new, read)
            else:
                continue
            graph.created += len(new)
            if graph.scales is not None:
                last = graph.scales[operation.output.ids[count - 1]]
                graph.scales = np.append(graph.scales, np.full(len(new), last))
            copies[number] = new

    def ensures(self, graph: ChannelGraph) -> bool:
        """What a layer alone reads has whole vectors of channels."""
        places = Places(graph)
        free = _free(graph, places)
        sums = (
            len(operation.output.ids)
            for number, operation in zip(places.made, graph.operations, strict=True)
            if isinstance(operation, Sum) and number in free
        )
        return all(self.prices.aligned(count) == count for count in sums)


def _free(graph: ChannelGraph, places: Places) -> set[int]:
    """The numbers of the tensors that may have more channels than are read."""
    bound: set[int] = set()
    for value in graph.output_values():
        bound.update(places.tensor[value.ids].tolist())
    for number, operation in zip(reversed(places.made), reversed(graph.operations), strict=True):
        bound.update(_bound_by(operation, number, bound, places))
    made = zip(places.made, graph.operations, strict=True)
    return {number for number, each in made if number not in bound and (isinstance(each, Sum) or is_unary(each))}


def _bound_by(operation: Operation, number: int, bound: set[int], places: Places) -> set[int]:
    """The tensors of which `operation` needs exactly the channels that they have."""
    if isinstance(operation, Sum):  # 1
        exact = selection(operation.output) is None
        reads = [term.reads.ids for term in operation.terms if term.kind is None and exact]
    elif is_unary(operation) and number not in bound:  # 2
        ids = feature(operation).value.ids
        whole = len(ids) == len(places.held[places.tensor[ids[0]]])
        reads = [] if whole else [ids]
    else:
        reads = [operand.value.ids for operand in operation.operands]
    return {tensor for ids in reads for tensor in places.tensor[ids].tolist()}


def _repeat_last(made: Sum, new: Ids, places: Places, copies: dict[int, Ids]) -> None:
    """Rows `new` like the last one; a tensor that was added to the last row has copies of its own to add to them."""
    last = len(made.output.ids) - 1
    rows = np.arange(last + 1, last + 1 + len(new))
    made.terms = tuple(_repeated(term, last, rows, places, copies) for term in made.terms)
    made.output = replace(made.output, ids=np.append(made.output.ids, new))
    if made.offset is not None:
        made.offset = np.append(made.offset, np.full(len(new), made.offset[last]))
    made.tell_operands()


def _repeated(term: Term, last: int, rows: Ids, places: Places, copies: dict[int, Ids]) -> Term:
    at = np.repeat(np.flatnonzero(term.rows == last), len(rows))
    if len(at) == 0:
        return term
    term = replace(term, rows=np.append(term.rows, rows), factor=np.append(term.factor, term.factor[at]))
    if term.weight is not None:
        value = term.weight.value
        more = replace(value, ids=np.append(value.ids, value.ids[at]))
        return replace(term, weight=replace(term.weight, value=more))
    read = term.reads.ids[at]
    own = copies.get(int(places.tensor[read[0]]), read)
    added = own if len(own) == len(rows) else read
    return replace(term, reads=replace(term.reads, ids=np.append(term.reads.ids, added)))


def _follow(operation: Operation, new: Ids, read: Ids) -> None:
    """Let an operator compute the copies of the tensor that it reads."""
    operation.operands = tuple(
        replace(operand, value=replace(operand.value, ids=np.append(operand.value.ids, read)))
        if operand.need is Need.ALIGNED
        else operand
        for operand in operation.operands
    )
    operation.output = replace(operation.output, ids=np.append(operation.output.ids, new))
