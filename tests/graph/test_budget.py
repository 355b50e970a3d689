"""Budgets are met, by the least sure gates, as nearly as choices allow."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import gatedeploy as gd
from gatedeploy.errors import InputError
from gatedeploy.graph.budget import SLACK, Budget, limits_of, within, within_budget
from gatedeploy.graph.cost import cost
from gatedeploy.graph.gate_cost import GateCost
from gatedeploy.lowering import lower
from gatedeploy.program import Program
from tests.backbones import Residual
from tests.graph.small import conv, prepared, program_of
from tests.structures import EXAMPLE

PIXELS = 8 * 8


def single_layer(a: list[float], b: list[float]) -> Program:
    """One layer of 3 → 4 channels with a gate behind it, and two tasks with these α. A row is 3 · 64 multiply-adds."""
    net = gd.gate(nn.Sequential(conv(3, 4)), [gd.Task("a"), gd.Task("b")], example_input=EXAMPLE)
    for task, alpha in (("a", a), ("b", b)):
        net.gate(net.sites[0], task).gate_logits.data = torch.tensor(alpha, dtype=torch.float64)
    return program_of(net)


ROW = 3 * PIXELS


def open_channels(program: Program) -> dict[str, list[int]]:
    gates = {name.split(".")[2]: logits for name, logits in program.weights.items() if name.endswith("gate_logits")}
    return {task: torch.where(logits > 0)[0].tolist() for task, logits in gates.items()}


@pytest.mark.parametrize(
    ("rows", "a", "b", "flipped"),
    [
        (8, [0, 1, 2, 3], [0, 1, 2, 3], 0),  # what it costs already
        (7, [1, 2, 3], [1, 2, 3], 2),  # one closed saves nothing: its channel's shared row is computed instead
        (6, [2, 3], [2, 3], 4),
        (5, [3], [3], 6),
        (4, [], [], 8),
    ],
)
def test_the_least_sure_close_first(rows: int, a: list[int], b: list[int], flipped: int) -> None:
    """Channel for channel both tasks are as sure, a little less so b."""
    program = single_layer([0.1, 0.2, 0.3, 0.4], [0.09, 0.19, 0.29, 0.39])
    made, told = within_budget(program, Budget(rows * ROW))
    assert open_channels(made) == {"a": a, "b": b}
    assert sum(gate.flipped for gate in told) == flipped
    assert cost(lower(made).program).macs == rows * ROW


def test_the_surest_open_first_where_there_is_room() -> None:
    program = single_layer([-0.4, -0.3, -0.2, -0.1], [-1, -1, -1, -1])
    made, _ = within_budget(program, Budget(6 * ROW))
    assert open_channels(made) == {"a": [2, 3], "b": []}


def test_a_share_is_one_of_the_gated_network() -> None:
    """It has three branches of four rows; a half of that are six."""
    made, _ = within_budget(single_layer([0.4, 0.3, 0.2, 0.1], [1, 1, 1, 1]), Budget(0.5))
    assert cost(lower(made).program).macs == 6 * ROW


def test_tasks_have_budgets_of_their_own() -> None:
    """Half of a's rows close, and all of b's stay; then those of b whose channels a shares already."""
    program = single_layer([0.4, 0.3, 0.2, 0.1], [0.01, 0.01, 0.01, 0.01])
    made, _ = within_budget(program, Budget(tasks={"a": 0.5}))
    assert open_channels(made) == {"a": [0, 1], "b": [0, 1, 2, 3]}
    made, _ = within_budget(program, Budget(6 * ROW, tasks={"a": 0.5}))
    assert open_channels(made) == {"a": [0, 1], "b": [0, 1]}
    closed = single_layer([-0.1, -0.2, -0.3, -0.4], [-1, -2, -3, -4])
    made, _ = within_budget(closed, Budget(8 * ROW, tasks={"a": 0.25}))  # no more of a opens than it may have
    assert open_channels(made) == {"a": [0], "b": [0, 1, 2, 3]}


def test_it_is_of_the_tasks_that_are_kept() -> None:
    """a takes two rows of its own and two shared ones, half of the eight it could; b's four are not counted."""
    program = single_layer([0.2, 0.1, -0.1, -0.2], [0.4, 0.3, 0.2, 0.1])
    kept = gd.collapse(program, tasks=["a"], budget=0.5, target=None)
    assert kept.report is not None
    assert kept.report.rounded == ()
    assert kept.program.outputs.keys() == {"a"}
    assert kept.report.gated.macs == 12 * ROW


@pytest.mark.parametrize("asked", [{"budget": 0.5}, {"round_gates": 2}, {"budget": gd.Milliseconds(1.0)}])
def test_a_network_without_gates_has_nothing_to_flip(asked: dict[str, Any]) -> None:
    plain = gd.collapse(single_layer([1] * 4, [1] * 4)).program
    with pytest.raises(InputError, match=r"is met by flipping gates, and this network has none that choose; leave it"):
        gd.collapse(plain, **asked)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (Budget(0.3), "691 multiply-adds cannot be reached: with every gate closed, so that all is shared, 768 are "
                      "left, 0.3333 of the whole; ask for at least that"),
        (Budget(700), "700 multiply-adds cannot be reached"),
        (Budget(tasks={"c": 0.5}), "a budget c: expected a or b"),
    ],
)  # fmt: skip
def test_what_cannot_be_met_is_told(budget: Budget, message: str) -> None:
    with pytest.raises(InputError, match=message):
        within_budget(single_layer([1] * 4, [1] * 4), budget)


@cache
def residual(group: int) -> tuple[Program, GateCost]:
    tasks = [gd.Task(name) for name in "abc"]
    heads = {task.name: conv(6, 2) for task in tasks}
    net = gd.gate(Residual(), tasks, example_input=EXAMPLE, heads=heads, group=group)
    program = program_of(prepared(net))
    return program, GateCost(program)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), share=st.floats(0.26, 0.74), group=st.sampled_from([1, 4]), spread=st.floats(0, 2))
def test_any_budget_is_met_as_nearly_as_choices_allow(seed: int, share: float, group: int, spread: float) -> None:
    program, count = residual(group)
    generator = torch.Generator().manual_seed(seed)
    logits = {
        name: 0.1 + spread * torch.randn(choices, generator=generator, dtype=torch.float64)
        for name, choices in count.gates.items()
    }
    try:
        (limit,) = limits_of(count, Budget(share))
    except InputError:
        assert (
            float(count({name: torch.zeros(choices) for name, choices in count.gates.items()}).sum())
            > share * count.whole
        )
        return
    chosen = within(count, logits, [limit])
    spent, leaves = _cost(count, chosen)
    collapsed = lower(replace(program, weights=program.weights | _signs(chosen))).program
    assert cost(collapsed).macs == spent <= limit.most
    if spent < (1 - SLACK) * limit.most:  # then every choice that is still closed costs more than is left, or nothing
        for name, grad in leaves.items():
            further = grad[~chosen[name]]
            assert ((further <= 0) | (further > limit.most - spent)).all()


def _cost(count: GateCost, chosen: dict[str, Tensor]) -> tuple[float, dict[str, Tensor]]:
    openness = {name: choices.double().requires_grad_() for name, choices in chosen.items()}
    total = count(openness).sum()
    grads = torch.autograd.grad(total, list(openness.values()))
    return float(total.detach()), dict(zip(openness, grads, strict=True))


def _signs(chosen: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.where(choices, 0.1, -0.1).double() for name, choices in chosen.items()}
