"""Gates behind whole encoders and behind decoders: Safe MTL as `gate` makes it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gatedeploy as gd
from gatedeploy.graph.capture import capture
from gatedeploy.graph.shares import site_shares
from tests.graph.small import prepared

TASKS = (gd.Task("depth"), gd.Task("parts"))
EXAMPLE = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Pyramid(nn.Module):
    """Returns two features, of which the second is made of the first."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(3, 6, 3, 1, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.coarse = nn.Sequential(nn.Conv2d(6, 5, 3, 2, 1), nn.ReLU())

    def forward(self, image: Tensor) -> Any:
        fine = self.fine(image)
        return fine, self.coarse(fine)


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(6, 2, 1), nn.Conv2d(5, 2, 1)

    def forward(self, features: tuple[Tensor, Tensor]) -> Any:
        return self.fine(features[0]).mean((2, 3)) + self.coarse(features[1]).mean((2, 3))


def safe(sites: str, gates: str) -> gd.GatedNetwork:
    """Every branch and every head with weights of its own."""
    torch.manual_seed(0)
    heads = {task.name: Head() for task in TASKS}
    network = gd.gate(Pyramid(), TASKS, example_input=EXAMPLE.float(), heads=heads, sites=sites, gates=gates)
    for parameter in network.weight_parameters():
        nn.init.normal_(parameter, std=0.3)
    prepared(network)
    return network


def set_gates(network: gd.GatedNetwork, own: Sequence[float]) -> None:
    """How much of its own each task takes."""
    for gate, share in zip(network.whole_gates().values(), own, strict=True):
        if isinstance(gate, gd.SoftGate):
            nn.init.constant_(gate.weight, share)
        else:
            nn.init.constant_(gate.gate_logits, share - 0.5)


def by_hand(network: gd.GatedNetwork, own: Sequence[float], late: bool) -> dict[str, Tensor]:
    branches: Any = network.branches
    found = {}
    public = branches.shared(EXAMPLE)
    for (name, head), share in zip(network.heads.named_children(), own, strict=True):
        private = getattr(branches, name)(EXAMPLE)
        if late:
            found[name] = share * head(private) + (1 - share) * getattr(network.public_heads, name)(public)
        else:
            features = zip(private, public, strict=True)
            found[name] = head(tuple(share * mine + (1 - share) * ours for mine, ours in features))
    return found


@pytest.mark.parametrize("sites", ["encoder", "decoder"])
@pytest.mark.parametrize("own", list(itertools.product([0.0, 0.3, 1.0], repeat=2)))
def test_soft_gates_blend_what_whole_branches_make(sites: str, own: tuple[float, ...]) -> None:
    network = safe(sites, "soft")
    set_gates(network, own)
    expected = by_hand(network, own, sites == "decoder")
    for name, prediction in network(EXAMPLE).items():
        torch.testing.assert_close(prediction, expected[name], rtol=1e-12, atol=1e-12)
    assert [gate.public for gate in network.whole_gates().values()] == pytest.approx([1 - share for share in own])
    assert list(network.specific_share().values()) == pytest.approx(list(own))
    gd.collapse(network, example_input=EXAMPLE)


@pytest.mark.parametrize("sites", ["encoder", "decoder"])
@pytest.mark.parametrize("own", list(itertools.product([0.0, 1.0], repeat=2)))
def test_drawn_gates_take_one_or_the_other(sites: str, own: tuple[float, ...]) -> None:
    network = safe(sites, "drawn")
    set_gates(network, own)
    expected = by_hand(network, own, sites == "decoder")
    for name, prediction in network(EXAMPLE).items():
        torch.testing.assert_close(prediction, expected[name], rtol=1e-12, atol=1e-12)
    thin = gd.collapse(network, example_input=EXAMPLE, target=None)
    assert thin.report is not None
    encoder = 3 * 6 * 9 * 64 + 6 * 5 * 9 * 16
    head = 6 * 2 * 64 + 5 * 2 * 16
    assert thin.report.collapsed.macs == (sum(map(int, own)) + (not all(own))) * encoder + 2 * head


@pytest.mark.parametrize("sites", ["encoder", "decoder"])
@pytest.mark.parametrize("gates", ["soft", "drawn"])
def test_everything_learns(sites: str, gates: str) -> None:
    torch.manual_seed(1)
    network = safe(sites, gates).train()
    for _ in range(6):  # a gate that draws teaches one of the two at a time
        sum(prediction.square().sum() for prediction in network(EXAMPLE).values()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
    kinds = {id(parameter) for parameter in network.gate_parameters()}
    assert len(kinds) == 2
    assert kinds.isdisjoint(map(id, network.weight_parameters()))
    assert len(kinds) + len(list(network.weight_parameters())) == len(list(network.parameters()))


def test_the_shared_branch_has_decoders_of_its_own_behind_which_gates_stand() -> None:
    assert [name for name, _ in safe("decoder", "soft").public_heads.named_children()] == ["depth", "parts"]
    assert not list(safe("encoder", "soft").public_heads.children())
    assert not list(safe("encoder", "soft").mixes.children())


def test_without_heads_the_blended_features_are_predicted() -> None:
    network = gd.gate(Pyramid(), TASKS, example_input=EXAMPLE.float(), sites="encoder", gates="soft")
    fine, coarse = network(EXAMPLE.float())["depth"]
    assert (fine.shape[1], coarse.shape[1]) == (6, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"sites": "encoder"},
            "gates='channel' behind whole encoders or decoders is in no paper; the nearest",
        ),
        ({"sites": "decoder", "gates": "head"}, "gates='head' behind whole encoders or decoders is in no paper"),
        ({"gates": "soft"}, "gates='soft' inside a backbone is in no paper; the nearest is sites='encoder' or"),
        ({"sites": ["relu"], "gates": "drawn"}, "gates='drawn' inside a backbone is in no paper"),
        ({"sites": "encoder", "gates": "soft", "group": 2}, "group and tie are of channels; a gate behind an encoder"),
        ({"sites": "encoder", "gates": "soft", "tie": "residual"}, "group and tie are of channels"),
        ({"sites": "decoder", "gates": "soft"}, "sites='decoder' stands behind heads, and there are none"),
        ({"sites": "end", "gates": "soft"}, "sites must be 'auto', 'encoder', 'decoder' or a list of names, got 'end'"),
        ({"gates": "gumbel"}, "gates must be 'channel' or 'head' or 'soft' or 'drawn', got 'gumbel'"),
    ],
)
def test_gates_that_no_paper_defines_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(gd.InputError, match=message):
        gd.gate(Pyramid(), TASKS, example_input=EXAMPLE.float(), **options)


@pytest.mark.parametrize("name", ["encoder", "decoder"])
@pytest.mark.parametrize("sites", ["auto", "named"])
def test_layers_that_are_called_as_ends_are_gated_like_any_other(name: str, sites: str) -> None:
    backbone = nn.Sequential()
    backbone.add_module(name, nn.Conv2d(3, 6, 1))
    backbone.add_module("last", nn.Conv2d(6, 5, 1))
    network = gd.gate(backbone, TASKS, example_input=EXAMPLE.float(), sites=[name] if sites == "named" else "auto")
    assert [site.name for site in network.sites] == [name, "last"][: len(network.sites)]
    assert network.gate(name, "depth").channels == 6
    assert (network.whole_gates(), list(network.public_heads.children())) == ({}, [])
    prepared(network)
    gd.collapse(network, example_input=EXAMPLE)
    assert {site.site: site.channels for site in site_shares(capture(network, EXAMPLE))}[name] == 6
