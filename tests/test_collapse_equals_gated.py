"""The claim of the project: a collapsed network computes what the gated one does, whatever the structure and gates."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import gatedeploy as gd
from gatedeploy.graph.capture import capture
from gatedeploy.graph.gate_cost import GateCost
from gatedeploy.graph.prices import Prices
from gatedeploy.program import Program
from tests.gate_patterns import PATTERNS, logits_of, set_gates
from tests.prices import EXTREMES
from tests.structures import EXAMPLE, STRUCTURES, HandGatedLast, Structure


def for_each(structures: list[Structure]) -> pytest.MarkDecorator:
    """Parametrise by structure, all tests of one in one process: capturing takes longer than collapsing."""
    return pytest.mark.parametrize(
        "structure",
        [pytest.param(each, id=each.name, marks=pytest.mark.xdist_group(each.name)) for each in structures],
    )


# Another batch size than the one captured with, and values that were never seen.
PICTURES = torch.randn(3, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@cache
def captured(structure: Structure) -> tuple[nn.Module, Program]:
    """The network and its program, which share their weights: gates set in one are set in the other."""
    network = structure.build()
    return network, capture(network, EXAMPLE.double())


@cache
def gate_cost(structure: Structure) -> GateCost:
    return GateCost(captured(structure)[1])


def made(logits: dict[str, Tensor]) -> dict[str, Tensor]:
    """The choices as they are, as a cost takes them."""
    return {name: (alpha > 0).double() for name, alpha in logits.items()}


def assert_equal_to_scale(got: Any, expected: Any) -> None:
    ours, theirs = pytree.tree_leaves(got), pytree.tree_leaves(expected)
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        assert float((one - other).abs().max()) <= 1e-9 * float(other.abs().max())


def assert_fewest(thin: gd.Collapsed, structure: Structure, network: nn.Module) -> None:
    """The multiply-adds without what prices add are those that are counted without collapsing."""
    assert thin.report is not None
    counted = float(gate_cost(structure)(made(logits_of(network))).sum())
    if structure.make is HandGatedLast:  # one decoder for two tasks, which run it once where they ask it the same
        assert counted >= thin.report.fewest_macs
    else:
        assert counted == thin.report.fewest_macs


@for_each(STRUCTURES)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_collapsed_equals_gated(structure: Structure, pattern: str) -> None:
    network, program = captured(structure)
    set_gates(network, pattern)
    thin = gd.collapse(program)
    with torch.no_grad():
        assert_equal_to_scale(thin(PICTURES), network(PICTURES))
    assert_fewest(thin, structure, network)


@for_each(STRUCTURES)
@pytest.mark.parametrize("pattern", [pattern for pattern in PATTERNS if pattern.startswith("random")])
@pytest.mark.parametrize("prices", [None, *EXTREMES.values()], ids=["fewest multiply-adds", *EXTREMES])
def test_whatever_kernels_cost(structure: Structure, pattern: str, prices: Prices | None) -> None:
    network, program = captured(structure)
    set_gates(network, pattern)
    thin = gd.collapse(program, target=prices)
    with torch.no_grad():
        assert_equal_to_scale(thin(PICTURES), network(PICTURES))
    assert_fewest(thin, structure, network)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    structure=st.sampled_from(STRUCTURES),
    seed=st.integers(0, 2**31),
    share=st.floats(0, 1),
    task=st.integers(0, 4),
    prices=st.sampled_from([None, *EXTREMES.values()]),
)
def test_any_gates_and_any_choice_of_tasks(
    structure: Structure, seed: int, share: float, task: int, prices: Prices | None
) -> None:
    network, program = captured(structure)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for logits in logits_of(network).values():
            logits.copy_(torch.where(torch.rand(logits.shape, generator=generator) < share, 0.1, -0.1))
        expected = network(PICTURES)
        names = list(expected)
        chosen = [names[task % len(names)]]
        thin = gd.collapse(program, tasks=chosen, target=prices)
        assert list(thin(PICTURES)) == chosen
        assert_equal_to_scale(thin(PICTURES), {name: expected[name] for name in chosen})


@for_each(STRUCTURES)
def test_parameters_never_grow(structure: Structure) -> None:
    network, program = captured(structure)
    set_gates(network, "random, half")
    report = gd.collapse(program, target=None).report
    assert report is not None
    assert report.collapsed.macs <= report.gated.macs
    assert report.collapsed.params <= report.gated.params
