from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gatedeploy.training.auto_lambda import AutoLambda
from gatedeploy.training.balancing import make_balance
from tests.training.balances import backward, section, step, tasks
from tests.training.made_up import TASKS, Head, Noise, make_backbone

Maps = dict[str, Any]


def auto_lambda(network: nn.Module, count: int, **keys: object) -> AutoLambda:
    made = make_balance(section("auto_lambda", **keys), network, tasks(count), backward)
    assert isinstance(made, AutoLambda)
    return made


class Quadratic(nn.Module):
    """Losses (θ − a_t)ᵀ A_t (θ − a_t) / 2, where a batch is what a is shifted by; a head that the second alone has."""

    def __init__(self) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.place = nn.Parameter(torch.randn(3, generator=random, dtype=torch.float64))
        self.heads = nn.ParameterList([nn.Parameter(torch.ones((), dtype=torch.float64))])
        self.unread = nn.Parameter(torch.ones(2))
        self.centres = torch.randn(2, 3, generator=random, dtype=torch.float64)
        roots = torch.randn(2, 3, 3, generator=random, dtype=torch.float64)
        self.bends = roots @ roots.mT

    def losses(self, batch: Any) -> Tensor:
        away = self.place - self.centres - batch[0]
        own = self.heads[0] * self.place.sum()
        return torch.stack([away[0] @ self.bends[0] @ away[0] / 2, away[1] @ self.bends[1] @ away[1] / 2 + own])


BATCH: Any = (torch.tensor(0.0), {})
OTHER: Any = (torch.tensor(0.7), {})


def test_the_finite_difference_is_the_derivative_through_the_step() -> None:
    network, rate = Quadratic(), 0.05
    balance = auto_lambda(network, 2, start=0.3)
    balance.look_ahead(network.losses, BATCH, OTHER, rate)

    weights = torch.full((2,), 0.3, dtype=torch.float64, requires_grad=True)
    read = {name: weight for name, weight in network.named_parameters() if name != "unread"}
    gradients = torch.autograd.grad(weights @ network.losses(BATCH), list(read.values()), create_graph=True)
    moved = {
        f"of.{name}": weight - rate * gradient for (name, weight), gradient in zip(read.items(), gradients, strict=True)
    }
    ahead = torch.func.functional_call(_Called(network), moved, (OTHER,)).sum()
    (expected,) = torch.autograd.grad(ahead, weights)
    assert balance.weights.grad is not None
    torch.testing.assert_close(balance.weights.grad.double(), expected, rtol=1e-6, atol=0)
    assert balance.weights.tolist() == pytest.approx((0.3 - 1e-4 * expected.sign()).tolist())  # Adam's first step


class _Called(nn.Module):
    def __init__(self, of: Quadratic) -> None:
        super().__init__()
        self.of = of

    def forward(self, batch: Any) -> Tensor:
        return self.of.losses(batch)


def test_the_step_is_taken_along_the_weighted_losses() -> None:
    network = Quadratic()
    balance = auto_lambda(network, 2, start=0.3)
    with torch.no_grad():
        balance.weights.copy_(torch.tensor([0.5, -0.25]))
    step(balance, network, list(network.losses(BATCH)))
    expected = torch.autograd.grad(network.losses(BATCH) @ torch.tensor([0.5, -0.25]).double(), network.place)[0]
    torch.testing.assert_close(network.place.grad, expected)


class Made(nn.Module):
    """With batch norm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = make_backbone()
        self.heads = nn.ModuleDict({task.name: Head(task) for task in TASKS[2:]})

    def losses(self, batch: Any) -> Tensor:
        feature = self.backbone(batch[0])
        return torch.stack([(self.heads[name](feature) - batch[1][name]).abs().mean() for name in self.heads])


def test_looking_ahead_leaves_no_trace_in_the_network() -> None:
    torch.manual_seed(0)
    network = Made()
    batch, other = (Noise(8, seed).batch(range(8)) for seed in (1, 2))
    balance = auto_lambda(network, 2)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    drawn = torch.get_rng_state()
    balance.look_ahead(network.losses, batch, other, 0.1)
    assert balance.weights.tolist() != [pytest.approx(0.1, abs=1e-9)] * 2
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(torch.get_rng_state(), drawn)


def test_an_error_of_a_pass_leaves_the_network_as_it_was() -> None:
    network = Quadratic()
    before = network.place.detach().clone()

    def losses(batch: Any) -> Tensor:
        if not torch.is_grad_enabled():
            raise KeyboardInterrupt
        return network.losses(batch)

    with pytest.raises(KeyboardInterrupt):
        auto_lambda(network, 2).look_ahead(losses, BATCH, OTHER, 0.1)
    assert torch.equal(network.place, before)


def test_all_passes_draw_the_same_dropout() -> None:
    torch.manual_seed(0)
    network = Made()
    batch = Noise(8, 1).batch(range(8))
    seen = []
    network.backbone.get_submodule("3").register_forward_hook(lambda layer, given, out: seen.append(out == 0))
    balance = auto_lambda(network, 2)
    balance.look_ahead(network.losses, batch, batch, 1e-9)
    assert len(seen) == 4
    for other in seen[1:]:  # a rectified feature may cross 0 in the tiny steps, few do
        assert (seen[0] == other).double().mean() > 0.99


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_where_there_is_nothing_to_learn_weights_stay(value: float) -> None:
    network = Quadratic()
    balance = auto_lambda(network, 2)
    balance.look_ahead(lambda batch: value * network.losses(batch), BATCH, OTHER, 0.1)
    assert balance.weights.tolist() == pytest.approx([0.1, 0.1])


def test_only_auto_lambda_wants_another_batch() -> None:
    wants = {
        name: make_balance(section(name), Quadratic(), tasks(2), backward).needs_other_batch
        for name in ("sum", "random", "dwa", "uncertainty", "pcgrad", "cagrad", "mgda", "gradnorm", "auto_lambda")
    }
    assert [name for name, wanted in wants.items() if wanted] == ["auto_lambda"]
