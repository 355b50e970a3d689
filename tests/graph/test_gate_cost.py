"""What a collapse costs as a function of gates, on nets whose multiply-adds were counted by hand.

That it is exact for every structure and pattern of gates is checked in tests/test_collapse_equals_gated.py.
"""

import pytest
import torch
from torch import Tensor, nn

import gatedeploy as gd
from gatedeploy.errors import InputError
from gatedeploy.graph.cost import cost
from gatedeploy.graph.gate_cost import GateCost
from gatedeploy.lowering import lower
from gatedeploy.program import Program
from tests.graph.small import Net, conv, gate, mix, program_of

PIXELS = 8 * 8


def two_layers() -> Net:
    """Two tasks over 3 → 4 → 2 channels: a row of the first layer is 3 · 64 multiply-adds, one of the second 4 · 64."""

    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        a, b, shared = n.a1(x), n.b1(x), n.s1(x)
        a, b = n.gate_a1(a, shared), n.gate_b1(b, shared)
        shared = n.s2(n.mix(a, b))
        return {"a": n.gate_a2(n.a2(a), shared), "b": n.gate_b2(n.b2(b), shared)}

    layers = {f"{branch}1": conv(3, 4) for branch in "abs"} | {f"{branch}2": conv(4, 2) for branch in "abs"}
    gates = {f"gate_{task}1": gate(1, 1, 1, 1) for task in "ab"} | {f"gate_{task}2": gate(1, 1) for task in "ab"}
    return Net(run, mix=mix((0.0,) * 4, (0.0,) * 4), **layers, **gates)


FIRST, SECOND = 3 * PIXELS, 4 * PIXELS


def of(a1: list[float], b1: list[float], a2: list[float], b2: list[float]) -> tuple[float, dict[str, Tensor]]:
    names = ("gate_a1", "gate_b1", "gate_a2", "gate_b2")
    openness = {
        f"{name}.gate_logits": torch.tensor(values, dtype=torch.float64)
        for name, values in zip(names, (a1, b1, a2, b2), strict=True)
    }
    return float(GateCost(program_of(two_layers()))(openness).sum()), openness


@pytest.mark.parametrize(
    ("a1", "b1", "a2", "b2", "expected"),
    [
        ([1] * 4, [1] * 4, [1] * 2, [1] * 2, 8 * FIRST + 4 * SECOND),  # all specific: the shared branch is dead
        ([0] * 4, [0] * 4, [0] * 2, [0] * 2, 4 * FIRST + 2 * SECOND),  # all shared: one net
        ([1, 0, 0, 0], [0] * 4, [0] * 2, [0] * 2, 5 * FIRST + 2 * SECOND),  # a's row too, for the mix
        ([1] * 4, [1] * 4, [0, 1], [1, 1], 8 * FIRST + 4 * SECOND),  # one row shared by a alone, three specific
        ([0] * 4, [1] * 4, [1] * 2, [1] * 2, 8 * FIRST + 4 * SECOND),  # a lives on what is shared
        ([1] * 4, [0] * 4, [1] * 2, [0] * 2, 8 * FIRST + 4 * SECOND),
    ],
)
def test_by_hand(a1: list[float], b1: list[float], a2: list[float], b2: list[float], expected: int) -> None:
    assert of(a1, b1, a2, b2)[0] == expected


def test_undecided_gates_are_drawn_each_on_its_own() -> None:
    """Behind the last gates at ½: a task's row with ½, the shared one unless both are open. So is each row before them:
    needed by its task's rows or by the shared ones, of which one at least lives but with a small probability.
    """
    found, _ = of([1] * 4, [1] * 4, [0.5, 0.5], [0.5, 0.5])
    shared_row = 1 - 0.5 * 0.5
    second = (4 * 0.5 + 2 * shared_row) * SECOND
    nobody = (1 - 0.5) ** 2 * (1 - shared_row) ** 2  # neither of a task's rows, nor of the shared ones
    assert found == pytest.approx(second + 8 * (1 - nobody) * FIRST)


def test_its_derivative_is_what_a_choice_costs_where_others_are_made() -> None:
    program = program_of(two_layers())
    count = GateCost(program)
    _, openness = of([1, 0, 1, 0], [0, 0, 1, 1], [1, 0], [1, 1])
    leaves = {name: values.clone().requires_grad_() for name, values in openness.items()}
    grads = dict(zip(leaves, torch.autograd.grad(count(leaves).sum(), list(leaves.values())), strict=True))
    for name, values in openness.items():
        for position in range(len(values)):
            costs = []
            for choice in (0.0, 1.0):
                changed = values.clone()
                changed[position] = choice
                costs.append(float(count({**openness, name: changed}).sum()))
            assert float(grads[name][position]) == costs[1] - costs[0]


def gated_program() -> Program:
    net = gd.gate(
        nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 2)),
        [gd.Task("a"), gd.Task("b")],
        example_input=torch.zeros(2, 3, 8, 8),
        heads={"a": conv(2, 1), "b": conv(2, 5)},
    )
    return program_of(net)


def test_each_branch_has_its_own_part() -> None:
    """With every gate open, of a task: its branch and its head; nothing is shared. With every gate closed, its head."""
    count = GateCost(gated_program())
    assert count.branches == ("a", "b", "shared")
    trunk = 4 * FIRST + 2 * SECOND
    heads = [2 * PIXELS, 5 * 2 * PIXELS]
    for value, own, shared in ((1.0, trunk, 0), (0.0, 0, trunk)):
        openness = {name: torch.full((choices,), value) for name, choices in count.gates.items()}
        assert count(openness).tolist() == [own + heads[0], own + heads[1], shared]
    assert count.whole == cost(gated_program()).macs


def test_groups_of_a_convolution_have_as_many_rows_as_the_largest() -> None:
    def run(n: Net, x: Tensor) -> Tensor:
        return n.gate(n.own(x), n.shared(x))

    grouped = {name: conv(4, 4, groups=2) for name in ("own", "shared")}
    stem = conv(3, 4)
    net = Net(lambda n, x: run(n, n.stem(x)), stem=stem, gate=gate(1, 1, 1, 0), **grouped)
    program = program_of(net)
    openness = {"gate.gate_logits": torch.tensor([1.0, 1.0, 1.0, 0.0])}
    # The task's own: two groups of two rows, though one lacks a row. The shared one: a group of one row.
    assert (
        float(GateCost(program)(openness).sum())
        == (4 * 3 + 4 * 2 + 1 * 2) * PIXELS
        == cost(lower(program).program).macs
    )


def test_gates_that_the_picture_makes_are_refused() -> None:
    class Computed(gd.ChannelGate):
        def forward(self, specific: Tensor, shared: Tensor) -> Tensor:
            logits = specific.mean((0, 2, 3))
            chosen: Tensor = torch.ops.gatedeploy.select(specific, shared, logits, 1, 1)
            return chosen

    net = Net(lambda n, x: n.gate(n.own(x), n.shared(x)), own=conv(), shared=conv(), gate=Computed(4))
    with pytest.raises(InputError, match="this gate is computed from the picture"):
        GateCost(program_of(net))
