"""Safe MTL by hand: what is collapsed is exactly what the gates chose, and computes what the gated network does."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gatedeploy as gd
from gatedeploy.graph.cost import Cost
from tests.graph.small import prepared

TASKS = ("depth", "normals", "parts")
EXAMPLE = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def encoder() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, 1, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 3, 2, 1), nn.ReLU()
    )


class SafeMtl(nn.Module):
    """A public encoder; for each task a private one, a gate and a decoder (figure 1). `late`: gates after decoders."""

    def __init__(self, gates: list[nn.Module], late: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.public, self.private = encoder(), nn.ModuleList(encoder() for _ in TASKS)
        self.decoders = nn.ModuleList(nn.Conv2d(5, 2, 1) for _ in TASKS)
        self.public_decoders = nn.ModuleList(nn.Conv2d(5, 2, 1) for _ in TASKS) if late else None
        self.gates = nn.ModuleList(gates)

    def forward(self, image: Tensor) -> Any:
        shared = self.public(image)
        predictions = {}
        for number, task in enumerate(TASKS):
            own, decoder, gate = self.private[number](image), self.decoders[number], self.gates[number]
            if self.public_decoders is None:
                predictions[task] = decoder(gate(own, shared))
            else:
                predictions[task] = gate(decoder(own), self.public_decoders[number](shared))
        return predictions


def soft(own: float) -> gd.SoftGate:
    gate = gd.SoftGate()
    nn.init.constant_(gate.weight, own)
    return gate


def drawn(own: bool) -> gd.GumbelGate:
    gate = gd.GumbelGate()
    nn.init.constant_(gate.gate_logits, 0.3 if own else -0.3)
    return gate


def collapsed(network: nn.Module, target: str | None = "cpu") -> gd.Collapsed:
    """Verified in float64 to 1e-9 before it returns."""
    return gd.collapse(prepared(network), example_input=EXAMPLE, target=target)


ENCODER = Cost(3 * 6 * 9 * 64 + 6 * 5 * 9 * 16, 3 * 6 * 9 + 6 + 6 * 5 * 9 + 5)
"""Multiply-adds, and parameters once the norm is folded into a bias."""

DECODER = Cost(5 * 2 * 16, 5 * 2 + 2)


@pytest.mark.parametrize("own", list(itertools.product([True, False], repeat=3)))
@pytest.mark.parametrize("late", [False, True], ids=["L-SMTL", "L-SMTL_c"])
def test_the_lite_forms_collapse_to_the_chosen_encoders(own: tuple[bool, ...], late: bool) -> None:
    thin = collapsed(SafeMtl([drawn(each) for each in own], late), None)
    assert thin.report is not None
    encoders = sum(own) + (not all(own))  # the public one is there where one task at least chose it
    assert thin.report.collapsed.macs == encoders * ENCODER.macs + 3 * DECODER.macs
    assert thin.report.collapsed.params == encoders * ENCODER.params + 3 * DECODER.params


@pytest.mark.parametrize("weights", [(0.3, 0.3, 0.3), (1.0, 1.0, 1.0), *itertools.permutations([1.0, 0.0, 0.3])])
def test_a_soft_weight_of_exactly_0_or_1_is_folded(weights: tuple[float, ...]) -> None:
    thin = collapsed(SafeMtl([soft(each) for each in weights]), None)
    assert thin.report is not None
    encoders = sum(each > 0 for each in weights) + any(each < 1 for each in weights)
    assert thin.report.collapsed.macs == encoders * ENCODER.macs + 3 * DECODER.macs


@pytest.mark.parametrize("target", ["cpu", "gpu"])
@pytest.mark.parametrize("late", [False, True], ids=["SMTL", "SMTL_c"])
def test_soft_gates_are_laid_out_for_a_target(target: str, late: bool) -> None:
    collapsed(SafeMtl([soft(0.3), soft(0.8), soft(1.0)], late), target)


@pytest.mark.parametrize("late", [False, True], ids=["SMTL", "SMTL_c"])
@pytest.mark.parametrize("own", [True, False], ids=["single-task networks", "uniform multi-task learning"])
def test_soft_gates_at_their_ends_are_the_plain_networks_bit_for_bit(own: bool, late: bool) -> None:
    network = prepared(SafeMtl([soft(float(own)) for _ in TASKS], late))
    assert isinstance(network, SafeMtl)
    with torch.no_grad():
        predictions = network(EXAMPLE)
        for number, task in enumerate(TASKS):
            decoders = network.decoders if own or network.public_decoders is None else network.public_decoders
            plain = decoders[number]((network.private[number] if own else network.public)(EXAMPLE))
            assert torch.equal(predictions[task], plain)
