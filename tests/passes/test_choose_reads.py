"""By which kernels a sum is computed, where each of them is the cheapest."""

from dataclasses import replace

import torch
from torch import Tensor

from gatedeploy.graph.choices import choices
from gatedeploy.graph.prices import Prices
from gatedeploy.passes.choose_reads import ChooseReads
from tests.graph.small import Net, calls, collapsed, conv, gate, laid_out, mix
from tests.prices import prices

FREE = replace(prices(narrowest=1, launch_ms=0), join_ms=0, cut_ms=0, gather_ms=0, turn_ms=0, add_ms=0)
"""Multiply-adds are all that costs."""


def tactics(network: Net, at: Prices) -> list[list[tuple[str, int]]]:
    """Sum by sum, as the network gives them: what each kernel does, and how many channels it reads."""
    found = choices(laid_out(network, at, ChooseReads))
    collapsed(network, at)
    return [[(kernel.tactic, kernel.channels) for kernel in tensor.kernels] for _, tensor in found]


def two_tensors() -> Net:
    """The last layer reads half of one tensor and all of another."""

    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        first, second = n.a(x).relu(), n.b(x).sigmoid()
        return {"y": n.last(n.gate(first, second)), "first": n.more(first), "second": n.others(second)}

    layers = {"a": conv(3, 16), "b": conv(3, 16), "more": conv(16, 2), "others": conv(16, 2)}
    return Net(run, **layers, gate=gate(*[1, 0] * 8), last=conv(16, 2))


def test_tensors_are_read_whole_where_copies_are_dear() -> None:  # 1
    dear = replace(FREE, join_ms=1, cut_ms=1, gather_ms=1)
    assert tactics(two_tensors(), dear)[2] == [("whole", 16), ("whole", 16)]


def test_channels_are_cut_out_where_joining_is_dear() -> None:  # 1
    assert tactics(two_tensors(), replace(FREE, join_ms=1))[2] == [("cut", 8), ("cut", 8)]


def test_channels_are_cut_and_joined_where_kernels_are_dear() -> None:  # 2
    """A join is one kernel, whatever it joins; here it spares two."""

    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        features = [n.a(x).relu(), n.a(x).sigmoid(), n.a(x).tanh()]
        return {
            "y": n.last(torch.cat([feature[:, :8] for feature in features], 1)),
            "sum": n.more(torch.cat(features, 1)),
        }

    network = Net(run, a=conv(3, 16), last=conv(24, 2), more=conv(48, 2))
    assert tactics(network, replace(FREE, launch_ms=1e-9))[1] == [("joined", 24)]


def test_channels_are_sliced_where_slices_are_cheap_else_gathered() -> None:
    """A layer reads every second channel of the picture, whose order is not free."""
    network = Net(lambda n, x: {"y": n.last(x[:, ::2]), "all": n.all(x)}, last=conv(2, 2), all=conv(3, 2))
    sliced = calls(collapsed(network, replace(FREE, gather_launch_ms=1.0)).program)
    gathered = calls(collapsed(network, replace(FREE, cut_launch_ms=1e-7)).program)
    assert (sliced.count("slice"), sliced.count("index_select")) == (2, 0)
    assert (gathered.count("slice"), gathered.count("index_select")) == (0, 1)


def added() -> Net:
    """A mix of two tasks, of whose features one or all are taken from the shared branch."""

    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        shared, own = n.shared(x).sigmoid(), n.own(x).sigmoid()
        taken = n.gate(own, shared)
        return {"first": n.head(taken), "y": n.last(n.mix(taken, shared))}

    layers = {"shared": conv(3, 8), "own": conv(3, 8), "head": conv(8, 2), "last": conv(8, 2)}
    return Net(run, **layers, gate=gate(*[1, 0] * 4), mix=mix([0.0] * 8, [1.0] * 8))


def test_whole_tensors_in_order_are_added_as_they_are() -> None:  # 3
    network = Net(lambda n, x: n.last(n.a(x).relu() + n.b(x).sigmoid()), a=conv(), b=conv(), last=conv(4, 2))
    assert tactics(network, FREE)[2] == [("added", 4), ("added", 4)]


def test_others_are_selected_where_multiply_adds_are_cheap() -> None:  # 4
    cheap = replace(FREE, turn_ms=1, rates={shape: rate * 1e6 for shape, rate in FREE.rates.items()})
    assert _mixing(tactics(added(), cheap)) == [("added", 8), ("selected", 4)]


def test_or_put_into_order_and_added_where_they_are_dear() -> None:  # 5
    assert _mixing(tactics(added(), FREE)) == [("added", 8), ("gathered", 8)]


def _mixing(found: list[list[tuple[str, int]]]) -> list[tuple[str, int]]:
    (mixing,) = (kernels for kernels in found if not {tactic for tactic, _ in kernels} & {"whole", "cut", "joined"})
    return mixing
