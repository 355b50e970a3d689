"""Pass 13: choose by which kernels each sum is computed."""

from __future__ import annotations

from dataclasses import replace
from itertools import compress

import numpy as np

from gatedeploy.graph.channels import ChannelGraph, Ids, Value
from gatedeploy.graph.places import Places
from gatedeploy.graph.prices import Prices, Source
from gatedeploy.graph.sums import Kind, Read, Sum, Term, factors, selection
from gatedeploy.passes.base import Pass
from gatedeploy.passes.collect_sums import CollectSums
from gatedeploy.passes.lines import earlier


class ChooseReads(Pass):
    """Compute a sum by layers over whole tensors, over tensors joined side by side, or by additions.

    1. A layer reads each tensor that holds some of its channels by a kernel of its own: whole, with a column of zeros
       for a channel that it does not need, or cut out, by slices or a gather.
    2. Or it reads tensors joined into one, each of them whole or cut out.
    3. Channels that are added, times 1, and lie in one whole tensor in the order of the sum's rows, are added as they
       are.
    4. Channels that are added otherwise come through a 1×1 layer that selects, scales and adds them, where there is
       one for channels that lie as these do;
    5. or they are put into order, scaled and added, one per row at a time.

    1 or 2, and 4 or 5, is chosen by price.
    """

    requires = (CollectSums,)

    def __init__(self, prices: Prices) -> None:
        self.prices = prices

    def run(self, graph: ChannelGraph) -> None:
        """See the class."""
        places = Places(graph)
        for operation in graph.operations:
            if isinstance(operation, Sum):
                layers = self._layers(operation, places)
                operation.reads = (*self._additions(graph, operation, places, not layers), *layers)

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
        rows, positions = len(made.output.ids), kind.positions(made.output.entries, value.entries)
        sources = [Source(len(held), len(part), places.runs(part)) for held, part in zip(whole, parts, strict=True)]
        reading = self.prices.where(value.last).reading(kind.taps, rows, positions, sources, value.entries)
        read = [part if cut else held for part, held, cut in zip(parts, whole, reading.cut, strict=True)]
        if reading.joined:
            read = [np.concatenate(self._rounded_up(read, whole))]
        else:
            read = [self._rounded_up([ids], [held])[0] for ids, held in zip(read, whole, strict=True)]
        return [Read(replace(value, ids=ids), kind, numbers, ms=ms) for ids, ms in zip(read, reading.each, strict=True)]

    def _additions(self, graph: ChannelGraph, made: Sum, places: Places, alone: bool) -> list[Read]:
        """How channels are added as they are, to those of layers or `alone`."""
        numbers = tuple(number for number, term in enumerate(made.terms) if term.kind is None)
        if not numbers:
            return []
        terms = [made.terms[number] for number in numbers]
        rows, positions = len(made.output.ids), made.output.entries
        parts = places.by_tensor(np.concatenate([term.reads.ids for term in terms]))
        values = [_value(made, terms[0], places.held[places.tensor[part[0]]]) for part in parts]
        direct = [_is_direct(graph, made, part, places) for part in parts]
        ms = self.prices.add_ms * rows * positions if alone and len(parts) > 1 else 0.0
        reads = [Read(value, ms=ms) for value in compress(values, direct)]  # 3
        rest = [value for value, itself in zip(values, direct, strict=True) if not itself]
        return [*reads, *self._selections(graph, made, numbers, rest)] if rest else reads

    def _selections(self, graph: ChannelGraph, made: Sum, numbers: tuple[int, ...], values: list[Value]) -> list[Read]:
        """How those channels are added that lie in these tensors, in some other order or times something."""
        rows, positions = len(made.output.ids), made.output.entries
        sources = [len(value.ids) for value in values]
        turns = _one_by_one(graph, made, np.concatenate([value.ids for value in values]))
        gathered_ms = self.prices.where(made.output.last).gathered(rows, positions, sources, len(turns))
        kind = selection(made.output)
        if kind is None or gathered_ms < self.prices.selected(rows, positions, sources):  # 5
            return [replace(turn, ms=gathered_ms / len(turns)) for turn in turns]
        each = [self.prices.selected(rows, positions, [count]) for count in sources]
        return [Read(value, kind, numbers, ms=ms) for value, ms in zip(values, each, strict=True)]  # 4

    def _rounded_up(self, parts: list[Ids], whole: list[Ids]) -> list[Ids]:
        """The channels that are joined, with as many more of the same tensors as make whole vectors."""
        count = sum(map(len, parts))
        missing = self.prices.aligned(count) - count
        rounded = []
        for part, held in zip(parts, whole, strict=True):
            more = np.setdiff1d(held, part, assume_unique=True)[:missing]
            missing -= len(more)
            rounded.append(held[np.isin(held, np.append(part, more))])
        return rounded


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


def _one_by_one(graph: ChannelGraph, made: Sum, of: Ids) -> list[Read]:
    """The k-th channel of those in `of` that each row adds; a row that adds fewer than others adds one 0 times."""
    terms = [term for term in made.terms if term.kind is None]
    ids = np.concatenate([term.reads.ids for term in terms])
    chosen = np.isin(ids, of)
    ids = ids[chosen]
    rows = np.concatenate([term.rows for term in terms])[chosen]
    factor = np.concatenate([factors(graph.scales, made, term) for term in terms])[chosen]
    turn = earlier(rows)
    reads = []
    first = np.full(len(made.output.ids), ids[0])
    first[rows[::-1]] = ids[::-1]
    for number in range(turn.max() + 1):
        now = turn == number
        read, times = first.copy(), np.zeros(len(first))
        read[rows[now]], times[rows[now]] = ids[now], factor[now]
        reads.append(Read(_value(made, terms[0], read), factor=None if (times == 1).all() else times))
    return reads
