"""What `torch.fx` does not see: it is refused, or put down all the same."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gatedeploy as gd

TASKS = [gd.Task("depth"), gd.Task("normals")]
PICTURE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Between(nn.Module):
    """Two layers, and a function between them in training."""

    def __init__(self, function: Callable[[Tensor], Tensor], always: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.function, self.always = function, always

    def forward(self, x: Tensor) -> Any:
        x = self.first(x)
        if self.training or self.always:
            x = self.function(x)
        return self.second(x)


def half_the_time(x: Tensor) -> Tensor:
    return x * 2 if torch.rand(1).item() < 0.5 else x


def half_precision(x: Tensor) -> Tensor:
    with torch.autocast("cpu"):
        return F.conv2d(x, torch.ones(4, 4, 1, 1))


@pytest.mark.parametrize(
    ("function", "source"),
    [
        (lambda x: x + torch.randn(4, 1, 1), "PyTorch"),
        (lambda x: x[:, torch.randperm(4)], "PyTorch"),
        (half_the_time, "PyTorch"),
        (lambda x: x * float(np.random.rand() < 0.5), "NumPy"),
        (lambda x: x * 2 if random.random() < 0.5 else x, "Python"),
    ],
)
def test_chance_that_would_be_drawn_once_is_refused(function: Callable[[Tensor], Tensor], source: str) -> None:
    with pytest.raises(gd.InputError, match=rf"draws random numbers from {source}") as refused:
        gd.gate(Between(function), TASKS, example_input=PICTURE)
    assert re.search(r"test_surroundings\.py:\d+", str(refused.value))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * torch.rand(x.shape[0], 1, 1, 1),
        lambda x: x + torch.randn_like(x),
        lambda x: x * x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(0.5),
        F.dropout,
    ],
)
def test_chance_that_depends_on_the_picture_is_drawn_each_time(function: Callable[[Tensor], Tensor]) -> None:
    network = gd.gate(Between(function), TASKS, example_input=PICTURE).train()
    assert not torch.equal(network(PICTURE)["depth"], network(PICTURE)["depth"])


def test_automatic_precision_within_the_backbone_is_refused() -> None:
    with pytest.raises(gd.InputError, match=r"switches torch\.autocast.*around the network"):
        gd.gate(Between(half_precision), TASKS, example_input=PICTURE)


def test_automatic_precision_around_it_is_not() -> None:
    with torch.autocast("cpu"):
        gd.gate(Between(torch.relu), TASKS, example_input=PICTURE)


class Rounded(torch.autograd.Function):
    """Rounds, and hands gradients on as if it did not: its forward alone lets none through."""

    @staticmethod
    def forward(context: Any, x: Tensor, step: float) -> Tensor:
        return (x / step).round() * step

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Any:
        return gradients[0], None


def test_a_backward_pass_of_ones_own_stays() -> None:
    backbone = Between(lambda x: Rounded.apply(x, 0.25), always=True)
    before = torch.autograd.Function.__dict__["apply"]
    network = gd.gate(backbone, TASKS, example_input=PICTURE).train()
    assert torch.autograd.Function.__dict__["apply"] is before
    for site in network.sites:
        for task in TASKS:
            network.gate(site.name, task.name).choose([True, False, False, True])
    sum(prediction.square().mean() for prediction in network(PICTURE).values()).backward()
    for branch in ("depth", "normals", "shared"):
        gradient = network.branches.get_submodule(branch).get_parameter("first.weight").grad
        assert gradient is not None
        assert gradient.abs().max() > 0


def test_what_it_computes_collapses() -> None:
    backbone = Between(lambda x: Rounded.apply(x, 0.25), always=True)
    network = gd.gate(backbone, TASKS, example_input=PICTURE).eval()
    network.gate(network.sites[0].name, "depth").choose([True, False, False, True])
    thin = gd.collapse(network, example_input=PICTURE)
    with torch.no_grad():
        torch.testing.assert_close(thin(PICTURE), network(PICTURE))
