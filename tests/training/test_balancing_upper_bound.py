"""MGDA-UB, on an encoder whose second feature is made of its first."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from gatedeploy.errors import InputError
from gatedeploy.gating.multi_head import MultiHead
from gatedeploy.training.balancing import make_balance
from tests.training.balances import assert_same, backward, found, section, step, tasks

UPPER_BOUND = section("mgda", upper_bound=True)


class Encoder(nn.Module):
    def __init__(self, wrap: Callable[[list[Tensor]], Any]) -> None:
        super().__init__()
        self.near, self.far = nn.Linear(2, 3), nn.Linear(3, 3)
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        near = self.near(x)
        return self.wrap([near, self.far(near.tanh())])


class Reader(nn.Module):
    """A scalar of both features."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3))

    def forward(self, features: Any) -> Tensor:
        near, far = features.values() if isinstance(features, dict) else features
        far = far[0] if isinstance(far, list) else far
        return (near.square() @ self.weight).sum() + (far @ self.weight).tanh().sum()


def made(wrap: Callable[[list[Tensor]], Any] = tuple) -> tuple[MultiHead, Tensor]:
    torch.manual_seed(3)
    network = MultiHead(Encoder(wrap), {f"task{number}": Reader() for number in range(2)}).double()
    return network, torch.randn(5, 2, dtype=torch.float64)


def test_it_weighs_by_gradients_at_the_features_and_leaves_heads_alone() -> None:
    network, pictures = made()
    step(make_balance(UPPER_BOUND, network, tasks(2), backward), network, list(network(pictures).values()))
    actual = found(network)

    network = copy.deepcopy(network)
    features = network.backbone(pictures)
    leaves = [feature.detach().requires_grad_() for feature in features]
    losses = [head(leaves) for head in network.heads.values()]
    one, two = (torch.autograd.grad(loss, leaves, retain_graph=True) for loss in losses)
    first, second = (torch.cat([part.flatten() for part in parts]) for parts in (one, two))
    share = float((second @ (second - first) / (first - second).square().sum()).clamp(0, 1))
    assert 0.05 < share < 0.95, "the test should find a point between the two"
    network.zero_grad()
    torch.autograd.backward(
        features, [share * left + (1 - share) * right for left, right in zip(one, two, strict=True)]
    )
    sum(losses[1:], losses[0]).backward()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(actual[name], parameter.grad, rtol=1e-5, atol=1e-8)


class Both(NamedTuple):
    near: Tensor
    far: Tensor


def test_features_may_come_in_any_container() -> None:
    expected = None
    wraps: list[Callable[[list[Tensor]], Any]] = [tuple, list, lambda features: (features[0], features[1:])]
    for wrap in (*wraps, lambda features: Both(*features), lambda features: dict(enumerate(features))):
        network, pictures = made(wrap)
        step(make_balance(UPPER_BOUND, network, tasks(2), backward), network, list(network(pictures).values()))
        expected = expected or found(network)
        assert_same(found(network), expected)


def test_the_encoder_is_gone_through_once() -> None:
    network, pictures = made()
    passes: list[Tensor] = []
    network.get_parameter("backbone.near.weight").register_hook(passes.append)
    for name, expected in (("upper bound", 1), ("plain", 2)):
        passes.clear()
        balance = make_balance(section("mgda", upper_bound=name == "upper bound"), network, tasks(2), backward)
        step(balance, network, list(network(pictures).values()))
        assert len(passes) == expected
        del balance
        gc.collect()


def test_a_frozen_encoder_leaves_the_heads_to_learn() -> None:
    network, pictures = made()
    network.backbone.requires_grad_(False)
    step(make_balance(UPPER_BOUND, network, tasks(2), backward), network, list(network(pictures).values()))
    gradients = found(network)
    assert {name for name, gradient in gradients.items() if gradient is not None} == {
        "heads.task0.weight",
        "heads.task1.weight",
    }


def test_evaluation_and_what_comes_after_training_see_nothing_of_it() -> None:
    network, pictures = made()
    plain = network.eval()(pictures)
    balance = make_balance(UPPER_BOUND, network, tasks(2), backward)
    with torch.no_grad():
        watched = network(pictures)
    assert all(torch.equal(watched[name], plain[name]) for name in plain)
    assert len(network.backbone._forward_hooks) == 1
    del balance
    gc.collect()
    assert len(network.backbone._forward_hooks) == 0


def test_it_needs_one_encoder() -> None:
    sentence = (
        r"^train\.balance\.upper_bound: compares gradients at what one encoder returns to all heads, and a Linear has "
        r"no such place; take upper_bound: false$"
    )
    with pytest.raises(InputError, match=sentence):
        make_balance(UPPER_BOUND, nn.Linear(1, 1), tasks(2), backward)
