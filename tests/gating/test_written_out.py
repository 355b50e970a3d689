"""Attention and encoders of `torch.nn` are looked into: gates stand inside, and they are what they were."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gatedeploy as gd
from gatedeploy.benchmarks.costs import count

WIDTH, HEADS = 8, 2
TASKS = [gd.Task("depth"), gd.Task("normals")]
PICTURES = torch.randn(2, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Module = Callable[[], Any]
Use = Callable[[Any, Tensor], Any]


class Patches(nn.Module):
    """A module, used on the 9 patches of a picture, (batch, 9, 8)."""

    def __init__(self, make: Module, use: Use) -> None:
        super().__init__()
        self.patch, self.inside, self.use = nn.Conv2d(3, WIDTH, 4, 4), make(), use
        self.other = nn.Linear(WIDTH, 4)
        self.register_buffer("mask", torch.ones(9, 9).tril().log())

    def forward(self, x: Tensor) -> Any:
        return self.use(self, self.patch(x).flatten(2).transpose(1, 2))


def attention(**options: Any) -> Module:
    return lambda: nn.MultiheadAttention(WIDTH, HEADS, **{"batch_first": True, **options})


def layer(**options: Any) -> Module:
    return lambda: nn.TransformerEncoderLayer(WIDTH, HEADS, 12, 0.0, batch_first=True, **options)


def to_itself(net: Any, x: Tensor) -> Any:
    return x + net.inside(x, x, x, need_weights=False)[0]


def with_weights(net: Any, x: Tensor) -> Any:
    attended, weights = net.inside(x, x, x)
    return attended, weights @ x


def of_each_head(net: Any, x: Tensor) -> Any:
    attended, weights = net.inside(query=x, key=x, value=x, average_attn_weights=False)
    return attended, weights.amax(1) @ x


def tokens_first(net: Any, x: Tensor) -> Any:
    x = x.transpose(0, 1)
    return net.inside(x, x, x, need_weights=False)[0].transpose(0, 1)


def to_other_values(net: Any, x: Tensor) -> Any:
    placed = x + 0.1
    return net.inside(placed, placed, x, need_weights=False)[0]


def to_others(net: Any, x: Tensor) -> Any:
    other = torch.relu(x[:, ::2])
    return net.inside(x, other, other, need_weights=False)[0]


def to_others_of_four(net: Any, x: Tensor) -> Any:
    other = net.other(x)
    return net.inside(x, other, other, need_weights=False)[0]


def masked(net: Any, x: Tensor) -> Any:
    return net.inside(x, x, x, attn_mask=net.mask, need_weights=False)[0]


def forbidden(net: Any, x: Tensor) -> Any:
    return net.inside(x, x, x, attn_mask=net.mask < 0, need_weights=False)[0]


def forbidden_with_weights(net: Any, x: Tensor) -> Any:
    return net.inside(x, x, x, attn_mask=net.mask < 0)[0]


def masked_with_weights(net: Any, x: Tensor) -> Any:
    return net.inside(x, x, x, attn_mask=net.mask)[0]


def called(net: Any, x: Tensor) -> Any:
    return net.inside(x)


def called_with_mask(net: Any, x: Tensor) -> Any:
    return net.inside(x, net.mask)


def encoded_with_mask(net: Any, x: Tensor) -> Any:
    return net.inside(x, net.mask, is_causal=False)  # else it looks into the mask for itself


def twice(net: Any, x: Tensor) -> Any:
    return to_itself(net, to_itself(net, x))


def padded(net: Any, x: Tensor) -> Any:
    return net.inside(x, x, x, key_padding_mask=x[:, :, 0] > 1e9, need_weights=False)[0]


def without_a_batch(net: Any, x: Tensor) -> Any:
    one = x.mean(0)
    return x + net.inside(one, one, one, need_weights=False)[0]


# How it is written, and how many sites there are: the patches and what is returned are two of them.
FOLLOWED: dict[str, tuple[Module, Use, int]] = {
    "self": (attention(), to_itself, 4),
    "no bias": (attention(bias=False), to_itself, 4),
    "dropped": (attention(dropout=0.1), to_itself, 4),
    "tokens first": (attention(batch_first=False), tokens_first, 4),
    "weights": (attention(), with_weights, 4),
    "weights of each head": (attention(), of_each_head, 4),
    "weights, dropped": (attention(dropout=0.1), with_weights, 4),
    "other values": (attention(), to_other_values, 5),
    "others": (attention(), to_others, 5),
    "others of four channels": (attention(kdim=4, vdim=4), to_others_of_four, 6),
    "mask": (attention(), masked, 3),
    "mask of flags": (attention(), forbidden, 3),
    "mask of flags, weights": (attention(), forbidden_with_weights, 3),
    "mask, weights": (attention(), masked_with_weights, 3),
    "called twice": (attention(dropout=0.1), twice, 6),
    "layer": (layer(), called, 6),
    "layer, norm first": (layer(norm_first=True), called, 6),
    "layer, mask": (layer(activation="gelu"), called_with_mask, 6),
    "encoder": (lambda: nn.TransformerEncoder(layer()(), 2), called, 10),
    "encoder, mask": (lambda: nn.TransformerEncoder(layer()(), 1, norm=nn.LayerNorm(WIDTH)), encoded_with_mask, 6),
}
WHOLE: dict[str, tuple[Module, Use]] = {
    "further keys": (attention(add_bias_kv=True), to_itself),
    "a key of zeros": (attention(add_zero_attn=True), to_itself),
    "padding": (attention(), padded),
    "no batch": (attention(), without_a_batch),
}


def gated(make: Module, use: Use, **options: Any) -> tuple[nn.Module, gd.GatedNetwork]:
    """A backbone, and a network gated by it: the first task's branch is the backbone, the second is all shared."""
    torch.manual_seed(0)
    backbone = Patches(make, use).double().eval()
    network = gd.gate(backbone, TASKS, example_input=PICTURES, **options).eval()
    network.load_branch("depth", backbone.state_dict())
    network.load_branch("shared", {name: weight * 1.1 for name, weight in backbone.state_dict().items()})
    for site in network.sites:
        network.gate(site, "depth").choose([True] * site.channels)
        network.gate(site, "normals").choose([False] * site.channels)
    return backbone, network


def assert_equal(got: Any, expected: Any) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("written", FOLLOWED)
def test_gated_it_is_what_it_was(written: str) -> None:
    make, use, _ = FOLLOWED[written]
    backbone, network = gated(make, use)
    with torch.no_grad():
        assert_equal(network(PICTURES)["depth"], backbone(PICTURES))


@pytest.mark.parametrize("written", [name for name in FOLLOWED if name not in ("dropped", "weights, dropped")])
def test_gradients_are_what_they_were(written: str) -> None:
    make, use, _ = FOLLOWED[written]
    if written == "called twice":
        make = attention()
    backbone, network = gated(make, use)
    branch = network.branches.get_submodule("depth")
    for run, owner in ((backbone, backbone), (network, branch)):
        found = run.train()(PICTURES)
        found = found["depth"] if owner is branch else found
        loss = sum(part.square().sum() for part in (found if isinstance(found, tuple) else (found,)))
        loss.backward()
    expected = {name: weight.grad for name, weight in backbone.named_parameters() if weight.grad is not None}
    got = {name: weight.grad for name, weight in branch.named_parameters()}
    assert len(expected) >= 4
    for name, gradient in expected.items():
        assert_equal(got[name], gradient)


@pytest.mark.parametrize("written", FOLLOWED)
def test_gates_stand_inside_and_it_collapses(written: str) -> None:
    make, use, sites = FOLLOWED[written]
    _, network = gated(make, use)
    assert len(network.sites) == sites, [site.name for site in network.sites]
    torch.manual_seed(1)
    for site in network.sites:
        for task in ("depth", "normals"):
            network.gate(site, task).choose((torch.rand(site.channels) < 0.5).tolist())
    thin = gd.collapse(network, example_input=PICTURES, target=None)
    with torch.no_grad():
        for task, expected in network(PICTURES).items():
            assert_equal(thin(PICTURES)[task], expected)


@pytest.mark.parametrize("written", WHOLE)
def test_what_is_not_written_out_is_taken_whole(written: str) -> None:
    backbone, network = gated(*WHOLE[written])
    with torch.no_grad():
        assert_equal(network(PICTURES)["depth"], backbone(PICTURES))


def test_a_leaf_is_not_looked_into() -> None:
    _, network = gated(attention(), to_itself, leaf_modules=[nn.MultiheadAttention])
    assert [site.channels for site in network.sites] == [WIDTH, WIDTH]


def test_tasks_that_agree_on_a_head_compute_it_once() -> None:
    """Gates per head: one of the two heads is shared by both tasks, the other is each one's own."""
    _, network = gated(attention(), to_itself, gates="head")
    for site in network.sites:
        for task in ("depth", "normals"):
            own = [True, False] if site.channels == HEADS else [site.name != "patch"] * site.channels
            network.gate(site, task).choose(own)
    thin = gd.collapse(network, example_input=PICTURES, target=None)
    tokens, depth, computed = 9, WIDTH // HEADS, 3  # each task's own, and the shared one
    assert sum(count(thin.network, thin.program.input).products.values()) == 2 * tokens * tokens * depth * computed
