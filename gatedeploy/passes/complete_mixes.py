"""Pass 7: let a mix hand on what it does not mix."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np

from gatedeploy.graph.channels import ChannelGraph, Ids, Operation
from gatedeploy.graph.sums import Sum, Term
from gatedeploy.passes.base import Pass, made_once
from gatedeploy.passes.collect_sums import CollectSums
from gatedeploy.passes.unite_channelwise import arguments, feature, is_unary


class CompleteMixes(Pass):
    """Give a mix the rows of the channels that need no mixing, so that who reads the mixed feature reads one tensor.

    A channel that all tasks share is the same before and after the mix, so the mix has no row for it, and the next
    shared layer reads some channels of the mix and some of the tensor that went into it. A row that hands the channel
    on costs nothing where it is fused with an addition, and nothing where a whole tensor is handed on.

    Legal when
    1. a sum adds channels and has no layer; the tensor of which it reads most, of equals the largest, is the one it is
       completed from,
    2. and another sum reads channels of both, or of what the same operator makes of each: there, and only there, the
       handed-on channel takes the channel's place.
    """

    requires = (CollectSums,)

    def run(self, graph: ChannelGraph) -> None:
        """See the class."""
        completion = _Completion(graph)
        for mix in graph.operations:
            if isinstance(mix, Sum) and all(term.kind is None for term in mix.terms):  # 1
                source = completion.source(mix)
                if source is not None:
                    completion.complete(mix, source, [])
                    completion.add_rows(mix)

    def ensures(self, graph: ChannelGraph) -> bool:
        """Every identity is made once."""
        return made_once(graph)


class _Completion:
    def __init__(self, graph: ChannelGraph) -> None:
        self.graph = graph
        self.handed: list[tuple[int, int]] = []
        self.maker = {id_: operation for operation in graph.operations for id_ in operation.output.ids.tolist()}
        self.readers: dict[int, list[Operation]] = defaultdict(list)
        for operation in graph.operations:
            for id_ in {id_ for operand in operation.operands for id_ in operand.value.ids.tolist()}:
                self.readers[id_].append(operation)

    def source(self, mix: Sum) -> Operation | None:
        counts: dict[int, int] = defaultdict(int)
        makers: dict[int, Operation] = {}
        for id_ in (id_ for term in mix.terms for id_ in term.reads.ids.tolist() if id_ in self.maker):
            counts[id(self.maker[id_])] += 1
            makers[id(self.maker[id_])] = self.maker[id_]
        return max(makers.values(), key=lambda each: (counts[id(each)], len(each.output.ids)), default=None)

    def complete(self, mixed: Operation, source: Operation, below: list[tuple[Operation, Operation]]) -> None:
        """Let `mixed` hand on channels of `source`; `below` are the pairs of which they are made, the mix first."""
        pairs = [*below, (mixed, source)]
        theirs = set(source.output.ids.tolist())
        handed: dict[int, int] = {}
        for reader in self._reading(mixed.output.ids):
            if not isinstance(reader, Sum) or reader is mixed:
                continue
            for id_ in (id_ for term in reader.terms for id_ in term.reads.ids.tolist()):
                if id_ in theirs and id_ not in handed:
                    handed[id_] = self._hand_on(id_, pairs)
            reader.terms = tuple(_redirected(term, handed) for term in reader.terms)  # 2
            reader.tell_operands()
        twins = {arguments(twin): twin for twin in self._reading(source.output.ids) if is_unary(twin)}
        for unary in self._reading(mixed.output.ids):
            if is_unary(unary) and arguments(unary) in twins:
                self.complete(unary, twins[arguments(unary)], pairs)

    def add_rows(self, mix: Sum) -> None:
        """Let `mix` add what it was found to hand on."""
        if self.handed:
            rows, ids = (np.array(numbers) for numbers in zip(*self.handed, strict=True))
            mix.terms = (*mix.terms, Term(rows, replace(mix.terms[0].reads, ids=ids), np.ones(len(rows))))
            mix.tell_operands()
            self.handed.clear()

    def _reading(self, ids: Ids) -> list[Operation]:
        return list({id(reader): reader for id_ in ids.tolist() for reader in self.readers.get(id_, ())}.values())

    def _hand_on(self, id_: int, pairs: list[tuple[Operation, Operation]]) -> int:
        """A new channel of the last pair's mixed operation that equals the channel `id_` of its source."""
        *below, (mixed, source) = pairs
        new = self.graph.created
        self.graph.created += 1
        mixed.output = replace(mixed.output, ids=np.append(mixed.output.ids, new))
        if isinstance(mixed, Sum):
            self.handed.append((len(mixed.output.ids) - 1, id_))
            return new
        row = source.output.ids.tolist().index(id_)
        read = self._hand_on(int(feature(source).value.ids[row]), below)
        value = feature(mixed).value
        grown = replace(value, ids=np.append(value.ids, read))
        mixed.operands = tuple(
            replace(operand, value=grown) if operand is feature(mixed) else operand for operand in mixed.operands
        )
        return new


def _redirected(term: Term, handed: dict[int, int]) -> Term:
    new = np.array([handed.get(id_, id_) for id_ in term.reads.ids.tolist()], dtype=np.int64)
    return replace(term, reads=replace(term.reads, ids=new))
