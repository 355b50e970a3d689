from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gatedeploy.gating.network import GatedNetwork
from gatedeploy.training.optimisers import Optimisers
from gatedeploy.training.stages import gated_network
from tests.training.made_up import TASKS, parts, recipe

RATE = 0.01


def network() -> GatedNetwork:
    torch.manual_seed(0)
    return gated_network(recipe(), parts(), TASKS, {})


def backward(net: GatedNetwork, scaler: torch.amp.GradScaler | None = None) -> None:
    loss = sum((value.square().mean() for value in net(torch.ones(4, 3, 8, 8)).values()), torch.zeros(()))
    (scaler.scale(loss) if scaler else loss).backward()


def gates(net: GatedNetwork) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in net.gate_parameters()]


def test_gates_take_plain_gradient_steps_of_their_own_rate() -> None:
    net = network()
    optimisers = Optimisers(net, recipe(gates={"learning_rate": 0.5}))
    before = gates(net)
    optimisers.prepare(RATE, gates_move=True)
    backward(net)
    gradients = [parameter.grad for parameter in net.gate_parameters()]
    optimisers.step()
    for parameter, start, gradient in zip(net.gate_parameters(), before, gradients, strict=True):
        assert gradient is not None
        torch.testing.assert_close(parameter.detach(), start - 0.5 * gradient)


def test_gates_that_stand_still_get_no_gradient() -> None:
    net = network()
    optimisers = Optimisers(net, recipe())
    optimisers.prepare(RATE, gates_move=False)
    backward(net)
    assert all(parameter.grad is None for parameter in net.gate_parameters())
    assert any(parameter.grad is not None for parameter in net.weight_parameters())


def test_scaled_gradients_give_the_same_step() -> None:
    results = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=1024.0)):
        net = network()
        optimisers = Optimisers(net, recipe(), scaler)
        for gates_move in (True, False):
            optimisers.prepare(RATE, gates_move)
            backward(net, scaler)
            optimisers.step()
        results.append(net.state_dict())
    for name, expected in results[0].items():
        torch.testing.assert_close(results[1][name], expected)


def test_heads_learn_at_a_rate_of_their_own() -> None:
    """Adam's first step is as long as the learning rate, whatever the gradient."""
    net = network()
    optimisers = Optimisers(net, recipe(train={"learning_rate": 1.0, "head_learning_rate": 10.0, "weight_decay": 0}))
    before = {name: weight.detach().clone() for name, weight in net.named_parameters()}
    optimisers.prepare(RATE, gates_move=False)
    backward(net)
    optimisers.step()
    moved = {"heads": 0.0, "branches": 0.0}
    for name, weight in net.named_parameters():
        part = name.split(".")[0]
        if part in moved:
            moved[part] = max(moved[part], float((weight.detach() - before[name]).abs().max()))
    assert moved["branches"] == pytest.approx(RATE, rel=1e-3)
    assert moved["heads"] == pytest.approx(10 * RATE, rel=1e-3)
