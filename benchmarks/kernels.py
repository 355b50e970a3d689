"""Networks of ONNX operators in which one kernel runs many times: what `tune` measures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
TIMES = 9
"""How often a network repeats what is measured."""

WHOLE, PART = 64, 32
"""Channels of a tensor, and how many of them are taken out of it."""


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

    def mean(self, data: str) -> str:
        """The mean of each channel."""
        return self.node("GlobalAveragePool", data)

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

    def mean(self, data: str) -> str:
        """The mean of each channel."""
        return self.node("ReduceMean", data, self.constant(np.array([1])))

    def per_channel(self, count: int) -> str:
        """Append a number for each channel."""
        return self.constant(self._random.standard_normal(count, dtype=np.float32))


def added(times: int, side: int) -> tuple[Net, str]:
    """Additions that no convolution can do the work of."""
    net = Net(32, side)
    first = total = net.node("Relu", net.layer("x", 32, 32))
    for _ in range(times):
        total = net.node("Relu", net.node("Add", total, first))
    return net, total


def joined(times: int, side: int) -> tuple[Net, str]:
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


def taken(kind: type[Net], take: Take, times: int, side: int) -> tuple[Net, str]:
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


def sliced(net: Net, tensor: str, channels: np.ndarray) -> str:
    """As many channels as there are `channels`, by a slice."""
    bounds = (0, len(channels), net.axis)
    return net.node("Slice", tensor, *(net.constant(np.array([bound])) for bound in bounds))


def gathered(net: Net, tensor: str, channels: np.ndarray) -> str:
    """These channels, by number."""
    return net.node("Gather", tensor, net.constant(channels), axis=net.axis)


def gathered_in_rows(net: Net, tensor: str, channels: np.ndarray) -> str:
    """These channels of tokens, which lie in rows meanwhile."""
    rows = net.node("Transpose", tensor, perm=[0, 2, 1])
    return net.node("Transpose", net.node("Gather", rows, net.constant(channels), axis=1), perm=[0, 2, 1])


def turned(kind: type[Net], take: Take, times: int, side: int) -> tuple[Net, str]:
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
