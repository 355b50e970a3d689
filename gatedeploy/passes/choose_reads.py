"""Pass 11: choose by which kernels each sum is computed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gatedeploy.graph.channels import ChannelGraph, Ids, Value
from gatedeploy.graph.places import Places
from gatedeploy.graph.prices import Prices
from gatedeploy.graph.sums import Kind, Read, Sum, Term, factors, selection
from gatedeploy.passes.base import Pass
from gatedeploy.passes.collect_sums import CollectSums


class ChooseReads(Pass):
    """Compute a sum by layers over whole tensors, over tensors joined side by side, or by additions.

    1. A layer reads each tensor that holds some of its channels by itself, whole; where it does not need a channel its
       weight has a column of zeros. No channel is copied.
    2. Or it reads its channels cut out and joined into one tensor: no multiply-add is wasted.
    3. Channels that are added, times 1, and lie in one whole tensor in the order of the sum's rows, are added as they
       are.
    4. Channels that are added otherwise come through a 1×1 layer that selects, scales and adds them, where there is
       one for channels that lie as these do; else they are put into order and added one by one.

    1 or 2 is chosen by price.
    """

    requires = (CollectSums,)

    def __init__(self, prices: Prices) -> None:
        self.prices = prices

    def run(self, graph: ChannelGraph) -> None:
        """See the class."""
        places = Places(graph)
        for operation in graph.operations:
            if isinstance(operation, Sum):
                operation.reads = (*_additions(graph, operation, places), *self._layers(operation, places))

    def ensures(self, graph: ChannelGraph) -> bool:
        """Every sum knows how it is computed."""
        return all(operation.reads for operation in graph.operations if isinstance(operation, Sum))

    def _layers(self, made: Sum, places: Places) -> list[Read]:
        by_kind: dict[Kind, list[int]] = {}
        for number, term in enumerate(made.terms):
            if term.kind is not None:
                by_kind.setdefault(term.kind, []).append(number)
        return [read for kind, numbers in by_kind.items() for read in self._read(made, kind, tuple(numbers), places)]

    def _read(self, made: Sum, kind: Kind, numbers: tuple[int, ...], places: Places) -> list[Read]:
        terms = [made.terms[number] for number in numbers]
        value = terms[0].reads
        parts = places.by_tensor(np.concatenate([term.reads.ids for term in terms]))
        whole = [places.held[places.tensor[part[0]]] for part in parts]
        rows, positions = len(made.output.ids), made.output.entries
        sources = [(len(held), len(part)) for held, part in zip(whole, parts, strict=True)]
        apart, together = self.prices.layers(kind.taps, rows, max(1, positions), sources, value.entries)
        if apart < together:
            return [Read(replace(value, ids=held), kind, numbers) for held in whole]
        return [Read(replace(value, ids=np.concatenate(parts)), kind, numbers)]


def _additions(graph: ChannelGraph, made: Sum, places: Places) -> list[Read]:
    kind = selection(made.output)
    terms = [(number, term) for number, term in enumerate(made.terms) if term.kind is None]
    if not terms:
        return []
    parts = places.by_tensor(np.concatenate([term.reads.ids for _, term in terms]))
    reads, rest = [], []
    for part in parts:
        if _is_direct(graph, made, part, places):
            reads.append(Read(_value(made, terms[0][1], part)))  # 3
        else:
            rest.append(places.held[places.tensor[part[0]]])
    if not rest:
        return reads
    numbers = tuple(number for number, _ in terms)
    if kind is not None:  # 4
        return [*reads, *(Read(_value(made, terms[0][1], held), kind, numbers) for held in rest)]
    return _one_by_one(graph, made)


def _value(made: Sum, term: Term, ids: Ids) -> Value:
    return replace(made.output, ids=ids, shape=term.reads.shape)


def _is_direct(graph: ChannelGraph, made: Sum, part: Ids, places: Places) -> bool:
    held = places.held[places.tensor[part[0]]]
    if len(part) != len(held) or len(held) != len(made.output.ids):
        return False
    found = np.full(len(held), -1, dtype=np.int64)
    times = np.zeros(len(held))
    for term in made.terms:
        if term.kind is None:
            mine = places.tensor[term.reads.ids] == places.tensor[part[0]]
            if (found[term.rows[mine]] >= 0).any():
                return False
            found[term.rows[mine]] = term.reads.ids[mine]
            times[term.rows[mine]] = factors(graph.scales, made, term)[mine]
    return bool((found == held).all() and (times == 1).all())


def _one_by_one(graph: ChannelGraph, made: Sum) -> list[Read]:
    """The k-th channel that each row adds; a row that adds fewer than others adds one of them 0 times."""
    terms = [term for term in made.terms if term.kind is None]
    rows = np.concatenate([term.rows for term in terms])
    ids = np.concatenate([term.reads.ids for term in terms])
    factor = np.concatenate([factors(graph.scales, made, term) for term in terms])
    count = len(made.output.ids)
    turn = _turns(rows)
    reads = []
    first = np.zeros(count, dtype=np.int64)
    first[rows[::-1]] = ids[::-1]
    for number in range(turn.max() + 1):
        chosen = turn == number
        read, times = first.copy(), np.zeros(count)
        read[rows[chosen]], times[rows[chosen]] = ids[chosen], factor[chosen]
        reads.append(Read(_value(made, terms[0], read), factor=None if (times == 1).all() else times))
    return reads


def _turns(rows: Ids) -> Ids:
    """For each entry, how many entries before it have the same row."""
    seen: dict[int, int] = {}
    turns = []
    for row in rows.tolist():
        turns.append(seen.get(row, 0))
        seen[row] = turns[-1] + 1
    return np.array(turns)
