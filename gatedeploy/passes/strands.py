"""What can be cut and joined: sums that are cut alike, and the smallest groups of channels worth telling apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gatedeploy.graph.channels import ChannelGraph, Ids
from gatedeploy.graph.groups import Groups
from gatedeploy.graph.places import Places
from gatedeploy.graph.sums import Kind, Sum, factors, selection
from gatedeploy.passes.lines import Lines, earlier, gray_place
from gatedeploy.passes.unite_channelwise import feature, is_unary

CHUNK, PIECES = 8, 32
"""An atom has at most `CHUNK` lines, as kernels compute channels in vectors of 8 or 16; or more where a strand has more
than `PIECES` such chunks, for the search takes as long as there are atoms."""


@dataclass(frozen=True, eq=False)
class Strand:
    """Sums along which channels are added one by one, as the outputs of residual blocks, so that they are cut alike.

    Args:
        sums: their numbers.
        families: the family of each: which sums of other strands it could be one tensor with.
    """

    sums: tuple[int, ...]
    families: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Atom:
    """Lines of a strand that the same layers read, and that the same sums of the strand make.

    Args:
        strand: its number.
        size: how many lines.
        sums: the numbers of the sums that make a channel of each.
    """

    strand: int
    size: int
    sums: frozenset[int]


@dataclass(frozen=True, eq=False)
class LayerRead:
    """What one layer of a sum reads.

    Args:
        kind: the layer's kind.
        rows: the atoms of its rows.
        sources: by family, the atoms that it reads there.
        fixed: how many channels it reads of each tensor that no sum makes, and how many that has.
        entries: how many numbers a channel is that it reads.
    """

    kind: Kind
    rows: frozenset[int]
    sources: dict[int, frozenset[int]]
    fixed: tuple[tuple[int, int, int], ...]
    entries: int


@dataclass(frozen=True, eq=False)
class Added:
    """Channels that a sum adds as they are.

    Args:
        row: the atom of its rows.
        family: where they come from; -1 for tensors that no sum makes.
        atom: the atom that they are of.
        count: how many.
        whole: whether each is added times 1.
    """

    row: int
    family: int
    atom: int
    count: int
    whole: bool


class Strands:
    """A graph as the search for a partition sees it.

    Attributes:
        sums: all sums, in order.
        family: the family of each.
        strands: all strands.
        atoms: all atoms.
        rank: by atom, its place in the order in which atoms are going to lie.
        atom_of: (identities,) the atom of what sums make, -1 elsewhere.
        layers: by sum, what its layers read.
        added: by sum and atom of rows, what is added to these.
        readers: by atom, the sums that read a channel of it.
        around: by strand, itself and those that read it or are read by it.
    """

    def __init__(self, graph: ChannelGraph) -> None:
        self.graph = graph
        self.sums = [operation for operation in graph.operations if isinstance(operation, Sum)]
        self._owner: Ids = np.full(graph.created, -1, dtype=np.int64)
        for number, made in enumerate(self.sums):
            self._owner[made.output.ids] = number
        self._root = _roots(graph)
        self._places = Places(graph)
        groups = list(_groups(self.sums, self._root, self._owner))
        self.family = _families(graph, self.sums, groups)
        self.strands = [Strand(tuple(group), tuple(self.family[number] for number in group)) for group in groups]
        self.atom_of: Ids = np.full(graph.created, -1, dtype=np.int64)
        self.atoms: list[Atom] = []
        self.rank: list[int] = []
        lines = Lines(graph).of
        touched = self._signatures()
        for number, strand in enumerate(self.strands):
            self._make_atoms(number, strand, lines, touched)
        self.layers: list[list[LayerRead]] = []
        self.added: list[dict[int, list[Added]]] = []
        self.readers: dict[int, set[int]] = defaultdict(set)
        for number in range(len(self.sums)):
            self._note_reads(number)
        self.around = [{number} for number in range(len(self.strands))]
        strand_of = {made: number for number, strand in enumerate(self.strands) for made in strand.sums}
        for atom, readers in self.readers.items():
            for reader in readers:
                self.around[strand_of[reader]].add(self.atoms[atom].strand)
                self.around[self.atoms[atom].strand].add(strand_of[reader])

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

    def _make_atoms(self, number: int, strand: Strand, lines: Ids, touched: dict[int, int]) -> None:
        found: dict[tuple[int, int], list[int]] = defaultdict(list)
        for made in strand.sums:
            output = self.sums[made].output.ids
            along = lines[output]
            for id_, line, turn in zip(output.tolist(), along.tolist(), earlier(along).tolist(), strict=True):
                found[line, turn].append(id_)
        groups: dict[tuple[int, frozenset[int]], list[list[int]]] = defaultdict(list)
        for ids in found.values():
            bits = 0
            for id_ in ids:
                bits |= touched.get(id_, 0)
            groups[bits, frozenset(self._owner[ids].tolist())].append(ids)
        chunk = CHUNK * max(1, len(found) // (CHUNK * PIECES))
        for (bits, sums), members in sorted(groups.items(), key=lambda item: item[0][0]):
            place = gray_place(bits)
            for start in range(0, len(members), chunk):
                lines_of = members[start : start + chunk]
                self.atom_of[[id_ for ids in lines_of for id_ in ids]] = len(self.atoms)
                self.atoms.append(Atom(number, len(lines_of), sums))
                self.rank.append(place)

    def _note_reads(self, number: int) -> None:
        made = self.sums[number]
        row_atoms = self.atom_of[made.output.ids]
        layers: list[LayerRead] = []
        added: dict[tuple[int, int, int], list[bool]] = defaultdict(list)
        for term in made.terms:
            roots = self._root[term.reads.ids]
            if term.kind is not None:
                layers.append(self._layer(term.kind, roots, row_atoms[term.rows], term.reads.entries, number))
                continue
            whole = factors(self.graph.scales, made, term) == 1
            for row, root, one in zip(row_atoms[term.rows].tolist(), roots.tolist(), whole.tolist(), strict=True):
                atom = int(self.atom_of[root])
                family = self.family[self._owner[root]] if atom >= 0 else -1
                added[row, family, atom if atom >= 0 else int(self._places.tensor[root])].append(one)
                if atom >= 0:
                    self.readers[atom].add(number)
        self.layers.append(layers)
        by_row: dict[int, list[Added]] = defaultdict(list)
        for (row, family, atom), whole in added.items():
            by_row[row].append(Added(row, family, atom, len(whole), all(whole)))
        self.added.append(by_row)

    def _layer(self, kind: Kind, roots: Ids, rows: Ids, entries: int, number: int) -> LayerRead:
        roots = np.unique(roots)
        inside = roots[self.atom_of[roots] >= 0]
        sources: dict[int, set[int]] = defaultdict(set)
        for atom, owner in zip(self.atom_of[inside].tolist(), self._owner[inside].tolist(), strict=True):
            sources[self.family[owner]].add(atom)
            self.readers[atom].add(number)
        tensors, counts = np.unique(self._places.tensor[roots[self.atom_of[roots] < 0]], return_counts=True)
        fixed = tuple(
            (tensor, len(self._places.held[tensor]), count)
            for tensor, count in zip(tensors.tolist(), counts.tolist(), strict=True)
        )
        frozen = {family: frozenset(atoms) for family, atoms in sources.items()}
        return LayerRead(kind, frozenset(rows.tolist()), frozen, fixed, entries)


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
