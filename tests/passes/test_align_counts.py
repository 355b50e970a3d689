from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gatedeploy.passes.align_counts import AlignCounts
from tests.graph.small import Net, all_of, collapsed, conv, laid_out, sums
from tests.prices import CUTTING


def widths(network: Net, vector: int = 8) -> list[int]:
    """The channels of every sum, where kernels compute so many at a time."""
    return [len(made.output.ids) for made in sums(laid_out(network, replace(CUTTING, vector=vector), AlignCounts))]


def test_what_layers_read_has_whole_vectors() -> None:  # 1, 2
    network = Net(lambda n, x: n.b(n.a(x).relu()), a=conv(3, 12), b=conv(12, 3))
    assert widths(network) == [16, 3]
    assert [len(each.output.ids) for each in all_of(laid_out(network, CUTTING, AlignCounts), "relu")] == [16]
    weights = collapsed(network, CUTTING).program.weights
    assert torch.equal(weights["a.weight"][11:], weights["a.weight"][11:12].expand(5, -1, -1, -1))
    assert weights["b.weight"].shape == (3, 16, 1, 1)
    assert not weights["b.weight"][:, 12:].any()


def test_both_sides_of_an_addition_grow_alike() -> None:  # 1
    """Else what is added would have to be selected."""

    def run(n: Net, x: Tensor) -> Tensor:
        first = n.a(x).relu()
        return n.last((n.b(first) + first).relu())

    graph = laid_out(Net(run, a=conv(3, 12), b=conv(12, 12), last=conv(12, 3)), CUTTING)
    assert [len(made.output.ids) for made in sums(graph)] == [16, 16, 3]
    assert [read.kind is None for read in sums(graph)[1].reads] == [True, False]
    collapsed(Net(run, a=conv(3, 12), b=conv(12, 12), last=conv(12, 3)), CUTTING)


@pytest.mark.parametrize(
    "run",
    [
        lambda n, x: {"feature": n.a(x), "y": n.b(n.a(x))},  # an output of the network
        lambda n, x: n.b(n.a(x).softmax(1)),  # needs all channels, and no others
        lambda n, x: n.b(n.a(x).roll(1, 1)),  # an operator without a rule
        lambda n, x: {"y": n.b(n.a(x).relu()), "feature": n.a(x).relu()},  # an output behind an activation
    ],
)
def test_what_others_read_stays_as_it_is(run: object) -> None:
    network = Net(run, a=conv(3, 12), b=conv(12, 3))  # type: ignore[arg-type]
    assert widths(network)[0] == 12
    collapsed(network, CUTTING)


@pytest.mark.parametrize(("vector", "count", "expected"), [(8, 5, 5), (8, 20, 24), (16, 12, 12), (16, 20, 32)])
def test_vectors_are_those_of_the_target_and_less_than_one_stays_as_it_is(
    vector: int, count: int, expected: int
) -> None:
    network = Net(lambda n, x: n.b(n.a(x).relu()), a=conv(3, count), b=conv(count, 3))
    assert widths(network, vector) == [expected, 3]


def test_copies_are_as_finite_as_the_channel_that_is_copied() -> None:
    """Zeros would be divided by."""
    network = Net(lambda n, x: n.b((n.a(x).abs() + 0.1).reciprocal()), a=conv(3, 12), b=conv(12, 3))
    assert widths(network) == [16, 3]
    collapsed(network, CUTTING)
