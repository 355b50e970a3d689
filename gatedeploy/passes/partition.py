"""What a partition of channels into tensors is predicted to cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from gatedeploy.graph.prices import Prices, Source
from gatedeploy.graph.sums import Kind
from gatedeploy.passes.bits import mask_of, most_overlaps, runs
from gatedeploy.passes.strands import Added, Strands

Tensor = tuple[int, int]
"""Its family, and the label of its channels. One that no sum makes: -1 - its number, and how many channels it has."""


class Partition:
    """Labels for the channels of ropes: those of one label lie in one tensor wherever a sum makes them.

    At first each strand has a label of its own.

    Attributes:
        holds: the channels of each label.
        rope: of each label.
        labels: those of each rope; one that has no channels may be among them.
        remembered: prices that were asked for and are still so.
    """

    def __init__(self, strands: Strands, prices: Prices) -> None:
        self.strands = strands
        self.prices = prices
        self.holds: list[int] = []
        self.rope: list[int] = []
        self.labels: list[list[int]] = [[] for _ in strands.ropes]
        for number, rope in enumerate(strands.ropes):
            for strand in rope.strands:
                self.holds[self.unused(number)] = strand
        self._made: dict[tuple[int, int], int] = defaultdict(int)  # by family and rope, what its sums make
        for key, makers in strands.makers.items():
            for maker in makers:
                self._made[key] |= strands.made[maker]
        self._rows = [[self._rows_by_label(each) for each in added] for added in strands.added]
        self._added_of: list[list[tuple[Added, dict[int, int]]]] = [[] for _ in strands.ropes]
        for added, rows in zip(strands.added, self._rows, strict=True):
            for what, by_label in zip(added, rows, strict=True):
                if what.family >= 0:
                    self._added_of[what.rope].append((what, by_label))
        self.remembered: dict[Tensor, float] = {}

    def used(self, rope: int) -> list[int]:
        """The labels of a rope that have channels."""
        return [label for label in self.labels[rope] if self.holds[label]]

    def unused(self, rope: int) -> int:
        """A label that no channel has."""
        for label in self.labels[rope]:
            if not self.holds[label]:
                return label
        self.labels[rope].append(len(self.holds))
        self.holds.append(0)
        self.rope.append(rope)
        return self.labels[rope][-1]

    def tensors(self, label: int) -> Iterator[Tensor]:
        """Those that have channels of this label."""
        for family in self.strands.ropes[self.rope[label]].families:
            if self._held((family, label)):
                yield family, label

    def price(self, tensor: Tensor) -> float:
        """Milliseconds that computing it takes."""
        rows = self._count(tensor)
        makers = self._makers(tensor)
        outputs = [self.strands.sums[maker].output for maker, _ in makers]
        positions, last = max(output.entries for output in outputs), outputs[0].last
        prices = self.prices.where(last)
        total = 0.0
        layers = self._read(makers)
        for (kind, entries), sources in layers.items():
            total += prices.reading(kind.taps, rows, kind.positions(positions, entries), sources, entries).ms
        added = self._added(makers)
        selected: list[int] = []
        turns: list[int] = []
        for source, (parts, whole) in added.items():
            count = sum(part.bit_count() for part in parts)
            held = self._count(source)
            if not (whole and held == rows == self.prices.aligned(count) and most_overlaps(parts) == 1):
                selected.append(held)
                turns += parts
            elif not layers and len(added) > 1:
                total += self.prices.add_ms * rows * positions
        if selected:
            shape = (rows, positions, selected)
            gathered = prices.gathered(*shape, most_overlaps(turns))
            total += min(prices.selected(*shape), gathered)
        return total

    def total(self, labels: list[int]) -> float:
        """What the tensors cost that have channels of these labels of one rope, or read them."""
        total = 0.0
        for tensor in self._affected(labels):
            if tensor not in self.remembered:
                self.remembered[tensor] = self.price(tensor)
            total += self.remembered[tensor]
        return total

    def gain(self, moved: int, old: int, new: int, before: float) -> float:
        """What it would save to give these channels of the label `old` another.

        Args:
            moved: the channels.
            old: their label.
            new: the other; it may have no channels so far.
            before: the `total` of both as it is.
        """
        self._move(moved, old, new)
        after = sum(map(self.price, self._affected([old, new])))
        self._move(moved, new, old)
        return before - after

    def settle(self, moved: int, old: int, new: int) -> None:
        """Give these channels of the label `old` another for good."""
        stale = self._affected([old, new])
        self._move(moved, old, new)
        for tensor in stale | self._affected([old, new]):
            self.remembered.pop(tensor, None)

    def _move(self, moved: int, old: int, new: int) -> None:
        self.holds[old] ^= moved
        self.holds[new] ^= moved
        for each, rows in self._added_of[self.rope[old]]:
            if each.of & moved:
                image = each.image(moved)
                rows[old] = rows.get(old, 0) ^ image
                rows[new] = rows.get(new, 0) ^ image

    def _affected(self, labels: list[int]) -> set[Tensor]:
        """The tensors that have channels of these labels of one rope, and those that read them."""
        found = {tensor for label in labels for tensor in self.tensors(label)}
        rope, moved = self.rope[labels[0]], 0
        for label in labels:
            moved |= self.holds[label]
        for reader, read in self.strands.readers[rope].items():
            if read & moved:
                made = self.strands.made[reader]
                family = self.strands.family[reader]
                found |= {
                    (family, label) for label in self.labels[self.strands.rope[reader]] if self.holds[label] & made
                }
        return found

    def _makers(self, tensor: Tensor) -> list[tuple[int, int]]:
        """The sums that make its channels, and which of these each makes."""
        family, label = tensor
        makers = self.strands.makers[family, self.rope[label]]
        return [(maker, rows) for maker in makers if (rows := self.strands.made[maker] & self.holds[label])]

    def _read(self, makers: list[tuple[int, int]]) -> dict[tuple[Kind, int], list[Source]]:
        """By layer, what these rows of sums read of each tensor."""
        needed: dict[tuple[Kind, int], dict[Tensor, int]] = defaultdict(lambda: defaultdict(int))
        fixed: dict[tuple[Kind, int], dict[int, Source]] = defaultdict(dict)
        for maker, rows in makers:
            for layer in self.strands.layers[maker]:
                if not layer.rows & rows:
                    continue
                parts = needed[layer.kind, layer.entries]
                for (family, rope), read in layer.sources.items():
                    for label in self.labels[rope]:
                        if part := read & self.holds[label]:
                            parts[family, label] |= part
                for number, held, count in layer.fixed:
                    fixed[layer.kind, layer.entries][number] = Source(held, count, 1)
        found = {layer: [self._source(*part) for part in parts.items()] for layer, parts in needed.items()}
        for key, more in fixed.items():
            found[key] += more.values()
        return found

    def _added(self, makers: list[tuple[int, int]]) -> dict[Tensor, tuple[list[int], bool]]:
        """By tensor, the rows to which a channel of it is added, once for each that is; and whether all are times 1."""
        found: dict[Tensor, tuple[list[int], bool]] = {}
        for maker, rows in makers:
            for each, by_label in zip(self.strands.added[maker], self._rows[maker], strict=True):
                for label, to in by_label.items():
                    if part := to & rows:
                        parts, whole = found.get((each.family, label), ([], True))
                        found[each.family, label] = [*parts, part], whole and not part & ~each.whole
        return found

    def _source(self, tensor: Tensor, read: int) -> Source:
        """What a layer reads that needs these channels of a tensor."""
        held = self._held(tensor)
        return Source(self.prices.aligned(held.bit_count()), read.bit_count(), runs(read, held))

    def _held(self, tensor: Tensor) -> int:
        """The channels of a tensor that sums make."""
        family, label = tensor
        return self.holds[label] & self._made[family, self.rope[label]]

    def _count(self, tensor: Tensor) -> int:
        """How many channels any tensor has."""
        family, label = tensor
        return label if family < 0 else self.prices.aligned(self._held(tensor).bit_count())

    def _rows_by_label(self, added: Added) -> dict[int, int]:
        """The rows to which channels are added, by their label."""
        if added.family < 0:
            return {added.rope: mask_of(added.rows)}
        labels = self.labels[added.rope]
        return {label: added.image(self.holds[label]) for label in labels if added.of & self.holds[label]}
