"""The search for a partition of what sums make into tensors."""

from __future__ import annotations

from itertools import accumulate

from gatedeploy.graph.prices import Prices
from gatedeploy.passes.partition import Partition
from gatedeploy.passes.strands import Strands

SWEEPS = 4
VECTORS = (1, 2, 4)
"""Of so many vectors kernels like rows."""

LEAST_MS = 1e-6
"""What a change must gain at least."""


class PartitionSearch:
    """Joins labels of a partition and cuts them as long as that is predicted to save time."""

    def __init__(self, strands: Strands, prices: Prices) -> None:
        self.strands = strands
        self.prices = prices
        self.partition = Partition(strands, prices)

    def improve(self) -> None:
        """Sweep over the strands until nothing changes, a few times at most; later over those around a change alone."""
        todo = set(range(len(self.strands.strands)))
        for _ in range(SWEEPS):
            changed = [number for number in sorted(todo) if self._join(number) | self._cut(number)]
            todo = {near for number in changed for near in self.strands.around[number]}

    def _join(self, number: int) -> bool:
        """Join two labels of the strand, or one of it and one of a strand of the same families."""
        strand = self.strands.strands[number]
        siblings = [other for other, each in enumerate(self.strands.strands) if each.families == strand.families]
        changed = False
        while True:
            mine = self.partition.labels([number])
            others = self.partition.labels(siblings)
            best, chosen = LEAST_MS, None
            for one in mine:
                for other in others:
                    if one == other or (other in mine and other < one):
                        continue
                    around = [*self.partition.members[one], *self.partition.members[other]]
                    gain = self.partition.gain(
                        list(self.partition.members[other]), one, around, self.partition.total(around)
                    )
                    if gain > best:
                        best, chosen = gain, (one, other, around)
            if chosen is None:
                return changed
            one, other, around = chosen
            self.partition.settle(list(self.partition.members[other]), one, around)
            changed = True

    def _cut(self, number: int) -> bool:
        """Cut labels of the strand in two, and these again, as long as that saves time."""
        changed = False
        todo = self.partition.labels([number])
        while todo:
            label = todo.pop()
            around = sorted(self.partition.members[label])
            gain, part = self._best_part(around, self.partition.total(around))
            if gain > LEAST_MS:
                self.partition.settle(part, self.partition.next_label, around)
                todo += [label, self.partition.next_label]
                self.partition.next_label += 1
                changed = True
        return changed

    def _best_part(self, atoms: list[int], before: float) -> tuple[float, list[int]]:
        """The gain of the part that gains most as a tensor of its own, and the part: what some layer does not read.

        The best one is tried rounded up and down to what kernels like, too.
        """

        def gain(part: list[int]) -> float:
            return self.partition.gain(part, self.partition.next_label, atoms, before)

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
