"""Budgets of predicted milliseconds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import gatedeploy as gd
from gatedeploy.errors import InputError
from gatedeploy.graph.flips import gates_of
from gatedeploy.milliseconds import Milliseconds, _most_open, predicted_ms, within_milliseconds
from gatedeploy.price_tables import prices_of
from gatedeploy.program import Program
from tests.backbones import Bottlenecks
from tests.gate_patterns import set_gates
from tests.structures import Structure
from tests.test_collapse_equals_gated import captured

STRUCTURE = Structure(Bottlenecks, 3, {"tie": "residual"})
PRICES = prices_of("onnxruntime")


def network(seed: int) -> Program:
    """A network whose α are drawn, so that no two are equal."""
    module, program = captured(STRUCTURE)
    set_gates(module, "random, half")
    generator = torch.Generator().manual_seed(seed)
    drawn = {
        gate.name: torch.randn(program.weights[gate.name].shape, generator=generator) for gate in gates_of(program)
    }
    return replace(program, weights={**program.weights, **drawn})


@pytest.mark.parametrize("between", [0.1, 0.5, 0.9])
def test_it_is_met(between: float) -> None:
    program = network(1)
    closed, opened = (predicted_ms(within(program, most), PRICES) for most in (None, 1e9))
    most = closed + between * (opened - closed)
    made, rounded = within_milliseconds(program, Milliseconds(most), PRICES)
    assert closed <= predicted_ms(made, PRICES) <= most
    assert rounded
    open_, shut = [torch.tensor([torch.inf])], [torch.tensor([-torch.inf])]
    for gate in gates_of(program):
        chosen = made.weights[gate.name] > 0
        open_.append(program.weights[gate.name][chosen])
        shut.append(program.weights[gate.name][~chosen])
    assert torch.cat(open_).min() > torch.cat(shut).max()  # the surest are open


def within(program: Program, most: float | None) -> Program:
    """All gates closed, or as many open as milliseconds allow."""
    if most is not None:
        return within_milliseconds(program, Milliseconds(most), PRICES)[0]
    closed = {gate.name: -torch.ones_like(program.weights[gate.name]) for gate in gates_of(program)}
    return replace(program, weights={**program.weights, **closed})


def test_the_search_takes_few_looks_and_ends_below() -> None:
    asked: list[int] = []

    def ms(count: int) -> float:
        asked.append(count)
        return 1 + 0.002 * count**1.1

    for most in (1.5, 2.0, 3.0):
        asked.clear()
        found = _most_open(ms, ms(0), 1000, most)
        assert 0.99 * most <= ms(found) <= most
        assert len(asked) < 12


def test_a_step_is_found_where_nothing_comes_near() -> None:
    """Milliseconds that jump: the most that fit are told to the last choice."""
    assert _most_open(lambda count: 1.0 if count < 37 else 5.0, 1.0, 1000, 2.0) == 36
    assert _most_open(lambda count: 1.0, 1.0, 10, 2.0) == 10


def test_what_cannot_be() -> None:
    with pytest.raises(InputError, match=r"1e-06 ms cannot be reached on onnxruntime: .*; ask for at least that"):
        within_milliseconds(network(2), Milliseconds(1e-6), PRICES)
    with pytest.raises(InputError, match=r"a budget in milliseconds goes by what kernels cost: name a target"):
        gd.collapse(network(2), target=None, budget=Milliseconds(1.0))
