"""Ways of balancing that look at losses alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from gatedeploy.training.balancing import make_balance
from tests.training.balances import (
    NO_PENALTY,
    Vector,
    assert_same,
    backward,
    found,
    section,
    shared_gradient,
    step,
    tasks,
)

DIRECTIONS = [[3.0, 0.0], [0.0, 4.0]]


def test_sum_is_what_autograd_says() -> None:
    network = Vector(2)
    step(make_balance(section("sum"), network, tasks(2), backward), network, network.losses(DIRECTIONS), NO_PENALTY)
    actual = found(network)
    first, second = network.losses(DIRECTIONS)
    network.zero_grad()
    (first + second).backward()
    assert_same(actual, found(network), near=False)


def test_random_weights_are_a_softmax_of_what_torch_draws() -> None:
    torch.manual_seed(5)
    weights = torch.randn(2, dtype=torch.float64).softmax(0)
    torch.manual_seed(5)
    drawn = shared_gradient("random", DIRECTIONS)
    assert drawn == pytest.approx([3 * weights[0], 4 * weights[1]])
    assert shared_gradient("random", DIRECTIONS) != drawn


def epochs(balance_of: list[list[list[float]]], temperature: float = 2.0) -> list[list[float]]:
    """The gradient of `shared` in each step of epochs whose losses are given."""
    network = Vector(2)
    balance = make_balance(section("dwa", temperature=temperature), network, tasks(2), backward)
    seen = []
    for epoch in balance_of:
        for losses in epoch:
            step(balance, network, network.losses([[losses[0], 0.0], [0.0, losses[1]]]))
            assert network.shared.grad is not None
            seen.append((network.shared.grad.flatten() / torch.tensor(losses).double().clamp_min(1e-9)).tolist())
        balance.end_epoch()
    return seen


def test_dwa_weighs_by_how_slowly_losses_fell_over_two_epochs() -> None:
    # Means 4 and 2, then 1 and 2: rates 1/4 and 1.
    weights = epochs([[[5.0, 1.0], [3.0, 3.0]], [[1.0, 2.0]], [[7.0, 7.0], [9.0, 9.0]]])
    low, high = math.exp(0.25 / 2), math.exp(1 / 2)
    later = pytest.approx([2 * low / (low + high), 2 * high / (low + high)])
    assert weights == [[1, 1], [1, 1], [1, 1], later, later]


def test_dwas_temperature_evens_the_weights_out() -> None:
    history = [[[4.0, 2.0]], [[1.0, 2.0]], [[1.0, 1.0]]]
    sharp, even = epochs(history, temperature=0.1)[-1], epochs(history, temperature=100.0)[-1]
    assert sharp == pytest.approx([0, 2], abs=0.01)
    assert even == pytest.approx([1, 1], abs=0.01)


def test_dwa_is_as_torchjds() -> None:
    from torchjd.scalarization import DWA

    torch.manual_seed(0)
    losses = torch.rand(4, 3, 2).add(0.1).tolist()
    theirs, expected = DWA(2.0), []
    for epoch in losses:
        for step_losses in epoch:
            values = torch.tensor(step_losses, requires_grad=True)
            expected.append(torch.autograd.grad(theirs(values), values)[0].tolist())
        theirs.step()
    assert epochs(losses) == [pytest.approx(weights) for weights in expected]


def test_a_loss_that_was_0_for_an_epoch_does_not_spoil_dwa() -> None:
    weights = epochs([[[0.0, 2.0]], [[1.0, 2.0]], [[1.0, 1.0]]])[-1]
    assert weights == pytest.approx([1, 1])


def test_uncertainty_learns_a_variance_for_each_task() -> None:
    network = Vector(2)
    balance = make_balance(section("uncertainty"), network, tasks(2), backward)
    (variances,) = balance.parameters()
    with torch.no_grad():
        variances.copy_(torch.tensor([0.0, math.log(4)]))
    step(balance, network, network.losses(DIRECTIONS))
    assert isinstance(network.shared.grad, Tensor)
    assert network.shared.grad.flatten().tolist() == pytest.approx([3 / 2, 4 / (2 * 4)])
    assert isinstance(variances.grad, Tensor)  # (1 − L_t / σ_t²) / 2
    assert variances.grad.tolist() == pytest.approx([(1 - 3) / 2, (1 - 4 / 4) / 2])


def test_only_uncertainty_has_something_for_the_optimiser() -> None:
    network = Vector(2)
    for name in ("sum", "random", "dwa", "pcgrad", "gradnorm", "auto_lambda"):
        assert list(make_balance(section(name), network, tasks(2), backward).parameters()) == []


@pytest.mark.parametrize("name", ["sum", "random", "dwa", "uncertainty", "gradnorm", "auto_lambda"])
def test_a_penalty_is_added_as_it_is(name: str) -> None:
    def gradient(penalised: bool) -> Tensor:
        torch.manual_seed(0)
        network = Vector(2)
        outside = nn.Parameter(torch.tensor(3.0, dtype=torch.float64))
        penalty = outside.square() * network.shared.sum() if penalised else outside.detach() * 0
        step(make_balance(section(name), network, tasks(2), backward), network, network.losses(DIRECTIONS), penalty)
        assert network.shared.grad is not None
        return network.shared.grad

    torch.testing.assert_close(gradient(True) - gradient(False), torch.full((1, 2), 9.0, dtype=torch.float64))
