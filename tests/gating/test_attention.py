"""Gates on the heads of attention: where they stand, and that heads fall together when they collapse."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gatedeploy as gd
from gatedeploy.benchmarks.costs import count
from gatedeploy.gating.network import GatedNetwork
from tests.graph.small import calls, prepared

TASKS = [gd.Task(name, "classification", ("no", "yes")) for name in ("a", "b", "c")]
PICTURE = torch.randn(2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
HEADS = 4


class Attention(nn.Module):
    """Attention of 4 heads over the 16 patches of a picture; `attend` takes q, k, v (batch, heads, tokens, depth)."""

    def __init__(self, attend: Callable[[Tensor, Tensor, Tensor], Tensor], fused: bool = True) -> None:
        super().__init__()
        self.attend = attend
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.qkv = nn.Linear(8, 24) if fused else None
        self.layers = nn.ModuleList() if fused else nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.proj = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        if self.qkv is not None:
            q, k, v = self.qkv(tokens).reshape(-1, 16, 3, HEADS, 2).permute(2, 0, 3, 1, 4).unbind(0)
        else:
            q, k, v = (layer(tokens).reshape(-1, 16, HEADS, 2).transpose(1, 2) for layer in self.layers)
        return tokens + self.proj(self.attend(q, k, v).transpose(1, 2).reshape(-1, 16, 8))


def by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = F.dropout((q * 0.5 @ k.transpose(-2, -1) + 0.1).softmax(-1), 0.1, training=False)
    return weights @ v


WRITTEN: dict[str, Callable[[], nn.Module]] = {
    "one call, fused": lambda: Attention(F.scaled_dot_product_attention),
    "one call, three layers": lambda: Attention(F.scaled_dot_product_attention, fused=False),
    "by keyword": lambda: Attention(lambda q, k, v: F.scaled_dot_product_attention(query=q, value=v, key=k)),
    "by hand": lambda: Attention(by_hand),
    "by hand, three layers": lambda: Attention(by_hand, fused=False),
    "by methods": lambda: Attention(lambda q, k, v: q.matmul(k.transpose(-2, -1)).softmax(-1).matmul(v)),
}


def gated(backbone: nn.Module) -> GatedNetwork:
    torch.manual_seed(0)
    network = gd.gate(backbone, TASKS, example_input=PICTURE.float(), gates="head")
    for weight in network.weight_parameters():
        nn.init.normal_(weight, std=0.5)  # branches differ, as after training
    prepared(network)
    return network


def choose(network: GatedNetwork, task: str, heads: list[int], behind: bool) -> None:
    """The task's own heads, and whether it takes its own features behind them; the patches are shared."""
    for site in network.sites:
        own = [behind and site.name != "patch"] * site.channels
        if site.channels == HEADS:
            own = [head in heads for head in range(HEADS)]
        network.gate(site, task).choose(own)


@pytest.mark.parametrize("written", WRITTEN)
def test_q_k_and_v_share_one_gate_per_head(written: str) -> None:
    network = gated(WRITTEN[written]())
    on_heads = [site for site in network.sites if site.channels == HEADS]
    assert len(on_heads) == 3
    assert len({site.gate for site in on_heads}) == 1
    assert {(site.axis, site.group) for site in on_heads} == {(1, 1)}
    others = [site.channels for site in network.sites if site.channels != HEADS]
    assert others == [8, 8, 8]  # the patches, the projection, what is returned; none on q, k and v themselves


@pytest.mark.parametrize("written", WRITTEN)
def test_heads_collapse_exactly(written: str) -> None:
    network = gated(WRITTEN[written]())
    for task, heads in {"a": [0, 2], "b": [2], "c": []}.items():
        choose(network, task, heads, behind=task == "a")
    for target in (None, "cpu"):
        thin = gd.collapse(network, example_input=PICTURE, target=target)
        with torch.no_grad():
            for task, expected in network(PICTURE).items():
                torch.testing.assert_close(thin(PICTURE)[task], expected, rtol=1e-12, atol=1e-12)


def test_tasks_that_agree_have_one_attention() -> None:
    network = gated(Attention(F.scaled_dot_product_attention))
    for task in "abc":
        choose(network, task, [], behind=False)
    thin = gd.collapse(network, example_input=PICTURE)
    assert calls(thin.program).count("scaled_dot_product_attention") == 1
    cost = count(thin.network, thin.program.input)
    tokens, width = 16, 8
    assert cost.macs == tokens * (48 * width + 4 * width * width)
    assert cost.products == {"scaled_dot_product_attention": 2 * tokens * tokens * width}


def test_a_head_that_tasks_share_is_computed_once() -> None:
    """Task a owns head 0, b owns head 1, c none: of four heads each, six are left of twelve."""
    network = gated(Attention(F.scaled_dot_product_attention))
    for task, heads in {"a": [0], "b": [1], "c": []}.items():
        choose(network, task, heads, behind=True)
    thin = gd.collapse(network, example_input=PICTURE, target=None)
    cost = count(thin.network, thin.program.input)
    tokens, width, depth, computed = 16, 8, 2, HEADS + 2
    assert cost.macs == tokens * (48 * width + 3 * depth * computed * width + 3 * width * width)
    assert cost.products == {"scaled_dot_product_attention": 2 * tokens * tokens * depth * computed}


class Hidden(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.attention = nn.MultiheadAttention(8, HEADS, batch_first=True, add_zero_attn=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        attended: Tensor = self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return attended


@pytest.mark.parametrize(
    "backbone", [Hidden(), nn.Sequential(nn.Conv2d(3, 4, 1), nn.Softmax(1))], ids=["hidden", "none"]
)
def test_a_backbone_without_heads_to_gate(backbone: nn.Module) -> None:
    with pytest.raises(gd.InputError, match="gates='head': the backbone has no attention whose heads can be gated"):
        gd.gate(backbone, TASKS, example_input=PICTURE.float(), gates="head")


def test_gates_are_per_channel_or_per_head() -> None:
    with pytest.raises(gd.InputError, match="gates must be 'channel' or 'head' or 'soft' or 'drawn', got 'heads'"):
        gd.gate(Hidden(), TASKS, example_input=PICTURE.float(), gates="heads")
