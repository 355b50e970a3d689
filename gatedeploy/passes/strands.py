"""What can be cut and joined: sums that are cut alike, and what each reads of the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gatedeploy.graph.channels import ChannelGraph, Ids
from gatedeploy.graph.groups import Groups
from gatedeploy.graph.places import Places
from gatedeploy.graph.sums import Kind, Sum, factors, selection
from gatedeploy.passes.bits import mask_of, places_in
from gatedeploy.passes.lines import Lines, earlier, gray_place
from gatedeploy.passes.unite_channelwise import feature, is_unary


@dataclass(frozen=True)
class Rope:
    """Strands whose channels could lie in tensors together.

    A strand is what sums make along which channels are added one by one, as the outputs of residual blocks, so that
    they are cut alike. A channel of it is one of each sum. Sets of a rope's channels are the bits of integers
    (`bits.py`), in the order in which they would lie in a tensor.

    Args:
        families: of a strand's sums: which sums of other strands each could be one tensor with.
        strands: the channels of each.
    """

    families: tuple[int, ...]
    strands: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class LayerRead:
    """What one layer of a sum reads.

    Args:
        kind: the layer's kind.
        rows: the channels that it makes.
        sources: by family and rope, the channels that it reads there.
        fixed: how many channels it reads of each tensor that no sum makes, and how many that has.
        entries: how many numbers a channel is that it reads.
    """

    kind: Kind
    rows: int
    sources: dict[tuple[int, int], int]
    fixed: tuple[tuple[int, int, int], ...]
    entries: int


@dataclass(frozen=True, eq=False)
class Added:
    """Channels that a sum adds as they are, one to a row.

    Args:
        family: of the sum that makes them; for a tensor that no sum makes, -1 - its number.
        rope: theirs; for a tensor that no sum makes, how many channels it has.
        rows: (n,) what they are added to.
        channels: (n,) what is added.
        ones: (n,) whether each is added times 1.
    """

    family: int
    rope: int
    rows: Ids
    channels: Ids
    ones: npt.NDArray[np.bool_]

    @cached_property
    def of(self) -> int:
        """All channels that are added."""
        return mask_of(self.channels)

    @cached_property
    def whole(self) -> int:
        """The rows to which one is added times 1."""
        return mask_of(self.rows[self.ones])

    def image(self, channels: int) -> int:
        """The rows to which these channels are added."""
        taken = np.zeros(max(int(self.channels.max()) + 1, channels.bit_length()), dtype=bool)
        taken[places_in(channels)] = True
        return mask_of(self.rows[taken[self.channels]])


class Strands:
    """A graph as the search for a partition sees it.

    Attributes:
        sums: all sums, in order.
        family: the family of each.
        rope: the rope of each.
        made: the channels of the rope that each makes.
        ropes: all ropes.
        makers: by family and rope, the sums that make its channels.
        place: (identities,) which channel of its rope each is that a sum makes, -1 elsewhere.
        layers: by sum, what its layers read.
        added: by sum, what it adds.
        readers: by rope, the sums that read channels of it, and which.
        around: by rope, itself and those that read it or are read by it.
    """

    def __init__(self, graph: ChannelGraph) -> None:
        self.graph = graph
        self.sums = [operation for operation in graph.operations if isinstance(operation, Sum)]
        self._owner: Ids = np.full(graph.created, -1, dtype=np.int64)
        for number, made in enumerate(self.sums):
            self._owner[made.output.ids] = number
        self._root = _roots(graph)
        self._tensors = Places(graph)
        groups = list(_groups(self.sums, self._root, self._owner))
        self.family = _families(graph, self.sums, groups)
        self.place: Ids = np.full(graph.created, -1, dtype=np.int64)
        self.rope = [-1] * len(self.sums)
        self.ropes: list[Rope] = []
        alike: dict[tuple[int, ...], list[list[int]]] = defaultdict(list)
        for group in groups:
            alike[tuple(self.family[number] for number in group)].append(group)
        lines, touched = Lines(graph).of, self._signatures()
        for families, strands in alike.items():
            self._make_rope(families, strands, lines, touched)
        self.made = [mask_of(self.place[made.output.ids]) for made in self.sums]
        self.makers: dict[tuple[int, int], list[int]] = defaultdict(list)
        for number, key in enumerate(zip(self.family, self.rope, strict=True)):
            self.makers[key].append(number)
        self.readers: list[dict[int, int]] = [defaultdict(int) for _ in self.ropes]
        self.layers = [self._layers(number) for number in range(len(self.sums))]
        self.added = [self._added(number) for number in range(len(self.sums))]
        self.around = [{number} for number in range(len(self.ropes))]
        for number, readers in enumerate(self.readers):
            for reader in readers:
                self.around[self.rope[reader]].add(number)
                self.around[number].add(self.rope[reader])

    def _signatures(self) -> dict[int, int]:
        """By identity that a sum makes, a number whose bits are the layers that read it."""
        touched: dict[int, int] = defaultdict(int)
        bit = 1 << sum(term.kind is not None for made in self.sums for term in made.terms)
        for made in self.sums:
            for term in made.terms:
                if term.kind is not None:
                    for id_ in np.unique(self._root[term.reads.ids]).tolist():
                        touched[id_] |= bit
                    bit >>= 1
        return touched

    def _make_rope(
        self, families: tuple[int, ...], strands: list[list[int]], lines: Ids, touched: dict[int, int]
    ) -> None:
        """Channels that the same layers read lie side by side, those that many of the same read near."""
        channels: list[tuple[int, int, list[int]]] = []
        for strand, group in enumerate(strands):
            found: dict[tuple[int, int], list[int]] = defaultdict(list)
            for number in group:
                self.rope[number] = len(self.ropes)
                output = self.sums[number].output.ids
                along = lines[output]
                for id_, line, turn in zip(output.tolist(), along.tolist(), earlier(along).tolist(), strict=True):
                    found[line, turn].append(id_)
            for ids in found.values():
                read_by = 0
                for id_ in ids:
                    read_by |= touched.get(id_, 0)
                channels.append((gray_place(read_by), strand, ids))
        channels.sort(key=lambda channel: channel[:2])
        for place, (_, _, ids) in enumerate(channels):
            self.place[ids] = place
        of = np.array([strand for _, strand, _ in channels])
        masks = tuple(mask_of(np.flatnonzero(of == strand)) for strand in range(len(strands)))
        self.ropes.append(Rope(families, masks))

    def _layers(self, number: int) -> list[LayerRead]:
        """What its layers read; noted in `readers`, too."""
        found = []
        for term in self.sums[number].terms:
            if term.kind is None:
                continue
            roots = np.unique(self._root[term.reads.ids])
            made = self._owner[roots] >= 0
            sources: dict[tuple[int, int], int] = defaultdict(int)
            for owner, ids in _by(self._owner[roots[made]], roots[made]):
                read = mask_of(self.place[ids])
                sources[self.family[owner], self.rope[owner]] |= read
                self.readers[self.rope[owner]][number] |= read
            fixed = tuple(
                (tensor, len(self._tensors.held[tensor]), len(ids))
                for tensor, ids in _by(self._tensors.tensor[roots[~made]], roots[~made])
            )
            rows = mask_of(self.place[self.sums[number].output.ids[term.rows]])
            found.append(LayerRead(term.kind, rows, dict(sources), fixed, term.reads.entries))
        return found

    def _added(self, number: int) -> list[Added]:
        """What it adds; noted in `readers`, too."""
        made, found = self.sums[number], []
        for term in made.terms:
            if term.kind is not None:
                continue
            roots = self._root[term.reads.ids]
            rows = self.place[made.output.ids[term.rows]]
            ones = factors(self.graph.scales, made, term) == 1
            inside = self._owner[roots] >= 0
            # Of tensors that no sum makes, the numbers are negative.
            source = np.where(inside, self._owner[roots], -1 - self._tensors.tensor[roots])
            channels = np.where(inside, self.place[roots], self._tensors.position[roots])
            for owner, at in _by(source, np.arange(len(roots))):
                if owner >= 0:
                    family, rope = self.family[owner], self.rope[owner]
                    self.readers[rope][number] |= mask_of(channels[at])
                else:
                    family, rope = owner, len(self._tensors.held[-1 - owner])
                found.append(Added(family, rope, rows[at], channels[at], ones[at]))
        return found


def _by(keys: Ids, values: Ids) -> Iterator[tuple[int, Ids]]:
    """The values of each key."""
    for key in np.unique(keys).tolist():
        yield key, values[keys == key]


def _roots(graph: ChannelGraph) -> Ids:
    """(identities,) what each is computed from by operators of one operand, one by one."""
    root = np.arange(graph.created, dtype=np.int64)
    for operation in graph.operations:
        if is_unary(operation):
            root[operation.output.ids] = root[feature(operation).value.ids]
    return root


def _families(graph: ChannelGraph, sums: list[Sum], groups: list[list[int]]) -> list[int]:
    """By sum: which sums it could be one with: layers of the same kinds at the same depth, results of one shape.

    None of them can depend on another: each is one deeper than the deepest that it reads.
    """
    depth = np.zeros(graph.created, dtype=np.int64)
    keys: list[tuple[object, ...]] = []
    for operation in graph.operations:
        deepest = max((int(depth[operand.value.ids].max()) for operand in operation.operands), default=0)
        depth[operation.output.ids] = deepest + 1
        if isinstance(operation, Sum):
            kinds = frozenset(term.kind for term in operation.terms)
            value = operation.output
            shape = tuple(size for dim, size in enumerate(value.shape) if dim != value.axis)
            joinable = selection(value) is not None or (len(kinds) == 1 and None not in kinds)
            keys.append((deepest, kinds, shape, value.axis, value.block, 0 if joinable else len(keys) + 1))
    numbers: dict[object, int] = {}
    family = [0] * len(sums)
    for group in groups:
        seen: dict[object, int] = defaultdict(int)
        for number in group:  # two sums of one strand are cut alike, and so can never be one
            family[number] = numbers.setdefault((keys[number], seen[keys[number]]), len(numbers))
            seen[keys[number]] += 1
    return family


def _groups(sums: list[Sum], root: Ids, owner: Ids) -> Iterator[list[int]]:
    """Sums that add more than half of each other's channels."""
    joined = Groups(len(sums))
    for number, made in enumerate(sums):
        counts: dict[int, int] = defaultdict(int)
        for term in made.terms:
            if term.kind is None:
                for source in owner[root[term.reads.ids]].tolist():
                    counts[source] += 1
        for source, count in counts.items():
            if source >= 0 and count * 2 > max(len(made.output.ids), len(sums[source].output.ids)):
                joined.unite(number, source)
    groups: dict[int, list[int]] = defaultdict(list)
    for number in range(len(sums)):
        groups[joined.of(number)].append(number)
    yield from groups.values()
