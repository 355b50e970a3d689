"""PCGrad, CAGrad and MGDA against gradients worked out by hand."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from gatedeploy.training.balancing import make_balance
from tests.training.balances import Vector, assert_same, backward, found, section, shared_gradient, step, tasks

SURGERIES = ("pcgrad", "cagrad", "mgda")
CONFLICT = [[1.0, 0.0], [-1.0, 1.0]]


def test_pcgrad_projects_conflicting_gradients_and_leaves_others() -> None:
    # g1 − (g1·g2/|g2|²) g2 = (1, 0) + ½ (−1, 1), and g2 − (g1·g2/|g1|²) g1 = (0, 1).
    assert shared_gradient("pcgrad", CONFLICT) == pytest.approx([0.5, 1.5])
    assert shared_gradient("pcgrad", [[1.0, 0.0], [1.0, 1.0]]) == pytest.approx([2, 1])


def test_pcgrad_takes_the_others_in_an_order_that_torch_draws() -> None:
    directions = [[1.0, 0.0], [-1.0, 1.0], [-1.0, -2.0]]
    drawn = set()
    for seed in range(20):
        torch.manual_seed(seed)
        once = shared_gradient("pcgrad", directions)
        torch.manual_seed(seed)
        assert shared_gradient("pcgrad", directions) == once
        drawn.add(tuple(round(value, 6) for value in once))
    assert len(drawn) > 1
    assert drawn <= pcgrad_in_every_order(directions)


def pcgrad_in_every_order(directions: list[list[float]]) -> set[tuple[float, ...]]:
    """Algorithm 1 of the paper on vectors, for every order in which each gradient may meet the others."""
    given = [torch.tensor(direction, dtype=torch.float64) for direction in directions]
    projected: list[list[Tensor]] = []
    for number, gradient in enumerate(given):
        projected.append([])
        for order in itertools.permutations(given[:number] + given[number + 1 :]):
            left = gradient
            for other in order:
                left = left - min(0.0, float(left @ other)) / (other @ other) * other
            projected[-1].append(left)
    sums = (sum(each[1:], each[0]).tolist() for each in itertools.product(*projected))
    return {tuple(round(value, 6) for value in each) for each in sums}


@pytest.mark.parametrize(
    ("directions", "expected"),
    [
        ([[1.0, 0.0], [0.0, 2.0]], [0.8, 0.4]),  # α = |g2|² / (|g1|² + |g2|²)
        ([[1.0, 0.0], [2.0, 1.0]], [1.0, 0.0]),  # the shorter is itself the nearest to 0
        ([[1.0, 1.0], [-1.0, -1.0]], [0.0, 0.0]),
        ([[2.0, 1.0], [2.0, -1.0], [5.0, 0.0]], [2.0, 0.0]),
    ],
)
def test_mgda_finds_the_point_nearest_to_0(directions: list[list[float]], expected: list[float]) -> None:
    assert shared_gradient("mgda", directions) == pytest.approx(expected, abs=1e-9)


def test_cagrad_without_a_ball_is_the_mean() -> None:
    assert shared_gradient("cagrad", CONFLICT, c=0) == pytest.approx([0.0, 0.5])


def test_cagrad_leans_towards_the_task_that_gains_least() -> None:
    """The best of all points of the ball, found by looking at many of them."""
    directions = [[1.0, 0.0], [0.0, 3.0]]
    gradients = torch.tensor(directions, dtype=torch.float64)
    mean = gradients.mean(0)
    angles = torch.linspace(0, 2 * math.pi, 200001, dtype=torch.float64)
    ball = mean + 0.4 * mean.norm() * torch.stack([angles.cos(), angles.sin()], 1)
    best = ball[(ball @ gradients.T).amin(1).argmax()]
    assert shared_gradient("cagrad", directions, c=0.4) == pytest.approx(best.tolist(), abs=1e-4)


@pytest.mark.parametrize("name", SURGERIES)
def test_gradients_that_are_small_count_like_others(name: str) -> None:
    large = shared_gradient(name, CONFLICT)
    small = shared_gradient(name, [[1e-6 * value for value in direction] for direction in CONFLICT])
    assert small == pytest.approx([1e-6 * value for value in large], rel=1e-5)
    assert shared_gradient(name, [[0.0, 0.0], [0.0, 0.0]]) == [0, 0]


@pytest.mark.parametrize("name", SURGERIES)
def test_what_is_no_number_reaches_the_gradient(name: str) -> None:
    assert not all(map(math.isfinite, shared_gradient(name, [[1.0, math.nan], [1.0, 1.0]])))
    assert not all(map(math.isfinite, shared_gradient(name, [[1.0, math.inf], [1.0, 1.0]])))


@pytest.mark.parametrize("name", SURGERIES)
def test_heads_get_their_own_losses_gradient_and_the_penalty_is_added_plainly(name: str) -> None:
    network = Vector(2)
    balance = make_balance(section(name), network, tasks(2), backward)
    step(balance, network, network.losses(CONFLICT))
    without = found(network)
    assert [without["heads.0"], without["heads.1"]] == [torch.tensor(1.0), torch.tensor(0.0)]
    step(balance, network, network.losses(CONFLICT), 5 * network.shared.sum() + 7 * network.heads[0])
    with_penalty = found(network)
    expected = {"shared": 5.0, "heads.0": 7.0, "heads.1": 0.0}
    assert_same(with_penalty, {key: value + expected[key] for key, value in without.items() if value is not None})


def test_heads_are_no_part_of_what_is_compared() -> None:
    """With heads in the lengths, the second would be the shorter."""
    network = Vector(2)
    with torch.no_grad():
        network.shared.copy_(torch.tensor([[100.0, 0.0]]))
    balance = make_balance(section("mgda"), network, tasks(2), backward)
    step(balance, network, network.losses([[1.0, 0.0], [0.0, 2.0]]))
    assert network.shared.grad is not None
    assert network.shared.grad.flatten().tolist() == pytest.approx([0.8, 0.4])


class Partly(nn.Module):
    """Three shared vectors: one for all, one for the first task alone, one for none; and one that stands still."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("common", "first", "unread", "frozen"):
            self.register_parameter(name, nn.Parameter(torch.ones(1, 2, dtype=torch.float64), name != "frozen"))
        self.heads = nn.Module()

    def losses(self) -> list[Tensor]:
        one, two = torch.tensor(CONFLICT, dtype=torch.float64)
        common = self.get_parameter("common") * self.get_parameter("frozen")
        return [(one * common).sum() + 2 * self.get_parameter("first").sum(), (two * common).sum()]


@pytest.mark.parametrize("name", [*SURGERIES, "gradnorm", "auto_lambda"])
def test_weights_without_a_gradient_stay_without(name: str) -> None:
    network = Partly()
    step(make_balance(section(name), network, tasks(2), backward), network, network.losses())
    gradients = found(network)
    assert gradients["unread"] is None
    assert gradients["frozen"] is None
    assert gradients["common"] is not None
    assert gradients["first"] is not None
    assert torch.equal(gradients["first"], gradients["first"][0, 0].expand(1, 2))  # of one task, whatever its weight


def test_a_weight_that_one_task_alone_reads_is_not_weighed() -> None:
    # g1 = (1, 0), g2 = (−1, 1) of what both read: α = (|g2|² − g1·g2) / |g1 − g2|² = 3 / 5.
    network = Partly()
    step(make_balance(section("mgda"), network, tasks(2), backward), network, network.losses())
    expected = {"common": [0.2, 0.4], "first": [2, 2]}
    for key, value in expected.items():
        gradient = network.get_parameter(key).grad
        assert gradient is not None
        assert gradient.flatten().tolist() == pytest.approx(value)


def test_a_task_all_of_whose_weights_stand_still_is_passed_over() -> None:
    network = Vector(2)
    losses = network.losses(CONFLICT)
    step(make_balance(section("pcgrad"), network, tasks(2), backward), network, [losses[0].detach(), losses[1]])
    assert network.shared.grad is not None
    assert network.shared.grad.flatten().tolist() == [-1, 1]
