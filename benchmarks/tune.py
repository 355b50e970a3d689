"""Measure what kernels cost on this machine, in one runtime: the table that layouts are chosen by.

Every price is a difference: a network in which the kernel runs many times, less one in which it does not, divided by
how often; what is measured is what the kernel adds to a network that is there anyway. Everything runs on one thread,
batch 1, in turns.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial, reduce
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from gatedeploy.benchmarks.environment import processor
from gatedeploy.benchmarks.kernels import (
    PART,
    TIMES,
    WHOLE,
    Net,
    Tokens,
    added,
    gathered,
    gathered_in_rows,
    joined,
    sliced,
    taken,
    turned,
)
from gatedeploy.benchmarks.runners import ONE_THREAD
from gatedeploy.benchmarks.timing import Plan, measure
from gatedeploy.graph.prices import Prices
from gatedeploy.runners.base import Runner

PLAN = Plan(seconds=0, min_rounds=7, max_rounds=7, block_ms=4, warm_up_ms=4)
SWEEPS = 3
TAPS = (1, 3)
ROWS = (8, 16, 24, 32, 40, 48, 56, 64)
COLUMNS = (8, 16, 64, 256)
SIDES = (4, 8, 16, 32, 64)
CROWD = 600
"""Kernels of a network whose weights do not fit into caches."""

LEAST_MS = 1e-5
"""What clocks cannot tell from nothing."""

Rates = dict[tuple[int, int, int, int], float]
K = TypeVar("K")


def tune(runtime: str, progress: Callable[[str], None] = lambda _: None) -> Prices:
    """The prices of `runtime`, one of `ONE_THREAD`, on this machine; takes some three minutes.

    Everything is measured `SWEEPS` times, half a minute apart, and the median is taken: other programs slow a machine
    down for some seconds, and a difference of two measurements can so become too large or too small.
    """
    bench = _Bench(ONE_THREAD[runtime])
    sweeps = []
    for number in range(1, SWEEPS + 1):
        progress(f"everything, {number} of {SWEEPS} times")
        sweeps.append(_sweep(bench, progress))
    single: dict[str, Any] = _medians([sweep.single for sweep in sweeps])
    vector = 16 if np.median([sweep.half for sweep in sweeps]) > 7 / 8 else 8
    return Prices(
        runtime,
        processor(),
        vector,
        _medians([sweep.rates for sweep in sweeps]),
        **single,
        last_rates=_medians([sweep.last_rates for sweep in sweeps]),
        last_by_rows=bool(np.median([sweep.in_rows for sweep in sweeps]) < 1),
    )


def _medians(sweeps: Sequence[Mapping[K, float]]) -> dict[K, float]:
    return {key: float(np.median([sweep[key] for sweep in sweeps])) for key in sweeps[0]}


class _Sweep(NamedTuple):
    """Everything measured once: the fields of `Prices` by name."""

    rates: Rates
    last_rates: Rates
    single: dict[str, float]
    half: float
    """What 24 rows take over what 32 do: as much where vectors have 16 channels, three quarters where they have 8."""

    in_rows: float
    """What gathering channels that lie last takes in rows over what it takes number by number."""


def _sweep(bench: _Bench, progress: Callable[[str], None]) -> _Sweep:
    progress("launches")
    repeated = bench.layers(1, 8, 8, 4)
    rates: Rates = {}
    for taps, side in product(TAPS, SIDES):
        progress(f"{taps}×{taps} convolutions at {side}×{side} positions")
        rates |= bench.rates(Net, taps, side, repeated)
    last_rates: Rates = {}
    for side in SIDES:
        progress(f"layers of {side**2} tokens")
        last_rates |= bench.rates(Tokens, 1, side, repeated)
    progress("weights from memory, copies")
    weights = 9 * 512 * 512
    in_cache = weights * 4**2 / rates[9, ROWS[-1], COLUMNS[-1], 4**2]
    weight = max(0.0, (bench.layers(3, 512, 512, 4, count=12) - in_cache - repeated) / weights)
    columns = COLUMNS[len(COLUMNS) // 2]
    crowd = [(9, rows, columns, 4**2) for rows in ROWS]
    alone = np.mean([math.prod(shape) / rates[shape] + math.prod(shape[:3]) * weight for shape in crowd])
    launch = max(repeated, bench.crowd(columns) - float(alone))
    single = {"launch_ms": launch, "weight_ms": weight}
    _, single["add_ms"] = bench.slope(added, launch, 32)
    _, single["join_ms"] = bench.slope(joined, launch, 32)
    single["cut_launch_ms"], single["cut_ms"] = bench.slope(partial(taken, Net, sliced), launch, WHOLE + PART)
    for name, build in (("gather", partial(taken, Net, gathered)), ("turn", partial(turned, Net, gathered))):
        single[f"{name}_launch_ms"], single[f"{name}_ms"] = bench.slope(build, launch, WHOLE + PART)
    last, in_rows = _last(bench, launch)
    half = bench.layers(3, 24, columns, 16) / bench.layers(3, 32, columns, 16)
    return _Sweep(rates, last_rates, single | last, half, in_rows)


def _last(bench: _Bench, launch: float) -> tuple[dict[str, float], float]:
    """What cutting channels that lie last costs, gathering them in the better of two ways, and the ways' ratio."""
    cut_launch, cut = bench.slope(partial(taken, Tokens, sliced), launch, PART)
    ways = [
        [bench.slope(partial(build, Tokens, take), launch, WHOLE + PART) for build in (taken, turned)]
        for take in (gathered, gathered_in_rows)
    ]
    singly, in_rows = (each for (_, each), _ in ways)
    (gather_launch, gather), (turn_launch, turn) = ways[in_rows < singly]
    named = {
        "cut_launch_ms": cut_launch,
        "cut_ms": cut,
        "gather_launch_ms": gather_launch,
        "gather_ms": gather,
        "turn_launch_ms": turn_launch,
        "turn_ms": turn,
    }
    return {f"last_{name}": ms for name, ms in named.items()}, in_rows / max(singly, LEAST_MS**2)


class _Bench:
    def __init__(self, runner: Callable[[Path], Runner]) -> None:
        self.runner = runner

    def rates(self, kind: type[Net], taps: int, side: int, launch: float) -> Rates:
        """Multiply-adds per ms of layers at `side` · `side` positions, a launch taken off."""
        found = {}
        for rows, columns in product(ROWS, COLUMNS):
            took = self.layers(taps, rows, columns, side, kind=kind)
            work = taps**2 * rows * columns * side**2
            found[taps**2, rows, columns, side**2] = work / max(took - launch, took / 2)
        return found

    def layers(self, taps: int, rows: int, columns: int, side: int, count: int = 0, kind: type[Net] = Net) -> float:
        """Milliseconds of one of several layers that are added up, each of a tensor of its own.

        As in a network, what a kernel reads was written some time ago: so each tensor is read by others in between.
        """
        size = 4 * taps**2 * rows * columns
        count = count or max(3, min(9, 20_000_000 // size))

        def build(times: int) -> tuple[Net, str]:
            net = kind(8, side)
            tensors = [net.node("Relu", net.layer("x", 8, columns)) for _ in range(count)]
            pooled = [net.mean(tensor) for tensor in tensors]
            total = net.layer(reduce(partial(net.node, "Add"), pooled), columns, rows)
            for data in tensors[:times]:
                total = net.node("Add", net.layer(data, columns, rows, taps), total)
            return net, net.node("Relu", total)

        return self._each(build, count)

    def crowd(self, columns: int) -> float:
        """Milliseconds of a 3×3 convolution among many that all differ, of as many rows as `ROWS` in turn.

        In a network no kernel runs twice in a row: neither its weights nor its own code lie in a cache.
        """

        def build(times: int) -> tuple[Net, str]:
            net = Net(8, 4)
            data = net.node("Relu", net.layer("x", 8, columns))
            totals = {rows: net.layer(data, columns, rows) for rows in ROWS}
            for rows in islice(cycle(ROWS), times):
                totals[rows] = net.node("Add", net.layer(data, columns, rows, 3), totals[rows])
            return net, net.node("Concat", *(net.node("Relu", total) for total in totals.values()), axis=1)

        return self._each(build, CROWD)

    def slope(self, build: Callable[[int, int], tuple[Net, str]], launch: float, channels: int) -> tuple[float, float]:
        """Milliseconds that an operation on so many channels takes besides its numbers, and for each number."""

        def at(side: int) -> float:
            return self._each(lambda times: build(times, side), TIMES)

        small, large = at(8), at(32)
        each = max(0.0, (large - small) / (channels * (32**2 - 8**2)))
        return max(launch, small - each * channels * 8**2), each

    def _each(self, build: Callable[[int], tuple[Net, str]], count: int) -> float:
        net, output = build(1)
        image = np.random.default_rng(0).standard_normal(net.shape, dtype=np.float32)
        with _opened(self.runner, net, output) as one, _opened(self.runner, *build(count)) as several:
            found = measure({"one": [one], "several": [several]}, image, "one", PLAN)
        # The fastest round of each: whatever else the machine does only makes a round slower.
        difference = found.of("several").rounds_ms.min() - found.of("one").rounds_ms.min()
        return max(LEAST_MS, float(difference) / (count - 1))


@contextmanager
def _opened(runner: Callable[[Path], Runner], net: Net, output: str) -> Iterator[Runner]:
    with tempfile.TemporaryDirectory() as folder:
        net.write(output, Path(folder) / "net.onnx")
        with runner(Path(folder) / "net.onnx") as opened:
            yield opened
