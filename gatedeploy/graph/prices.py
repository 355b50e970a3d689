"""What kernels cost on a target, from a table of measurements."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property


@dataclass(frozen=True)
class Reading:
    """How a layer reads channels of several tensors.

    Args:
        each: what each kernel costs: one for each tensor, or one that reads them joined.
        cut: for each tensor, whether the channels that are needed are cut out first; else it is read whole.
    """

    each: tuple[float, ...]
    cut: tuple[bool, ...]

    @property
    def ms(self) -> float:
        """What all of them cost."""
        return sum(self.each)

    @property
    def joined(self) -> bool:
        """The tensors are joined into one."""
        return len(self.each) < len(self.cut)


VECTOR = 8
"""Kernels compute and store channels in vectors of this many, or twice as many."""


def aligned(count: int) -> int:
    """The next whole number of vectors; less than one stays what it is."""
    return count if count < VECTOR else -(-count // VECTOR) * VECTOR


@dataclass(frozen=True, eq=False)
class Prices:
    """Milliseconds by kernel, one picture, one thread.

    Args:
        target: the runtime.
        machine: where they were measured.
        rates: multiply-adds per ms of a layer by (taps, rows, columns, positions): taps of the kernel (1 or more),
            channels that it makes, channels that it reads, positions of its output.
        launch_ms: what a kernel costs besides its work.
        weight_ms: of fetching one weight from memory.
        add_ms: of adding two tensors, per number.
        copy_ms: of joining whole tensors, per number.
        cut_ms: of cutting some channels out of a tensor, or gathering them, per number.
        cut_launch_ms: what that costs besides, per tensor that is cut.
    """

    target: str
    machine: str
    rates: Mapping[tuple[int, int, int, int], float]
    launch_ms: float
    weight_ms: float
    add_ms: float
    copy_ms: float
    cut_ms: float
    cut_launch_ms: float
    _known: dict[tuple[int, int, int, int], float] = field(default_factory=dict, init=False)

    def layer(self, taps: int, rows: int, columns: int, positions: int) -> float:
        """A convolution or linear layer of `taps` · `rows` · `columns` weights at `positions`."""
        key = (taps, rows, columns, positions)
        if key not in self._known:
            grid = self._grids[self._nearest_taps(taps)]
            largest = grid.rows[-1]
            whole, rest = divmod(rows, largest)
            work = taps * columns * positions
            total = whole * largest * work / grid.rate(largest, columns, positions)
            if rest:
                step = grid.rows[bisect_left(grid.rows, rest)]
                total += step * work / grid.rate(step, columns, positions)
            self._known[key] = total + taps * rows * columns * self.weight_ms
        return self._known[key]

    def reading(
        self, taps: int, rows: int, positions: int, sources: Sequence[tuple[int, int]], entries: int
    ) -> Reading:
        """The cheapest way for a layer to read channels of several tensors.

        Args:
            taps: of the kernel.
            rows: how many channels are made.
            positions: of the output.
            sources: per tensor that is read, how many channels it has and how many of them are needed.
            entries: how many numbers one of these channels is.
        """
        each, apart, cut = [], [], []
        cutting_ms = 0.0
        count = 0
        for held, part in sources:
            cutting = self.cut_ms * part * entries + self.cut_launch_ms
            whole = self.layer(taps, rows, held, positions)
            fewer = self.layer(taps, rows, aligned(part), positions) + cutting
            apart.append(fewer < whole)
            each.append(min(fewer, whole) + self.launch_ms)
            cut.append(fewer < whole + self.copy_ms * (held - part) * entries)
            cutting_ms += cut[-1] * cutting
            count += part if cut[-1] else held
        joined_ms = self.layer(taps, rows, aligned(count), positions) + self.launch_ms + cutting_ms
        joined_ms += self.copy_ms * count * entries + self.launch_ms
        if len(sources) > 1 and joined_ms < sum(each):
            return Reading((joined_ms,), tuple(cut))
        return Reading(tuple(each), tuple(apart))

    def selected(self, rows: int, positions: int, sources: Sequence[int]) -> float:
        """Channels added to others by a 1×1 layer per tensor that holds some; `sources`: how many channels each has."""
        return sum(self.layer(1, rows, held, positions) + self.launch_ms for held in sources)

    def gathered(self, rows: int, positions: int, sources: Sequence[int], turns: int) -> float:
        """The same by gathering a channel for every row, multiplying and adding it, in as many turns as it takes."""
        joined = self.copy_ms * sum(sources) * positions + self.launch_ms if len(sources) > 1 else 0.0
        each = (self.cut_ms + 2 * self.add_ms) * rows * positions + self.cut_launch_ms + 2 * self.launch_ms
        return joined + turns * each

    def _nearest_taps(self, taps: int) -> int:
        return min(self._grids, key=lambda known: abs(math.log(known / taps)))

    @cached_property
    def _grids(self) -> dict[int, _Grid]:
        by_taps: dict[int, dict[tuple[int, int, int], float]] = {}
        for (taps, *rest), rate in self.rates.items():
            by_taps.setdefault(taps, {})[tuple(rest)] = rate  # type: ignore[index]
        return {taps: _Grid(rates) for taps, rates in by_taps.items()}


class _Grid:
    """Rates by (rows, columns, positions), between the points by logarithms."""

    def __init__(self, rates: dict[tuple[int, int, int], float]) -> None:
        self.rates = rates
        self.rows, self.columns, self.positions = (sorted(set(axis)) for axis in zip(*rates, strict=True))

    def rate(self, rows: int, columns: int, positions: int) -> float:
        total = 0.0
        for column, share in _between(self.columns, columns):
            for position, part in _between(self.positions, positions):
                total += share * part * math.log(self.rates[rows, column, position])
        return math.exp(total)


def _between(points: list[int], value: int) -> list[tuple[int, float]]:
    """The points around `value` with their shares; the nearest alone beyond the ends."""
    place = bisect_left(points, value)
    if place == 0 or place == len(points):
        return [(points[min(place, len(points) - 1)], 1.0)]
    low, high = points[place - 1], points[place]
    share = math.log(value / low) / math.log(high / low)
    return [(low, 1 - share), (high, share)]
