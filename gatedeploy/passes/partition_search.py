"""The search for a partition of what sums make into tensors."""

from __future__ import annotations

from itertools import combinations

from gatedeploy.graph.prices import Prices
from gatedeploy.passes.bits import lowest, mask_of
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
        """Sweep over the ropes until nothing changes, a few times at most; later over those around a change alone."""
        todo = set(range(len(self.strands.ropes)))
        for _ in range(SWEEPS):
            changed = [number for number in sorted(todo) if self._join(number) | self._cut(number)]
            todo = {near for number in changed for near in self.strands.around[number]}

    def _join(self, rope: int) -> bool:
        """Join labels of a rope, the two that gain most first, as long as that saves time.

        What a pair gains is computed again only when one of it has changed or it is next.
        """
        gains = {pair: self._joined(*pair) for pair in combinations(self.partition.used(rope), 2)}
        changed = False
        while gains:
            pair = max(gains, key=gains.__getitem__)
            before, gains[pair] = gains[pair], self._joined(*pair)
            if gains[pair] < before and max(gains.values()) > gains[pair]:
                continue
            if gains[pair] <= LEAST_MS:
                return changed
            one, other = pair
            self.partition.settle(self.partition.holds[other], other, one)
            gains = {known: gain for known, gain in gains.items() if other not in known}
            gains |= {known: self._joined(*known) for known in gains if one in known}
            changed = True
        return changed

    def _joined(self, one: int, other: int) -> float:
        """The gain of joining two labels."""
        moved = self.partition.holds[other]
        return self.partition.gain(moved, other, one, self.partition.total([one, other]))

    def _cut(self, rope: int) -> bool:
        """Cut labels of a rope in two, and these again, as long as that saves time."""
        changed = False
        todo = self.partition.used(rope)
        while todo:
            label = todo.pop()
            gain, part = self._best_part(label)
            if gain > LEAST_MS:
                new = self.partition.unused(rope)
                self.partition.settle(part, label, new)
                todo += [label, new]
                changed = True
        return changed

    def _best_part(self, label: int) -> tuple[float, int]:
        """The gain of the part that gains most as a tensor of its own, and the part.

        Tried are what some layer does not read, and what some layer makes; the best one rounded up and down to what
        kernels like, too.
        """
        new, before = self.partition.unused(self.partition.rope[label]), self.partition.total([label])
        holds = self.partition.holds[label]

        def best(parts: set[int]) -> tuple[float, int]:
            gains = [(self.partition.gain(part, label, new, before), part) for part in sorted(parts)]
            return max(gains, default=(0.0, 0))

        gain, part = best(self._unread(label) | self._made(label) | self._added_to(label))
        return max((gain, part), best(self._rounded(part, holds))) if part else (gain, part)

    def _unread(self, label: int) -> set[int]:
        """For each layer that reads some of its channels: the others."""
        rope, holds = self.partition.rope[label], self.partition.holds[label]
        found: set[int] = set()
        for reader, read in self.strands.readers[rope].items():
            if read & holds:
                for layer in self.strands.layers[reader]:
                    reads = 0
                    for (_, source), part in layer.sources.items():
                        reads |= part if source == rope else 0
                    found.add(holds & ~reads)
        return found - {0, holds}

    def _made(self, label: int) -> set[int]:
        """For each layer that makes some of its channels: these."""
        rope, holds = self.partition.rope[label], self.partition.holds[label]
        found: set[int] = set()
        for family in self.strands.ropes[rope].families:
            for maker in self.strands.makers[family, rope]:
                found |= {holds & layer.rows for layer in self.strands.layers[maker]}
        return found - {0, holds}

    def _added_to(self, label: int) -> set[int]:
        """For each tensor whose channels are added to some of its channels: these."""
        rope, holds = self.partition.rope[label], self.partition.holds[label]
        found: set[int] = set()
        for family in self.strands.ropes[rope].families:
            for maker in self.strands.makers[family, rope]:
                found |= {holds & mask_of(each.rows) for each in self.strands.added[maker]}
        return found - {0, holds}

    def _rounded(self, part: int, holds: int) -> set[int]:
        """Parts of about as many channels that kernels like."""
        exact, steps = part.bit_count(), [count * self.prices.vector for count in VECTORS]
        found = set()
        for step in steps:
            found.add(lowest(part, exact // step * step))
            found.add(part | lowest(holds & ~part, -exact % step))
        return found - {0, part, holds}
