"""Tokens of several tensors: joined once for all who gather from them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.graph.small import Net, calls, collapsed, gate

TURNS = [1, 0, 0, 1, 1, 0, 1, 0, 0, 1, 0, 1]
"""A gate's choices: more changes than slices are cut."""


def tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def streams(run: Any) -> Net:
    """Two tasks' tokens and shared ones, 12 channels each, of which a softmax wants each in the order of its gate."""
    layers = {name: nn.Linear(3, 12) for name in ("shared", "one", "two")}
    gates = {f"gate_{name}": gate(*choices, axis=2) for name, choices in (("a", TURNS), ("b", TURNS[::-1]))}
    return Net(run, **layers, **gates, soft=nn.Softmax(-1))


def gathers(network: Net) -> list[str]:
    return [name for name in calls(collapsed(network).program) if name in ("cat", "transpose", "index_select", "slice")]


def test_tensors_that_are_read_together_are_joined_once() -> None:
    """Task one reads its own channels and shared ones, task two likewise: one join and one turn for both."""

    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        x = tokens(x)
        shared, one, two = n.shared(x), n.one(x), n.two(x)
        return {"one": n.soft(n.gate_a(one, shared)), "two": n.soft(n.gate_b(two, shared))}

    of_tokens = ["transpose"]
    joined = ["cat", "transpose"]
    gathered = ["index_select", "transpose"]
    assert gathers(streams(run)) == [*of_tokens, *joined, *gathered, *gathered]


def test_what_is_not_made_yet_is_joined_later() -> None:
    """Task two's tokens are made from task one's: they cannot be joined before."""

    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        x = tokens(x)
        shared, one = n.shared(x), n.one(x)
        first = n.soft(n.gate_a(one, shared))
        return {"one": first, "two": n.soft(n.gate_b(n.two(first[..., :3]), shared))}

    assert gathers(streams(run)).count("cat") == 2


def test_channels_of_one_tensor_come_from_the_pool_that_holds_it() -> None:
    """Shared tokens are read in two orders, and in a third along with a task's: turned once, for all."""

    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        x = tokens(x)
        shared, one = n.shared(x), n.one(x)
        channels = shared.split(1, -1)
        evens, odds = torch.cat(channels[::2] + channels[1::2], -1), torch.cat(channels[1::2] + channels[::2], -1)
        return {"mixed": n.soft(n.gate_a(one, shared)), "evens": n.soft(evens), "odds": n.soft(odds)}

    assert gathers(streams(run)) == ["transpose", "cat", "transpose", *["index_select", "transpose"] * 3]
