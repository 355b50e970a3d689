from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gatedeploy.lowering import PASSES
from gatedeploy.passes.share_duplicates import ShareDuplicates
from tests.graph.small import Net, all_of, calls, collapsed, gate, lowered, the

TURNS = [1, 0, 0, 1, 1, 0, 1, 0, 0, 1, 0, 1]
"""A gate's choices: more changes than slices are cut."""


def tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def behind_a_gate(normed: Any, **parts: nn.Module | Tensor) -> Net:
    """Tokens of which some channels are a task's own and some shared, `normed(network, tokens)`, a layer."""

    def run(n: Net, x: Tensor) -> Tensor:
        x = tokens(x)
        return n.last(normed(n, n.gate(n.one(x), n.shared(x))))

    layers = {"one": nn.Linear(3, 12), "shared": nn.Linear(3, 12), "last": nn.Linear(12, 2)}
    return Net(run, **layers, gate=gate(*TURNS, axis=2), **parts)


@pytest.mark.parametrize(
    ("norm", "name"),
    [
        (lambda n, y: F.layer_norm(y, (12,), n.scale, n.shift), "layer_norm"),
        (lambda n, y: F.layer_norm(y, (12,)), "layer_norm"),
        (lambda n, y: F.rms_norm(y, (12,), n.scale), "rms_norm"),
    ],
    ids=["with weights", "without", "rms"],
)
def test_tensors_are_joined_as_they_lie(norm: Any, name: str) -> None:  # 1
    weights = {"scale": nn.Parameter(torch.rand(12)), "shift": nn.Parameter(torch.rand(12))}
    thin = collapsed(behind_a_gate(norm, **weights))
    assert calls(thin.program) == ["flatten", "transpose", "linear", "linear", "cat", name, "linear"]


@pytest.mark.parametrize(
    "norm",
    [
        lambda n, y: F.layer_norm(y, (64, 12)),
        lambda n, y: F.layer_norm(y, (12,), y.mean((0, 1))),
        lambda n, y: F.layer_norm(y.reshape(-1, 64, 3, 4).flatten(2), (12,)) + y.softmax(-1),
    ],
    ids=["over tokens too", "weights that are computed", "of which another wants the order"],
)
def test_what_cares_for_the_order_gets_it(norm: Any) -> None:  # 1
    assert "index_select" in calls(collapsed(behind_a_gate(norm)).program)


def test_a_channel_may_come_twice() -> None:
    def norm(n: Net, y: Tensor) -> Tensor:
        return F.layer_norm(torch.cat([y[..., 1:], y[..., 3:4]], -1), (12,), n.scale)

    assert "index_select" not in calls(collapsed(behind_a_gate(norm, scale=nn.Parameter(torch.rand(12)))).program)


def test_results_follow() -> None:
    """Behind the norm a gate chooses channel by channel, and one is cut out."""
    norm = nn.LayerNorm(12)

    def run(n: Net, y: Tensor) -> Tensor:
        normed = n.norm(y)
        return n.again(normed, y) * normed[..., 5:6]

    collapsed(behind_a_gate(run, norm=norm, again=gate(*TURNS[::-1], axis=2)))


def test_equal_norms_of_other_tokens_are_two() -> None:
    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        one, two = n.one(tokens(x)), n.two(tokens(x))
        return {"one": n.norm(one), "two": n.norm(two), "again": n.norm(one)}

    network = Net(run, one=nn.Linear(3, 12), two=nn.Linear(3, 12), norm=nn.LayerNorm(12))
    assert len(all_of(lowered(network, ShareDuplicates), "layer_norm")) == 2
    collapsed(network)


def test_a_norm_of_a_norm_follows_it() -> None:
    thin = collapsed(behind_a_gate(lambda n, y: n.norm(n.norm(y)), norm=nn.LayerNorm(12)))
    assert "index_select" not in calls(thin.program)


def test_all_of_it_is_needed() -> None:
    """Of what a norm makes one channel is read: it needs all that it reads."""
    graph = lowered(behind_a_gate(lambda n, y: n.pick(n.norm(y)), norm=nn.LayerNorm(12), pick=Pick()), PASSES[-1])
    assert len(the(graph, "layer_norm").output.ids) == 12


class Pick(nn.Module):
    def forward(self, y: Tensor) -> Tensor:
        return y[..., :1].expand(-1, -1, 12)
