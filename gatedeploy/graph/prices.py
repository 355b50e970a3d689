"""What kernels cost on a target, from a table of measurements."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import compress
from typing import NamedTuple


class Source(NamedTuple):
    """A tensor that a layer reads.

    Args:
        held: how many channels it has.
        part: how many of them are needed.
        runs: in how many runs of neighbours these lie.
    """

    held: int
    part: int
    runs: int


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


@dataclass(frozen=True, eq=False)
class Prices:
    """Milliseconds by kernel, one picture, one thread.

    Args:
        target: the runtime.
        machine: where they were measured.
        vector: how many channels kernels compute and store at a time.
        rates: multiply-adds per ms of a layer by (taps, rows, columns, positions): taps of the kernel (1 or more),
            channels that it makes, channels that it reads, positions of its output.
        launch_ms: what a kernel costs besides its work.
        weight_ms: of fetching one weight from memory.
        add_ms: of adding two tensors, per number.
        join_ms: of joining tensors into one, per number.
        cut_ms: of cutting neighbouring channels out of a tensor, per number of the tensor and of what is cut.
        cut_launch_ms: what each cut costs besides.
        gather_ms: of gathering channels of a tensor by their numbers, per number of the tensor and of what is gathered.
        gather_launch_ms: what that costs besides.
        turn_ms: of gathering a channel for each row of a sum, multiplying and adding it, per number of the tensor that
            is gathered from and of the sum.
        turn_launch_ms: what that costs besides.
        last_cut_ms: of cutting neighbouring channels that lie last, as those of tokens do, per number of what is cut.
        last_cut_launch_ms, last_gather_ms, last_gather_launch_ms, last_turn_ms, last_turn_launch_ms: as above, of such
            channels.
        last_rates: rates of layers of such channels, what adding their results takes included.
        last_by_rows: such channels are gathered in rows, the tensor being transposed before and behind.
        last: these are the prices of channels that lie last, see `where`.
    """

    target: str
    machine: str
    vector: int
    rates: Mapping[tuple[int, int, int, int], float]
    launch_ms: float
    weight_ms: float
    add_ms: float
    join_ms: float
    cut_ms: float
    cut_launch_ms: float
    gather_ms: float
    gather_launch_ms: float
    turn_ms: float
    turn_launch_ms: float
    last_cut_ms: float
    last_cut_launch_ms: float
    last_gather_ms: float
    last_gather_launch_ms: float
    last_turn_ms: float
    last_turn_launch_ms: float
    last_rates: Mapping[tuple[int, int, int, int], float]
    last_by_rows: bool
    last: bool = False
    _known: dict[tuple[int, int, int, int], float] = field(default_factory=dict, init=False)

    def where(self, last: bool) -> Prices:
        """The prices where channels lie last, or do not."""
        return self._last if last else self

    @cached_property
    def _last(self) -> Prices:
        return replace(
            self,
            last=True,
            rates=self.last_rates,
            cut_ms=self.last_cut_ms,
            cut_launch_ms=self.last_cut_launch_ms,
            gather_ms=self.last_gather_ms,
            gather_launch_ms=self.last_gather_launch_ms,
            turn_ms=self.last_turn_ms,
            turn_launch_ms=self.last_turn_launch_ms,
        )

    def aligned(self, count: int) -> int:
        """The next whole number of vectors of channels; less than one stays what it is."""
        return count if count < self.vector else -(-count // self.vector) * self.vector

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

    def cutting(self, source: Source, entries: int) -> tuple[float, bool]:
        """What it costs to take the needed channels out of a tensor, and whether that is done by slices.

        One run is a slice, whatever a table says: a slice is a gather whose numbers need not be read. Where channels do
        not lie last, a tensor may have to leave a layout in blocks before anything is cut out of it.
        """
        numbers = (source.held + source.part) * entries
        sliced = source.runs * self.cut_launch_ms + self.cut_ms * (source.part * entries if self.last else numbers)
        gathered = self.gathering(source.held, source.part, entries)
        return min(sliced, gathered), source.runs == 1 or sliced <= gathered

    def gathering(self, held: int, part: int, entries: int) -> float:
        """What it costs to take `part` channels out of a tensor by their numbers."""
        return self.gather_launch_ms + self.gather_ms * (held + part) * entries

    def reading(self, taps: int, rows: int, positions: int, sources: Sequence[Source], entries: int) -> Reading:
        """The cheapest way for a layer to read channels of several tensors.

        Args:
            taps: of the kernel.
            rows: how many channels are made.
            positions: of the output.
            sources: the tensors that hold them.
            entries: how many numbers one of these channels is.
        """
        cutting = [self.cutting(source, entries)[0] for source in sources]
        whole = [self._kernel(taps, rows, source.held, positions) for source in sources]
        fewer = [
            self._kernel(taps, rows, self.aligned(source.part), positions) + ms
            for source, ms in zip(sources, cutting, strict=True)
        ]
        each = tuple(map(min, fewer, whole))
        options = [Reading(each, tuple(less < all_ for less, all_ in zip(fewer, whole, strict=True)))]
        if len(sources) > 1:
            spared = [self.join_ms * (source.held - source.part) * entries for source in sources]
            worth = tuple(less < all_ + ms for less, all_, ms in zip(fewer, whole, spared, strict=True))
            for cut in {worth, tuple(source.part < source.held for source in sources)}:
                counts = [source.part if shorter else source.held for source, shorter in zip(sources, cut, strict=True)]
                ms = self._kernel(taps, rows, self.aligned(sum(counts)), positions) + sum(compress(cutting, cut))
                ms += self.launch_ms + self.join_ms * sum(counts) * entries
                options.append(Reading((ms,), cut))
        return min(options, key=lambda reading: reading.ms)

    def selected(self, rows: int, positions: int, sources: Sequence[int]) -> float:
        """Channels added to others by a layer of one tap per tensor that holds some.

        Args:
            rows: how many channels are made.
            positions: of the output.
            sources: how many channels each tensor has.
        """
        return sum(self.layer(1, rows, held, positions) + self.launch_ms for held in sources)

    def gathered(self, rows: int, positions: int, sources: Sequence[int], turns: int) -> float:
        """The same by gathering a channel for every row, multiplying and adding it, in as many turns as it takes."""
        numbers = sum(sources) * positions
        joined = self.join_ms * numbers + self.launch_ms if len(sources) > 1 else 0.0
        return joined + turns * (self.turn_launch_ms + self.turn_ms * (sum(sources) + rows) * positions)

    def _kernel(self, taps: int, rows: int, columns: int, positions: int) -> float:
        return self.layer(taps, rows, columns, positions) + self.launch_ms

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
