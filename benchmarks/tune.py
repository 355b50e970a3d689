"""Measure what kernels cost on this machine, in one runtime: the table that layouts are chosen by.

Every price is a difference: a network in which the kernel runs many times, less one in which it does not, divided by
how often; what is measured is what the kernel adds to a network that is there anyway. Everything runs on one thread,
batch 1, in turns.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, reduce
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gatedeploy.benchmarks.environment import processor
from gatedeploy.benchmarks.latency import Plan, measure
from gatedeploy.benchmarks.runners import ONE_THREAD
from gatedeploy.graph.prices import Prices
from gatedeploy.runners.base import Runner

PLAN = Plan(seconds=0, min_rounds=7, max_rounds=7, block_ms=4, warm_up_ms=4)
SWEEPS = 3
TAPS = (1, 3)
ROWS = (8, 16, 24, 32, 40, 48, 56, 64)
COLUMNS = (8, 16, 64, 256)
SIDES = (4, 8, 16, 32, 64)
OPSET = 20
TIMES = 9
"""How often a network repeats what is measured."""

CROWD = 600
"""Kernels of a network whose weights do not fit into caches."""

WHOLE, PART = 64, 32
"""Channels of a tensor, and how many of them are taken out of it."""

LEAST_MS = 1e-5
"""What clocks cannot tell from nothing."""


class Net:
    """A network of ONNX operators on one picture, its weights random."""

    axis = 1
    """The dimension of channels."""

    def __init__(self, channels: int, side: int) -> None:
        self.shape: tuple[int, ...] = (1, channels, side, side)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(0)

    def node(self, operator: str, *inputs: str, **attributes: object) -> str:
        """Append an operator; returns its result."""
        name = f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def constant(self, array: np.ndarray) -> str:
        """Append a weight."""
        name = f"w{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(array, name))
        return name

    def layer(self, data: str, columns: int, rows: int, taps: int = 1) -> str:
        """A convolution that keeps the picture's size."""
        weight = self._random.standard_normal((rows, columns, taps, taps), dtype=np.float32) / (taps * columns) ** 0.5
        pads = [taps // 2] * 4
        return self.node("Conv", data, self.constant(weight), kernel_shape=[taps, taps], pads=pads)

    def per_channel(self, count: int) -> str:
        """Append a number for each channel."""
        return self.constant(self._random.standard_normal((count, 1, 1), dtype=np.float32))

    def write(self, output: str, file: Path) -> None:
        """Write the network that computes `output` from the picture `x`."""
        values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in self._ports(output)]
        graph = helper.make_graph(self._nodes, "net", values[:1], values[1:], self._weights)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10), file)

    def _ports(self, output: str) -> Iterator[tuple[str, tuple[int, ...] | None]]:
        yield "x", self.shape
        yield output, None


class Tokens(Net):
    """The same on tokens, whose channels lie last."""

    axis = 2

    def __init__(self, channels: int, side: int) -> None:
        super().__init__(channels, side)
        self.shape = (1, side**2, channels)

    def layer(self, data: str, columns: int, rows: int, taps: int = 1) -> str:
        """A linear layer."""
        weight = self._random.standard_normal((columns, rows), dtype=np.float32) / columns**0.5
        return self.node("MatMul", data, self.constant(weight))

    def per_channel(self, count: int) -> str:
        """Append a number for each channel."""
        return self.constant(self._random.standard_normal(count, dtype=np.float32))


def tune(runtime: str, progress: Callable[[str], None] = lambda _: None) -> Prices:
    """The prices of `runtime`, one of `ONE_THREAD`, on this machine; takes two or three minutes.

    Everything is measured `SWEEPS` times, half a minute apart, and the median is taken: other programs slow a machine
    down for some seconds, and a difference of two measurements can so become too large or too small.
    """
    bench = _Bench(ONE_THREAD[runtime])
    sweeps = []
    for number in range(1, SWEEPS + 1):
        progress(f"everything, {number} of {SWEEPS} times")
        sweeps.append(_sweep(bench, progress))
    rates = {shape: float(np.median([sweep.rates[shape] for sweep in sweeps])) for shape in sweeps[0].rates}
    single = {name: float(np.median([sweep.single[name] for sweep in sweeps])) for name in sweeps[0].single}
    vector = 16 if np.median([sweep.half for sweep in sweeps]) > 7 / 8 else 8
    return Prices(
        runtime,
        processor(),
        vector,
        rates,
        **single,
        last_by_rows=bool(np.median([sweep.in_rows for sweep in sweeps]) < 1),
    )


class _Sweep(NamedTuple):
    """Everything measured once: the fields of `Prices` by name."""

    rates: dict[tuple[int, int, int, int], float]
    single: dict[str, float]
    half: float
    """What 24 rows take over what 32 do: as much where vectors have 16 channels, three quarters where they have 8."""

    in_rows: float
    """What gathering channels that lie last takes in rows over what it takes number by number."""


def _sweep(bench: _Bench, progress: Callable[[str], None]) -> _Sweep:
    progress("launches")
    repeated = bench.layers(1, 8, 8, 4)
    rates = {}
    for taps in TAPS:
        for side in SIDES:
            progress(f"{taps}×{taps} convolutions at {side}×{side} positions")
            for columns in COLUMNS:
                for rows in ROWS:
                    work = taps**2 * rows * columns * side**2
                    took = bench.layers(taps, rows, columns, side)
                    rates[taps**2, rows, columns, side**2] = work / max(took - repeated, took / 2)
    progress("weights from memory, copies")
    weights = 9 * 512 * 512
    in_cache = weights * 4**2 / rates[9, ROWS[-1], COLUMNS[-1], 4**2]
    weight = max(0.0, (bench.layers(3, 512, 512, 4, count=12) - in_cache - repeated) / weights)
    columns = COLUMNS[len(COLUMNS) // 2]
    crowd = [(9, rows, columns, 4**2) for rows in ROWS]
    alone = np.mean([math.prod(shape) / rates[shape] + math.prod(shape[:3]) * weight for shape in crowd])
    launch = max(repeated, bench.crowd(columns) - float(alone))
    single = {"launch_ms": launch, "weight_ms": weight}
    _, single["add_ms"] = bench.slope(_added, launch, 32)
    _, single["join_ms"] = bench.slope(_joined, launch, 32)
    single["cut_launch_ms"], single["cut_ms"] = bench.slope(partial(_taken, Net, _sliced), launch, WHOLE + PART)
    for name, build in (("gather", partial(_taken, Net, _gathered)), ("turn", partial(_turned, Net, _gathered))):
        single[f"{name}_launch_ms"], single[f"{name}_ms"] = bench.slope(build, launch, WHOLE + PART)
    last, in_rows = _last(bench, launch)
    half = bench.layers(3, 24, columns, 16) / bench.layers(3, 32, columns, 16)
    return _Sweep(rates, single | last, half, in_rows)


def _last(bench: _Bench, launch: float) -> tuple[dict[str, float], float]:
    """What gathering channels that lie last costs in the better of two ways, and the one's time over the other's."""
    ways = [
        [bench.slope(partial(build, Tokens, take), launch, WHOLE + PART) for build in (_taken, _turned)]
        for take in (_gathered, _gathered_in_rows)
    ]
    singly, in_rows = (each for (_, each), _ in ways)
    (gather_launch, gather), (turn_launch, turn) = ways[in_rows < singly]
    named = {"gather_launch_ms": gather_launch, "gather_ms": gather, "turn_launch_ms": turn_launch, "turn_ms": turn}
    return {f"last_{name}": ms for name, ms in named.items()}, in_rows / max(singly, LEAST_MS**2)


class _Bench:
    def __init__(self, runner: Callable[[Path], Runner]) -> None:
        self.runner = runner

    def layers(self, taps: int, rows: int, columns: int, side: int, count: int = 0) -> float:
        """Milliseconds of one of several convolutions that are added up, each of a tensor of its own.

        As in a network, what a kernel reads was written some time ago: so each tensor is read by others in between.
        """
        size = 4 * taps**2 * rows * columns
        count = count or max(3, min(9, 20_000_000 // size))

        def build(times: int) -> tuple[Net, str]:
            net = Net(8, side)
            tensors = [net.node("Relu", net.layer("x", 8, columns)) for _ in range(count)]
            pooled = [net.node("GlobalAveragePool", tensor) for tensor in tensors]
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


def _added(times: int, side: int) -> tuple[Net, str]:
    """Additions that no convolution can do the work of."""
    net = Net(32, side)
    first = total = net.node("Relu", net.layer("x", 32, 32))
    for _ in range(times):
        total = net.node("Relu", net.node("Add", total, first))
    return net, total


def _joined(times: int, side: int) -> tuple[Net, str]:
    """Layers over two tensors of 16 channels, joined for `times - 1` of them."""
    net = Net(32, side)
    tensors = [net.node("Relu", net.layer("x", 32, 16)) for _ in range(TIMES + 1)]
    total = net.layer(tensors[0], 16, 8)
    for number, pair in enumerate(pairwise(tensors)):
        if number < times - 1:
            total = net.node("Add", net.layer(net.node("Concat", *pair, axis=1), 32, 8), total)
        else:
            for data in pair:
                total = net.node("Add", net.layer(data, 16, 8), total)
    return net, net.node("Relu", total)


Take = Callable[[Net, str, np.ndarray], str]
"""Takes these channels out of a tensor."""


def _taken(kind: type[Net], take: Take, times: int, side: int) -> tuple[Net, str]:
    """Layers over some channels, taken out of larger tensors for `times - 1` of them, which others read whole."""
    net = kind(WHOLE, side)
    tensors = [net.node("Relu", net.layer("x", WHOLE, WHOLE)) for _ in range(TIMES)]
    ready = net.node("Relu", net.layer("x", WHOLE, PART))
    total = net.layer(ready, PART, 8)
    for number, tensor in enumerate(tensors):
        data = take(net, tensor, np.arange(0, WHOLE, WHOLE // PART)) if number < times - 1 else ready
        total = net.node("Add", net.layer(data, PART, 8), total)
        total = net.node("Add", net.layer(tensor, WHOLE, 8), total)
    return net, net.node("Relu", total)


def _sliced(net: Net, tensor: str, channels: np.ndarray) -> str:
    return net.node("Slice", tensor, *(net.constant(np.array([bound])) for bound in (0, len(channels), 1)))


def _gathered(net: Net, tensor: str, channels: np.ndarray) -> str:
    return net.node("Gather", tensor, net.constant(channels), axis=net.axis)


def _gathered_in_rows(net: Net, tensor: str, channels: np.ndarray) -> str:
    rows = net.node("Transpose", tensor, perm=[0, 2, 1])
    return net.node("Transpose", net.node("Gather", rows, net.constant(channels), axis=1), perm=[0, 2, 1])


def _turned(kind: type[Net], take: Take, times: int, side: int) -> tuple[Net, str]:
    """Layers over tensors, `times - 1` of which had channels of others added, in another order and scaled."""
    net = kind(WHOLE, side)
    pairs = [[net.node("Relu", net.layer("x", WHOLE, count)) for count in (WHOLE, PART)] for _ in range(TIMES)]
    random = np.random.default_rng(0)
    total = net.layer("x", WHOLE, 8)
    for number, (tensor, data) in enumerate(pairs):
        if number < times - 1:
            row = net.node("Mul", take(net, tensor, random.permutation(WHOLE)[:PART]), net.per_channel(PART))
            data = net.node("Add", row, data)
        total = net.node("Add", net.layer(data, PART, 8), total)
        total = net.node("Add", net.layer(tensor, WHOLE, 8), total)
    return net, net.node("Relu", total)
