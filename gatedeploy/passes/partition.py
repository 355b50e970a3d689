"""What a partition of channels into tensors is predicted to cost."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from gatedeploy.graph.prices import Prices, Source
from gatedeploy.graph.sums import Kind
from gatedeploy.passes.strands import Added, Strands

Tensor = tuple[int, int]
"""Its family, and the label of its atoms."""


class _Present(NamedTuple):
    """What lies in a tensor.

    Args:
        held: how many channels it has.
        atoms: those that it has, in the order in which they are going to lie.
        by_sum: the same by the sum that makes them.
    """

    held: int
    atoms: list[int]
    by_sum: dict[int, set[int]]


class Partition:
    """Labels for atoms: atoms of one label lie in one tensor wherever a sum makes them. At first one per strand.

    Attributes:
        label: by atom.
        members: the atoms of each label.
        next_label: one that no atom has.
    """

    def __init__(self, strands: Strands, prices: Prices) -> None:
        self.strands = strands
        self.prices = prices
        self.label = [atom.strand for atom in strands.atoms]
        self.members: dict[int, set[int]] = defaultdict(set)
        for atom, label in enumerate(self.label):
            self.members[label].add(atom)
        self.next_label = len(strands.strands)
        self._sum_at = {
            (family, number): made
            for number, strand in enumerate(strands.strands)
            for made, family in zip(strand.sums, strand.families, strict=True)
        }
        self._sizes = [atom.size for atom in strands.atoms]
        self._atoms_of: dict[int, list[int]] = defaultdict(list)
        self._atoms_along: dict[int, list[int]] = defaultdict(list)
        for place, each in enumerate(strands.atoms):
            self._atoms_along[each.strand].append(place)
            for made in each.sums:
                self._atoms_of[made].append(place)
        # What was looked up before; `_relabel` and `settle` forget what is no longer so.
        self._known: dict[int, dict[int, _Present]] = defaultdict(dict)
        self._tensors_of: dict[int, set[Tensor]] = {}
        self._parts_of: dict[int, list[list[tuple[Tensor, frozenset[int]]]]] = {}
        self._prices: dict[Tensor, float] = {}

    def labels(self, strands: Iterable[int]) -> list[int]:
        """Those of the atoms of these strands."""
        return sorted({self.label[atom] for strand in strands for atom in self._atoms_along[strand]})

    def price(self, tensor: Tensor) -> float:
        """Milliseconds that computing it takes."""
        rows = self._present(tensor).held
        if rows == 0:
            return 0.0
        layers, added, positions = self._reads(tensor)
        total = 0.0
        for (kind, entries), parts in layers.items():
            total += self.prices.reading(kind.taps, rows, kind.positions(positions, entries), parts, entries).ms
        selected = []
        turns: set[tuple[int, int]] = set()
        for source, found in added.items():
            held = self._held(source)
            if not (
                held == rows == self.prices.aligned(sum(each.count for each in found)) and self._in_one_order(found)
            ):
                selected.append(held)
                turns.update((each.row, self._origin(each)) for each in found)
            elif not layers and len(added) > 1:
                total += self.prices.add_ms * rows * positions
        if selected:
            shape = (rows, positions, selected)
            most = max(Counter(row for row, _ in turns).values())
            total += min(self.prices.selected(*shape), self.prices.gathered(*shape, most))
        return total

    def total(self, atoms: list[int]) -> float:
        """What the tensors cost that have these atoms or read them."""
        total = 0.0
        for tensor in self._affected(atoms):
            if tensor not in self._prices:
                self._prices[tensor] = self.price(tensor)
            total += self._prices[tensor]
        return total

    def gain(self, moved: list[int], label: int, around: list[int], before: float) -> float:
        """What it would save to give these atoms another label.

        Args:
            moved: atoms of one label.
            label: the other.
            around: all atoms of both labels.
            before: their `total` as it is.
        """
        old = self.label[moved[0]]
        self._relabel(moved, label)
        after = sum(self.price(tensor) for tensor in self._affected(around))
        self._relabel(moved, old)
        return before - after

    def settle(self, moved: list[int], label: int, around: list[int]) -> None:
        """Give these atoms another label for good; `around` are all atoms of both labels."""
        stale = self._affected(around)
        self._relabel(moved, label)
        for tensor in stale | self._affected(around):
            self._prices.pop(tensor, None)

    def _relabel(self, atoms: Iterable[int], label: int) -> None:
        touched = {label}
        for atom in atoms:
            touched.add(self.label[atom])
            self.members[self.label[atom]].discard(atom)
            self.members[label].add(atom)
            self.label[atom] = label
            for made in self.strands.atoms[atom].sums:
                self._tensors_of.pop(made, None)
            for reader in self.strands.readers[atom]:
                self._parts_of.pop(reader, None)
        for each in touched:
            self._known.pop(each, None)

    def _affected(self, atoms: Iterable[int]) -> set[Tensor]:
        """The tensors that have these atoms, and those that read them."""
        found: set[Tensor] = set()
        readers: set[int] = set()
        for atom in atoms:
            strand = self.strands.strands[self.strands.atoms[atom].strand]
            found.update((family, self.label[atom]) for family in strand.families)
            readers |= self.strands.readers[atom]
        for reader in readers:
            if reader not in self._tensors_of:
                family, labels = self.strands.family[reader], self.label
                self._tensors_of[reader] = {(family, labels[atom]) for atom in self._atoms_of[reader]}
            found |= self._tensors_of[reader]
        return found

    def _present(self, tensor: Tensor) -> _Present:
        family, label = tensor
        known = self._known[label]
        if family not in known:
            atoms = self.strands.atoms
            found, by_sum = [], defaultdict(set)
            for atom in sorted(self.members[label], key=self.strands.rank.__getitem__):
                made = self._sum_at.get((family, atoms[atom].strand))
                if made is not None and made in atoms[atom].sums:
                    found.append(atom)
                    by_sum[made].add(atom)
            count = sum(map(self._sizes.__getitem__, found))
            known[family] = _Present(self.prices.aligned(count), found, by_sum)
        return known[family]

    def _in_one_order(self, parts: list[Added]) -> bool:
        """Each row adds one of these channels at most, times 1."""
        counts: Counter[int] = Counter()
        for part in parts:
            counts[part.row] += part.count
        fits = all(count <= self.strands.atoms[row].size for row, count in counts.items())
        return fits and all(part.whole for part in parts)

    def _origin(self, part: Added) -> int:
        """A number for the strand or tensor that `part` is of: a row adds one channel of each at most, or few."""
        return self.strands.atoms[part.atom].strand if part.family >= 0 else -1 - part.atom

    def _held(self, source: Tensor) -> int:
        """How many channels a tensor has; of one that no sum makes, the label tells."""
        family, label = source
        return label if family < 0 else self._present(source).held

    def _reads(self, tensor: Tensor) -> tuple[dict[tuple[Kind, int], list[Source]], dict[Tensor, list[Added]], int]:
        """Per layer, what it reads of each tensor; what is added of each; positions."""
        labels = self.label
        needed: dict[tuple[Kind, int], dict[Tensor, set[int]]] = defaultdict(lambda: defaultdict(set))
        fixed: dict[tuple[Kind, int], dict[int, Source]] = defaultdict(dict)
        added: dict[Tensor, list[Added]] = defaultdict(list)
        positions = 1
        for made, mine in self._present(tensor).by_sum.items():
            positions = self.strands.sums[made].output.entries
            for layer, parts in zip(self.strands.layers[made], self._parts(made), strict=True):
                if mine.isdisjoint(layer.rows):
                    continue
                kind = (layer.kind, layer.entries)
                for source, read in parts:
                    needed[kind][source] |= read
                for number, held, count in layer.fixed:
                    fixed[kind][number] = Source(held, count, 1)
            by_row = self.strands.added[made]
            for row in mine & by_row.keys():
                for each in by_row[row]:
                    key = (each.family, labels[each.atom]) if each.family >= 0 else (-1 - each.atom, each.count)
                    added[key].append(each)
        layers = {kind: [self._source(*part) for part in parts.items()] for kind, parts in needed.items()}
        for kind, more in fixed.items():
            layers.setdefault(kind, []).extend(more.values())
        return layers, added, positions

    def _parts(self, made: int) -> list[list[tuple[Tensor, frozenset[int]]]]:
        """Per layer of a sum, what it reads of each tensor."""
        if made not in self._parts_of:
            self._parts_of[made] = [
                [
                    ((family, label), read & self.members[label])
                    for family, read in layer.sources.items()
                    for label in {self.label[atom] for atom in read}
                ]
                for layer in self.strands.layers[made]
            ]
        return self._parts_of[made]

    def _source(self, tensor: Tensor, read: set[int]) -> Source:
        """What a layer reads that needs these atoms of a tensor."""
        present = self._present(tensor)
        taken = [atom in read for atom in present.atoms]
        runs = sum(map(int.__gt__, taken, [False, *taken]))
        return Source(present.held, sum(map(self._sizes.__getitem__, read)), runs)
