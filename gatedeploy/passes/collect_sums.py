"""Pass 6: see layers, additions and mixes as sums."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from gatedeploy.graph.channels import BLEND, ChannelGraph, Ids, Need, Operation, Slot
from gatedeploy.graph.operators_mixing import is_layer
from gatedeploy.graph.sums import Kind, Numbers, Sum, Term, selection
from gatedeploy.passes.base import Pass
from gatedeploy.passes.fold_norms import FoldNorms, count_readers
from gatedeploy.passes.unite_channelwise import feature, is_unary

aten = torch.ops.aten
SAME_KIND = (aten.eq, aten.ne, aten.lt, aten.le, aten.gt, aten.ge, aten.to, aten._to_copy, aten.type_as)
"""Channelwise operators whose result may be another kind of number than what they read."""

MOST_COLUMNS = 1.1
"""So many times the columns that its rows need a sum's layers may have: one dense layer reads what any row needs."""


class CollectSums(Pass):
    """Write what is linear as sums.

    These are sums:
    1. a convolution or linear layer that reads channels in any order,
    2. a blend; operands that are one and the same become one term,
    3. an addition of two features of one shape, one of which comes from a sum through channelwise operators of one
       operand (so that both are known to hold numbers that can be multiplied).

    4. A row of a sum that nothing but one row of another sum adds, moves into that sum: all rows that the other one
       adds at once, or as many as there are if a layer could put rows that are added and rows that are not together;
       but none where the layers that they bring along read channels too different (`MOST_COLUMNS`).
    """

    requires = (FoldNorms,)

    def run(self, graph: ChannelGraph) -> None:
        """See the class."""
        floats = np.zeros(graph.created, dtype=bool)
        for position, operation in enumerate(graph.operations):
            made = _sum(graph, operation, floats)
            if made is not None:
                graph.operations[position] = made
            if made is not None or _keeps_floats(operation, floats):
                floats[operation.output.ids] = True
        _inline(graph)

    def ensures(self, graph: ChannelGraph) -> bool:
        """No blend is left, and no layer of the kind."""
        return not any(
            operation.target == BLEND or _is_dense(operation)
            for operation in graph.operations
            if not isinstance(operation, Sum)
        )


def _is_dense(operation: Operation) -> bool:
    return is_layer(operation) and operation.operands[0].need is Need.ANY_ORDER


def _sum(graph: ChannelGraph, operation: Operation, floats: Any) -> Sum | None:
    if _is_dense(operation):  # 1
        return _layer(graph, operation)
    if operation.target == BLEND:  # 2
        return Sum.of(operation.name, operation.output, _blended(operation), None)
    if operation.target is aten.add.Tensor and _is_addition(operation, floats):  # 3
        rows = np.arange(len(operation.output.ids))
        times = (1.0, float(operation.kwargs.get("alpha", 1)))
        terms = [
            Term(rows, operand.value, np.full(len(rows), factor))
            for operand, factor in zip(operation.operands, times, strict=True)
        ]
        return Sum.of(operation.name, operation.output, _by_channel(terms), None)
    return None


def _layer(graph: ChannelGraph, operation: Operation) -> Sum:
    data, weight, *bias = operation.operands
    count = len(operation.output.ids)
    factor = operation.constants.get("scale", np.ones(count))
    offset: Numbers | None = operation.constants.get("shift")
    if bias:
        offset = graph.numbers(bias[0].value) * factor + (0 if offset is None else offset)
    name, rows, _, _ = graph.weight_of[int(weight.value.ids[0])]
    shape = graph.weights[name].shape
    columns = weight.columns or 0
    kernel = tuple(size for dim, size in enumerate(shape) if dim not in (rows, columns))
    kind = Kind(operation.target, _frozen(operation.args[3:]), rows or 0, columns, kernel, data.value.block)
    return Sum.of(operation.name, operation.output, [Term(np.arange(count), data.value, factor, kind, weight)], offset)


def _blended(operation: Operation) -> list[Term]:
    rows = np.arange(len(operation.output.ids))
    shares = operation.constants["share"]
    return _by_channel(
        [Term(rows, operand.value, share) for operand, share in zip(operation.operands, shares, strict=True)]
    )


def _by_channel(terms: list[Term]) -> list[Term]:
    """Terms in which no row adds one channel twice."""
    factors: dict[tuple[int, int], float] = {}
    for term in terms:
        for row, id_, factor in zip(term.rows.tolist(), term.reads.ids.tolist(), term.factor.tolist(), strict=True):
            factors[row, id_] = factors.get((row, id_), 0.0) + factor
    kept = []
    for term in terms:
        keys = list(zip(term.rows.tolist(), term.reads.ids.tolist(), strict=True))
        first = [position for position, key in enumerate(keys) if key in factors]
        factor = np.array([factors.pop(keys[position]) for position in first])
        if first:
            kept.append(Term(term.rows[first], replace(term.reads, ids=term.reads.ids[first]), factor))
    return kept


def _is_addition(operation: Operation, floats: Any) -> bool:
    operands = [operand for operand in operation.operands if operand.need is Need.ALIGNED]
    return (
        operation.args == (Slot(0), Slot(1))
        and isinstance(operation.kwargs.get("alpha", 1), (int, float))
        and len(operands) == 2
        and all(_same_shape(operand.value.shape, operation) for operand in operands)
        and any(bool(floats[operand.value.ids].all()) for operand in operands)
    )


def _same_shape(shape: tuple[int, ...], operation: Operation) -> bool:
    other, axis = operation.output.shape, operation.output.axis
    return len(shape) == len(other) and all(shape[dim] == other[dim] for dim in range(len(other)) if dim != axis)


def _keeps_floats(operation: Operation, floats: Any) -> bool:
    return (
        is_unary(operation)
        and getattr(operation.target, "overloadpacket", None) not in SAME_KIND
        and bool(floats[feature(operation).value.ids].all())
    )


def _inline(graph: ChannelGraph) -> None:
    readers = count_readers(graph)
    made = {id_: op for op in graph.operations if isinstance(op, Sum) for id_ in op.output.ids.tolist()}
    moved: set[int] = set()
    for operation in graph.operations:
        if isinstance(operation, Sum) and _alike(operation, made, readers):
            for number in range(len(operation.terms)):
                _take_over(operation, number, made, readers, moved)  # 4
    kept = []
    for operation in graph.operations:
        if isinstance(operation, Sum):
            stay = np.array([id_ not in moved for id_ in operation.output.ids.tolist()])
            if not stay.all():
                operation.keep(np.flatnonzero(stay))
            operation.terms = tuple(term for term in operation.terms if len(term.rows))
            operation.tell_operands()
            if len(operation.output.ids) == 0:
                continue
        kept.append(operation)
    graph.operations = kept


def _alike(operation: Sum, made: dict[int, Sum], readers: Ids) -> bool:
    """Whether the rows that would move into `operation` read about the same channels, by layers of each kind."""
    layers: dict[int, set[tuple[int, int]]] = defaultdict(set)  # by row: sums, and which of their terms
    makers: dict[int, Sum] = {}
    for term in operation.terms:
        if term.kind is None:
            for row, id_ in zip(term.rows.tolist(), term.reads.ids.tolist(), strict=True):
                if readers[id_] == 1 and id_ in made:
                    maker = makers.setdefault(id(made[id_]), made[id_])
                    layers[row] |= {(id(maker), number) for number in _layers_of(maker, id_)}
    all_: dict[Kind, set[int]] = defaultdict(set)
    dense: dict[Kind, int] = defaultdict(int)
    needed: dict[Kind, int] = defaultdict(int)
    for alike, count in Counter(map(frozenset, layers.values())).items():
        columns: dict[Kind, set[int]] = defaultdict(set)
        for key, number in alike:
            term = makers[key].terms[number]
            assert term.kind is not None
            columns[term.kind].update(term.reads.ids.tolist())
        for kind, read in columns.items():
            all_[kind] |= read
            dense[kind] += count
            needed[kind] += count * len(read)
    return all(dense[kind] * len(all_[kind]) <= MOST_COLUMNS * needed[kind] for kind in all_)


def _layers_of(maker: Sum, id_: int) -> list[int]:
    """The numbers of the layers that make this channel."""
    row = int(np.flatnonzero(maker.output.ids == id_)[0])
    return [number for number, term in enumerate(maker.terms) if term.kind is not None and row in term.rows]


def _take_over(operation: Sum, number: int, made: dict[int, Sum], readers: Ids, moved: set[int]) -> None:
    """Let `operation` add up itself what its term reads, as far as nobody else does."""
    term = operation.terms[number]
    if term.kind is not None:
        return
    ids = term.reads.ids.tolist()
    ours = [place for place, id_ in enumerate(ids) if readers[id_] == 1 and id_ in made]
    if not ours or (len(ours) < len(operation.output.ids) and selection(operation.output) is None):
        return
    rest = np.setdiff1d(np.arange(len(ids)), ours)
    stays = Term(term.rows[rest], replace(term.reads, ids=term.reads.ids[rest]), term.factor[rest])
    terms = [*operation.terms]
    terms[number] = stays
    offset = np.zeros(len(operation.output.ids)) if operation.offset is None else operation.offset.copy()
    by_maker: dict[int, list[int]] = {}
    for place in ours:
        by_maker.setdefault(id(made[ids[place]]), []).append(place)
    for places in by_maker.values():
        maker = made[ids[places[0]]]
        count = len(maker.output.ids)
        row_of = {id_: row for row, id_ in enumerate(maker.output.ids.tolist())}
        theirs = np.array([row_of[ids[place]] for place in places])
        rows, factor = term.rows[places], term.factor[places]
        for inner in maker.terms:
            kept = inner.keep(theirs, count)
            if kept is not None:
                terms.append(replace(kept, rows=rows[kept.rows], factor=kept.factor * factor[kept.rows]))
        if maker.offset is not None:
            np.add.at(offset, rows, maker.offset[theirs] * factor)
        moved.update(ids[place] for place in places)
    operation.terms = tuple(terms)
    operation.offset = offset if offset.any() or operation.offset is not None else None


def _frozen(settings: Any) -> Any:
    return tuple(_frozen(part) for part in settings) if isinstance(settings, (list, tuple)) else settings
