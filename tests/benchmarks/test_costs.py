from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gatedeploy as gd
from gatedeploy.benchmarks.costs import NetworkCost, count, total
from gatedeploy.exporters.plain_gates import plain_gates
from gatedeploy.graph.cost import cost
from gatedeploy.graph.modules import network
from tests.benchmarks.tiny import BACKBONE_MACS, HEAD_MACS, HEAD_PARAMS, SPEC, Backbone, head
from tests.gate_patterns import set_gates
from tests.structures import STRUCTURES, Structure
from tests.test_collapse_equals_gated import captured

# Residual and grouped gates, depthwise, transposed, attention, called twice, gated by hand.
CHOSEN = ("Residual-T3", "Residual-T5", "InvertedResidual", "UNet", "SpatialAttention", "CalledTwice", "HandGatedLast")


class Everything(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(4, 8, 3, groups=2, padding=1)
        self.up = nn.ConvTranspose2d(8, 3, 2, stride=2)
        self.mix = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        query = x.flatten(2)
        attended = F.scaled_dot_product_attention(query, query, query)
        return {"map": self.up(self.grouped(x)), "rows": self.mix(attended), "scores": query @ query.transpose(1, 2)}


def test_a_network_counted_by_hand() -> None:
    counted = count(nn.Sequential(Backbone(), head()), SPEC)
    assert counted.per_operator == {"conv": BACKBONE_MACS, "linear": HEAD_MACS}
    assert counted.macs == BACKBONE_MACS + HEAD_MACS
    norms = 2 * 4 + 2 * 6
    assert counted.params == 3 * 4 * 9 + 4 * 6 * 9 + norms + HEAD_PARAMS


def test_all_kinds_of_layers_and_products_counted_by_hand() -> None:
    counted = count(Everything(), gd.InputSpec(4, 4, 4))
    grouped = 8 * (4 // 2) * 9 * 16
    # Each of the transposed convolution's inputs meets a 2×2 window of all its outputs.
    up = 8 * 3 * 4 * 16
    assert counted.per_operator == {"conv": grouped + up, "linear": 4 * 16 * 5}
    assert counted.macs == sum(counted.per_operator.values())
    assert counted.products == {"matmul": 4 * 4 * 16, "scaled_dot_product_attention": 2 * 4 * 4 * 16}


def test_operators_without_a_rule_are_named() -> None:
    counted = count(nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sigmoid(), nn.BatchNorm2d(3)), SPEC)
    assert counted.unsupported == {"aten::batch_norm": 1, "aten::sigmoid": 1}


def test_counting_leaves_the_network_in_its_mode() -> None:
    net = nn.Sequential(Backbone(), head()).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    count(net, SPEC)
    assert all(part.training for part in net.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize("structure", [s for s in STRUCTURES if s.name.startswith(CHOSEN)], ids=lambda s: s.name)
def test_agrees_with_the_count_by_shapes(structure: Structure) -> None:
    gated, program = captured(structure)
    set_gates(gated, "random, half")
    thin = gd.collapse(program)
    for counted, expected in (
        (count(network(program), program.input), cost(program)),
        (count(network(plain_gates(program)), program.input), cost(program)),
        (count(thin, program.input), cost(thin.program)),
    ):
        assert (counted.macs, counted.params) == (expected.macs, expected.params)


def test_several_networks_together() -> None:
    small = NetworkCost(10, 1, {"conv": 10}, {}, {"aten::add": 1})
    large = NetworkCost(30, 2, {"conv": 25, "linear": 5}, {"matmul": 4}, {"aten::add": 2})
    assert total([small, large]) == NetworkCost(40, 3, {"conv": 35, "linear": 5}, {"matmul": 4}, {"aten::add": 3})
