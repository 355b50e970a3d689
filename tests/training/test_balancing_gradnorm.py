from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gatedeploy.errors import InputError
from gatedeploy.gating.multi_head import MultiHead
from gatedeploy.training.balancing import make_balance
from gatedeploy.training.gradnorm import LEAST, GradNorm
from tests.training.balances import Vector, backward, found, section, step, tasks

DIRECTIONS = [[3.0, 0.0], [0.0, 1.0]]


def gradnorm(network: nn.Module, count: int = 2, **keys: object) -> GradNorm:
    made = make_balance(section("gradnorm", **keys), network, tasks(count), backward)
    assert isinstance(made, GradNorm)
    return made


def test_weights_go_down_the_gradient_of_what_lengths_lack() -> None:
    """At first all rates are 1, so the target is the mean length, 2: the first is too long, the second too short."""
    network = Vector(2)
    balance = gradnorm(network)
    step(balance, network, network.losses(DIRECTIONS))
    assert network.shared.grad is not None
    assert network.shared.grad.tolist() == [[3, 1]]  # with the weights as they were
    assert balance.weights.grad is not None
    assert balance.weights.grad.tolist() == [3, -1]
    assert balance.weights.tolist() == pytest.approx([1 - 0.025, 1 + 0.025])  # Adam's first step; they add up to 2
    step(balance, network, network.losses(DIRECTIONS))
    assert network.shared.grad.tolist() == [pytest.approx([3 * 0.975, 1.025])]


@pytest.mark.parametrize(("alpha", "signs"), [(0.0, [3, -1]), (3.0, [-3, 1])])
def test_alpha_pulls_the_task_along_whose_loss_fell_less(alpha: float, signs: list[float]) -> None:
    """Losses fell to 1 and to 1/4 of the first ones: rates 1.6 and 0.4; lengths 3 and 1, their mean 2."""
    network = Vector(2)
    balance = gradnorm(network, alpha=alpha)
    first, second = network.losses(DIRECTIONS)
    step(balance, network, [first, second])
    with torch.no_grad():
        balance.weights.fill_(1.0)
    first, second = network.losses(DIRECTIONS)
    step(balance, network, [first, second - 0.75])
    assert balance.weights.grad is not None
    assert balance.weights.grad.tolist() == signs


def test_weights_add_up_to_the_number_of_tasks_and_stay_above_0() -> None:
    network = Vector(3)
    balance = gradnorm(network, 3, learning_rate=0.9)
    for _ in range(5):
        step(balance, network, network.losses([[50.0, 0.0], [0.0, 1.0], [0.1, 0.0]]))
        assert float(balance.weights.detach().sum()) == pytest.approx(3)
        assert float(balance.weights.detach().min()) > LEAST / 2
    assert float(balance.weights.detach()[0]) < 0.01


def test_a_loss_that_is_0_at_first_is_measured_from_the_first_that_is_not() -> None:
    network = Vector(2)
    balance = gradnorm(network)
    zero = network.losses([[3.0, 0.0], [0.0, 0.0]])
    step(balance, network, zero)
    assert balance.weights.isfinite().all()
    step(balance, network, network.losses(DIRECTIONS))
    assert balance.state()["first"].tolist() == [3, 1]
    assert balance.weights.isfinite().all()


class Layers(nn.Module):
    """Two layers for both tasks, a bias, and a last one for the first alone."""

    def __init__(self) -> None:
        super().__init__()
        self.early, self.late = nn.Linear(2, 2), nn.Linear(2, 2)
        self.own = nn.Linear(2, 2)
        self.heads = nn.ModuleDict({"task0": nn.Linear(2, 1), "task1": nn.Linear(2, 1)})

    def losses(self) -> list[Tensor]:
        shared = self.late(self.early(torch.ones(1, 2)))
        return [self.heads["task0"](self.own(shared)).square().sum(), self.heads["task1"](shared).square().sum()]


def lengths_at(weight: Tensor, losses: list[Tensor]) -> list[float]:
    return [float(torch.autograd.grad(loss, weight, retain_graph=True)[0].norm()) for loss in losses]


@pytest.mark.parametrize(("frozen", "layer"), [(None, "late"), ("late", "early")])
def test_lengths_are_taken_at_the_last_weight_that_all_losses_reach(frozen: str | None, layer: str) -> None:
    torch.manual_seed(1)
    network = Layers()
    if frozen:
        network.get_submodule(frozen).requires_grad_(False)
    balance = gradnorm(network)
    step(balance, network, network.losses())
    assert balance.weights.grad is not None
    lengths = lengths_at(network.get_parameter(f"{layer}.weight"), network.losses())
    assert balance.weights.grad.abs().tolist() == pytest.approx(lengths)


def test_of_a_shared_encoder_it_is_the_last_weight_of_the_backbone() -> None:
    torch.manual_seed(1)
    backbone = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    network = MultiHead(backbone, {f"task{number}": nn.Conv2d(3, 1, 1) for number in range(2)})
    pictures = torch.randn(2, 1, 4, 4)

    def losses() -> list[Tensor]:
        return [prediction.square().mean() for prediction in network(pictures).values()]

    balance = gradnorm(network)
    step(balance, network, losses())
    assert balance.weights.grad is not None
    lengths = lengths_at(network.get_parameter("backbone.1.weight"), losses())
    assert balance.weights.grad.abs().tolist() == pytest.approx(lengths, rel=1e-4)


def test_without_a_shared_weight_there_is_nothing_to_compare() -> None:
    network = Vector(2)
    network.shared.requires_grad_(False)
    sentence = r"^train\.balance gradnorm compares gradients at the last weight that all tasks share, and there is none"
    with pytest.raises(InputError, match=sentence):
        step(gradnorm(network), network, network.losses(DIRECTIONS))


def test_it_leaves_the_plain_weighted_gradient() -> None:
    torch.manual_seed(1)
    network = Layers()
    balance = gradnorm(network)
    with torch.no_grad():
        balance.weights.copy_(torch.tensor([0.5, 1.5]))
    step(balance, network, network.losses())
    actual: dict[str, Any] = found(network)
    one, two = network.losses()
    expected = torch.autograd.grad(0.5 * one + 1.5 * two, list(network.parameters()))
    for gradient, value in zip(actual.values(), expected, strict=True):
        torch.testing.assert_close(gradient, value)
