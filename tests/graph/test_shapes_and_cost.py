"""Shapes without computing, and multiply-adds counted by hand: pictures are 3 × 8 × 8."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gatedeploy as gd
from gatedeploy.graph.cost import Cost, cost
from gatedeploy.shapes import BATCH, shapes_of
from tests.graph.small import Net, conv, norm, program_of, weight


def shapes(network: nn.Module) -> dict[str, Any]:
    return {node.name: shape for node, shape in shapes_of(program_of(network)).items()}


def test_every_value_has_a_shape() -> None:
    found = shapes(Net(lambda n, x: n.a(x).flatten(1), a=conv(3, 4, 3)))
    assert found["image"] == (BATCH, 3, 8, 8)
    assert found["a_weight"] == (4, 3, 3, 3)
    assert found["conv2d"] == (BATCH, 4, 6, 6)
    assert found["flatten"] == (BATCH, 144)


def test_several_results_have_several_shapes() -> None:
    found = shapes(Net(lambda n, x: torch.topk(x, 2, dim=1)[0] + x.split([1, 2], 1)[1]))
    assert found["topk"] == ((BATCH, 2, 8, 8), (BATCH, 2, 8, 8))
    assert list(found["split_with_sizes"]) == [(BATCH, 1, 8, 8), (BATCH, 2, 8, 8)]


def test_sizes_are_their_values() -> None:
    found = shapes(Net(lambda n, x: x.new_ones(x.shape[0] * 2, x.shape[2])))
    assert found["sym_size_int"] == BATCH
    assert found["new_ones"] == (2 * BATCH, 8)


def test_a_program_is_looked_at_once() -> None:
    program = program_of(Net(lambda n, x: x.relu()))
    first = shapes_of(program)
    node = next(iter(program.graph.nodes))
    node.meta["shape"] = "seen"
    assert shapes_of(program)[node] == "seen"
    assert len(first) == len(list(program.graph.nodes))


def test_a_copy_with_another_call_is_looked_at_again() -> None:
    program = program_of(Net(lambda n, x: n.a(x), a=conv()))
    shapes_of(program)
    changed = replace(program, graph=copy.deepcopy(program.graph))
    output = changed.graph.output_node()
    with changed.graph.inserting_before(output):
        mean = changed.graph.call_function(torch.ops.aten.mean.dim, (changed.outputs["y"], [2]))
    output.args = ({"y": mean},)
    assert shapes_of(changed)[mean] == (BATCH, 4, 8)


def test_nothing_is_computed() -> None:
    """A hundred gigabytes of features would not fit."""
    found = shapes(Net(lambda n, x: x[:, :1].expand(-1, 1000, -1, -1).contiguous().repeat(1, 1, 10, 10)))
    assert found["repeat"] == (BATCH, 1000, 80, 80)


COUNTED: dict[str, tuple[Net, int, int]] = {
    # 4 · 6 · 6 entries, each of 3 · 3 · 3 products; the bias adds without multiplying
    "conv2d": (Net(lambda n, x: n.a(x), a=conv(3, 4, 3)), 4 * 36 * 27, 108 + 4),
    "stride": (Net(lambda n, x: n.a(x), a=conv(3, 4, 2, stride=2, bias=False)), 4 * 16 * 12, 48),
    "depthwise": (Net(lambda n, x: n.a(x), a=conv(3, 3, 3, groups=3)), 3 * 36 * 9, 27 + 3),
    "grouped": (Net(lambda n, x: n.a(n.b(x)), b=conv(3, 4), a=conv(4, 6, 1, groups=2)), 4 * 64 * 3 + 6 * 64 * 2, 34),
    "conv1d": (Net(lambda n, x: n.a(x.flatten(2)), a=nn.Conv1d(3, 2, 5)), 2 * 60 * 15, 30 + 2),
    "conv3d": (Net(lambda n, x: n.a(x.unsqueeze(2)), a=nn.Conv3d(3, 2, (1, 3, 3))), 2 * 36 * 27, 54 + 2),
    # each of the 3 · 64 entries read meets a 4 · 2 · 2 slice of the weight
    "transposed": (Net(lambda n, x: n.a(x), a=nn.ConvTranspose2d(3, 4, 2, 2)), 3 * 64 * 16, 48 + 4),
    "transposed, grouped": (Net(lambda n, x: n.a(x), a=nn.ConvTranspose2d(3, 6, 2, groups=3)), 3 * 64 * 8, 24 + 6),
    "linear": (Net(lambda n, x: n.a(x.flatten(1)), a=nn.Linear(192, 5)), 192 * 5, 960 + 5),
    "linear on tokens": (Net(lambda n, x: n.a(x.flatten(2).mT), a=nn.Linear(3, 5)), 64 * 3 * 5, 15 + 5),
    "linear over columns": (Net(lambda n, x: n.a(x), a=nn.Linear(8, 2)), 3 * 8 * 8 * 2, 16 + 2),
    "called twice": (Net(lambda n, x: n.a(n.a(x)), a=conv(3, 3)), 2 * 64 * 9, 9 + 3),
    "shared with a function": (Net(lambda n, x: n.a(x) + F.conv2d(x * 2, n.a.weight), a=conv(3, 3)), 2 * 64 * 9, 12),
    "of a computed weight": (Net(lambda n, x: F.conv2d(x, n.p * 2), p=weight(4, 3, 1, 1)), 64 * 4 * 3, 12),
    "of a weight alone": (
        Net(lambda n, x: x * F.linear(n.p, n.q).sum(), p=weight(7, 3), q=weight(2, 3)),
        7 * 3 * 2,
        27,
    ),
    "nothing else counts": (Net(lambda n, x: F.relu(n.norm(x)).softmax(1) * x, norm=norm(3)), 0, 6),
    "buffers are no parameters": (Net(lambda n, x: x - n.mean, mean=torch.zeros(3, 1, 1)), 0, 0),
}


@pytest.mark.parametrize("name", COUNTED)
def test_multiply_adds_and_parameters_by_hand(name: str) -> None:
    network, macs, params = COUNTED[name]
    assert cost(program_of(network)) == Cost(macs, params)


def test_parameters_that_the_network_does_not_use_do_not_count() -> None:
    assert cost(program_of(Net(lambda n, x: n.a(x), a=conv(), unused=conv()))).params == 16


def test_gates_and_mixes_count_as_parameters_of_the_gated_network() -> None:
    def run(n: Net, x: Tensor) -> Tensor:
        return n.mix(n.gate(n.a(x), n.b(x)), n.b(x))

    network = Net(run, a=conv(), b=conv(), gate=gd.ChannelGate(4), mix=gd.Mix(2, 4))
    assert cost(program_of(network)) == Cost(3 * 64 * 12, 2 * 16 + 4 + 8)
