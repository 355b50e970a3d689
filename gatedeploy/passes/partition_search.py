"""The search for a partition of what sums make into tensors."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import accumulate

from gatedeploy.graph.prices import Prices, Source
from gatedeploy.graph.sums import Kind
from gatedeploy.passes.strands import Added, Strands

SWEEPS = 4
VECTORS = (1, 2, 4)
"""Of so many vectors kernels like rows."""

LEAST_MS = 1e-6
"""What a change must gain at least."""

Tensor = tuple[int, int]
"""Its family, and the label of its atoms."""


class PartitionSearch:
    """Labels for atoms: atoms of one label lie in one tensor wherever a sum makes them.

    Starts from one label per strand, and then joins labels and cuts them as long as that is predicted to save time.
    """

    def __init__(self, strands: Strands, prices: Prices) -> None:
        self.strands = strands
        self.prices = prices
        self.label = [atom.strand for atom in strands.atoms]
        self.members: dict[int, set[int]] = defaultdict(set)
        for atom, label in enumerate(self.label):
            self.members[label].add(atom)
        self.next_label = len(strands.strands)
        self.sum_at = {
            (family, number): made
            for number, strand in enumerate(strands.strands)
            for made, family in zip(strand.sums, strand.families, strict=True)
        }
        self._sizes = [atom.size for atom in strands.atoms]
        self._known: dict[int, dict[int, tuple[int, list[int]]]] = defaultdict(dict)
        self._tensors_of: dict[int, set[Tensor]] = {}
        self._prices: dict[Tensor, float] = {}
        self._atoms_of: dict[int, list[int]] = defaultdict(list)
        self._atoms_along: dict[int, list[int]] = defaultdict(list)
        for place, each in enumerate(strands.atoms):
            self._atoms_along[each.strand].append(place)
            for made in each.sums:
                self._atoms_of[made].append(place)

    def improve(self) -> None:
        """Sweep over the strands until nothing changes, a few times at most; later over those around a change alone."""
        todo = set(range(len(self.strands.strands)))
        for _ in range(SWEEPS):
            changed = [number for number in sorted(todo) if self._join(number) | self._cut(number)]
            todo = {near for number in changed for near in self.strands.around[number]}

    # prices

    def _present(self, tensor: Tensor) -> tuple[int, list[int]]:
        """How many channels it has, and its atoms in the order in which they are going to lie there."""
        family, label = tensor
        known = self._known[label]
        if family not in known:
            atoms = self.strands.atoms
            found = [
                atom
                for atom in sorted(self.members[label], key=self.strands.rank.__getitem__)
                if self.sum_at.get((family, atoms[atom].strand)) in atoms[atom].sums
            ]
            known[family] = sum(map(self._sizes.__getitem__, found)), found
        return known[family]

    def price(self, tensor: Tensor) -> float:
        """Milliseconds that computing it takes."""
        rows = self.prices.aligned(self._present(tensor)[0])
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
                self._in_one_order(found) and self.prices.aligned(sum(each.count for each in found)) == held == rows
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
        return label if family < 0 else self.prices.aligned(self._present(source)[0])

    def _reads(self, tensor: Tensor) -> tuple[dict[tuple[Kind, int], list[Source]], dict[Tensor, list[Added]], int]:
        """Per layer, what it reads of each tensor; what is added of each; positions."""
        family, label = tensor
        atoms, labels = self.strands.atoms, self.label
        by_sum: dict[int, set[int]] = defaultdict(set)
        for atom in self.members[label]:
            made = self.sum_at.get((family, atoms[atom].strand))
            if made is not None and made in atoms[atom].sums:
                by_sum[made].add(atom)
        needed: dict[tuple[Kind, int], dict[Tensor, set[int]]] = defaultdict(lambda: defaultdict(set))
        fixed: dict[tuple[Kind, int], dict[int, Source]] = defaultdict(dict)
        added: dict[Tensor, list[Added]] = defaultdict(list)
        positions = 1
        for made, mine in by_sum.items():
            positions = self.strands.sums[made].output.entries
            for layer in self.strands.layers[made]:
                if mine.isdisjoint(layer.rows):
                    continue
                kind = (layer.kind, layer.entries)
                for source, read in layer.sources.items():
                    parts, left = needed[kind], read
                    while left:  # label by label
                        its = labels[next(iter(left))]
                        found = left & self.members[its]
                        parts[source, its] |= found
                        left = left - found
                for number, held, count in layer.fixed:
                    fixed[kind][number] = Source(held, count, 1)
            for each in self.strands.added[made]:
                if each.row in mine:
                    key = (each.family, labels[each.atom]) if each.family >= 0 else (-1 - each.atom, each.count)
                    added[key].append(each)
        layers = {kind: [self._source(*part) for part in parts.items()] for kind, parts in needed.items()}
        for kind, more in fixed.items():
            layers.setdefault(kind, []).extend(more.values())
        return layers, added, positions

    def _source(self, tensor: Tensor, read: set[int]) -> Source:
        """What a layer reads that needs these atoms of a tensor."""
        size, present = self._present(tensor)
        taken = [atom in read for atom in present]
        runs = sum(map(int.__gt__, taken, [False, *taken]))
        return Source(self.prices.aligned(size), sum(map(self._sizes.__getitem__, read)), runs)

    # changes

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

    def _relabel(self, atoms: Iterable[int], label: int) -> None:
        touched = {label}
        for atom in atoms:
            touched.add(self.label[atom])
            self.members[self.label[atom]].discard(atom)
            self.members[label].add(atom)
            self.label[atom] = label
            for made in self.strands.atoms[atom].sums:
                self._tensors_of.pop(made, None)
        for each in touched:
            self._known.pop(each, None)

    def _settle(self, moved: list[int], label: int, around: list[int]) -> None:
        """Give these atoms another label for good; `around` are all atoms of both labels."""
        stale = self._affected(around)
        self._relabel(moved, label)
        for tensor in stale | self._affected(around):
            self._prices.pop(tensor, None)

    def _total(self, atoms: list[int]) -> float:
        """What the tensors cost that have these atoms or read them."""
        total = 0.0
        for tensor in self._affected(atoms):
            if tensor not in self._prices:
                self._prices[tensor] = self.price(tensor)
            total += self._prices[tensor]
        return total

    def _gain(self, moved: list[int], label: int, around: list[int], before: float) -> float:
        """What it would save to give these atoms another label; `around` are all atoms of both labels."""
        old = self.label[moved[0]]
        self._relabel(moved, label)
        after = sum(self.price(tensor) for tensor in self._affected(around))
        self._relabel(moved, old)
        return before - after

    def _join(self, number: int) -> bool:
        """Join two labels of the strand, or one of it and one of a strand of the same families."""
        strand = self.strands.strands[number]
        siblings = [other for other, each in enumerate(self.strands.strands) if each.families == strand.families]
        changed = False
        while True:
            mine = self._labels([number])
            others = self._labels(siblings)
            best, chosen = LEAST_MS, None
            for one in mine:
                for other in others:
                    if one == other or (other in mine and other < one):
                        continue
                    around = [*self.members[one], *self.members[other]]
                    gain = self._gain(list(self.members[other]), one, around, self._total(around))
                    if gain > best:
                        best, chosen = gain, (one, other, around)
            if chosen is None:
                return changed
            one, other, around = chosen
            self._settle(list(self.members[other]), one, around)
            changed = True

    def _labels(self, strands: Iterable[int]) -> list[int]:
        return sorted({self.label[atom] for strand in strands for atom in self._atoms_along[strand]})

    def _cut(self, number: int) -> bool:
        """Cut labels of the strand in two, and these again, as long as that saves time."""
        changed = False
        todo = self._labels([number])
        while todo:
            label = todo.pop()
            around = sorted(self.members[label])
            gain, part = self._best_part(around, self._total(around))
            if gain > LEAST_MS:
                self._settle(part, self.next_label, around)
                todo += [label, self.next_label]
                self.next_label += 1
                changed = True
        return changed

    def _best_part(self, atoms: list[int], before: float) -> tuple[float, list[int]]:
        """The gain of the part that gains most as a tensor of its own, and the part: what some layer does not read.

        The best one is tried rounded up and down to what kernels like, too.
        """

        def gain(part: list[int]) -> float:
            return self._gain(part, self.next_label, atoms, before)

        borders = self._borders(atoms)
        if not borders:
            return 0.0, []
        gains = [gain(ordered[:end]) for ordered, end in borders]
        most = max(gains)
        ordered, border = borders[gains.index(most)]
        rounded = [(gain(ordered[:end]), end) for end in self._rounded(ordered, border)]
        most, end = max([(most, border), *rounded])
        return most, ordered[:end]

    def _borders(self, atoms: list[int]) -> list[tuple[list[int], int]]:
        """For each layer that reads some of these atoms: the others first, and how many those are."""
        inside = set(atoms)
        reads: dict[frozenset[int], None] = {}
        for reader in {reader for atom in atoms for reader in self.strands.readers[atom]}:
            for layer in self.strands.layers[reader]:
                read = frozenset(atom for source in layer.sources.values() for atom in source if atom in inside)
                if 0 < len(read) < len(atoms):
                    reads[read] = None
        return [(sorted(atoms, key=read.__contains__), len(atoms) - len(read)) for read in reads]

    def _rounded(self, ordered: list[int], border: int) -> list[int]:
        """How many atoms make parts of about as many channels that kernels like."""
        ends = list(accumulate(self.strands.atoms[atom].size for atom in ordered))
        exact, steps = ends[border - 1], [count * self.prices.vector for count in VECTORS]
        wanted = {rounded for step in steps for rounded in (exact // step * step, -(-exact // step) * step)}
        found = {min(range(len(ends)), key=lambda place: abs(ends[place] - each)) + 1 for each in wanted}
        return sorted(found - {border, len(ordered)})
