"""Gates that stand still: what lost at them is left out of training, which ends where it would have with all of it."""

from __future__ import annotations

import copy
import io
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from gatedeploy.gating.network import GatedNetwork
from gatedeploy.training import loop
from gatedeploy.training.journal import Journal
from gatedeploy.training.live import train_live
from gatedeploy.training.loop import fit
from gatedeploy.training.pieces import NotLiveError
from gatedeploy.training.snapshots import read_snapshot
from tests.backbones import (
    ActThenNorm,
    Bottlenecks,
    Dense,
    Grouped,
    Inception,
    InvertedResidual,
    PreActivation,
    Residual,
    SqueezeExcite,
    UNet,
)
from tests.gate_patterns import set_gates
from tests.odd_backbones import CalledTwice, Repeated, Shuffle, Split, Tokens
from tests.structures import Structure
from tests.training.made_up import recipe, without_dropout
from tests.training.test_loop import gated_run

STRUCTURES = [
    Structure(ActThenNorm, 2),
    Structure(Residual, 3, {"tie": "residual"}),
    Structure(Bottlenecks, 4, head=lambda: nn.Linear(6, 2)),
    Structure(PreActivation, 2),
    Structure(InvertedResidual, 2),
    Structure(Dense, 2, {"group": 2}),
    Structure(Inception, 3),
    Structure(UNet, 3, head=lambda: nn.Conv2d(4, 2, 1)),
    Structure(SqueezeExcite, 2),
    Structure(CalledTwice, 3),
    Structure(Grouped, 2),
    Structure(Shuffle, 2),
    Structure(Split, 3),
    Structure(Tokens, 2),
    Structure(PreActivation, 3, head=lambda: nn.Sequential(nn.Dropout(0.5), nn.Conv2d(4, 2, 1))),
]
PICTURES = torch.randn(4, 6, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


RESIDUAL = Structure(Residual, 2)


@cache
def built(structure: Structure) -> GatedNetwork:
    network = structure.build()
    assert isinstance(network, GatedNetwork)
    return network


def gated(structure: Structure, pattern: str = "random, half") -> GatedNetwork:
    """A network in float64 that is in training and whose gates stand still."""
    network = copy.deepcopy(built(structure)).double().train()
    set_gates(network, pattern)
    for parameter in network.gate_parameters():
        parameter.requires_grad_(False)
    return network


def train(network: GatedNetwork) -> list[Tensor]:
    """Three steps, whose dropout is always the same; what it predicts of other pictures after them."""
    torch.manual_seed(5)
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimiser = torch.optim.SGD(learning, 0.01, momentum=0.9, weight_decay=0.1)
    for images in PICTURES[:3]:
        optimiser.zero_grad()
        torch.stack([leaf.square().sum() for leaf in pytree.tree_leaves(network(images))]).sum().backward()
        optimiser.step()
    with torch.no_grad():
        found: list[Tensor] = pytree.tree_leaves(network.eval()(PICTURES[3]))
    return found


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda structure: structure.name)
def test_weights_and_statistics_become_what_they_would_have(structure: Structure) -> None:
    live = gated(structure)
    whole = copy.deepcopy(live)
    share = train_live(live, PICTURES[0])
    assert 0 < share < 0.8
    for got, expected in zip(train(live), train(whole), strict=True):
        assert float((got - expected).abs().max()) < 1e-9 * float(expected.abs().max())


@pytest.mark.parametrize(("pattern", "share"), [("all specific", 2 / 3), ("all shared", 1 / 3)])
def test_what_is_left_is_what_is_read(pattern: str, share: float) -> None:
    """Of three branches alike: two where each task has its own, one where all share."""
    live = gated(RESIDUAL, pattern)
    assert train_live(live, PICTURES[0]) == pytest.approx(share)


def test_what_is_dead_gets_no_gradient() -> None:
    live = gated(RESIDUAL, "all shared")
    train_live(live, PICTURES[0])
    train(live)
    got = {name for name, parameter in live.branches.named_parameters() if parameter.grad is not None}
    assert got
    assert all(name.startswith("shared.") for name in got)


class Dropping(nn.Module):
    """Does something in training that it does not in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(8, 4, 3), nn.ReLU())

    def forward(self, x: Tensor) -> Any:
        return self.layers(x)


@pytest.mark.parametrize(
    ("structure", "reason"),
    [
        (Structure(Dropping), "do more than in evaluation, such as dropout"),
        (Structure(Repeated), "is computed from several numbers"),
    ],
    ids=["dropout", "a channel that is read twice"],
)
def test_a_network_that_has_to_be_trained_whole_is(structure: Structure, reason: str) -> None:
    network = gated(structure)
    before, drawn = copy.deepcopy(network), torch.random.get_rng_state()
    with pytest.raises(NotLiveError, match=reason):
        train_live(network, PICTURES[0])
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert all(torch.equal(one, other) for one, other in zip(network.buffers(), before.buffers(), strict=True))
    for got, expected in zip(train(network), train(before), strict=True):
        assert torch.equal(got, expected)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Trains gated networks, as soon as gates stand still in part or not; returns snapshot and what was said."""

    def run(worth_it: int, name: str) -> tuple[dict[str, Tensor], str]:
        monkeypatch.setattr(loop, "WORTH_IT", worth_it)
        made = recipe(epochs=4, sparsity={"weight": 5.0}, gates={"freeze_at": 0.5, "learning_rate": 1.0})
        said = io.StringIO()
        run = gated_run(tmp_path / name, made, backbone=without_dropout)
        fit(run, Journal(Console(file=said, width=200), tensorboard=False))
        return read_snapshot(tmp_path / name / "checkpoint.pt").network, said.getvalue()

    return run


def test_a_training_leaves_out_what_lost(runs: Any) -> None:
    (live, said), (whole, nothing) = runs(1, "live"), runs(1000, "whole")
    assert "gated: gates stand still; of the branches' multiply-adds" in said
    assert "gates stand still" not in nothing
    # Six steps of Adam in float32, in another order of additions: heads are trained as they would have been.
    heads = [name for name in whole if name.startswith("heads.")]
    assert heads
    for name in heads:
        torch.testing.assert_close(live[name], whole[name], rtol=1e-3, atol=1e-4)


def test_what_is_mostly_live_is_trained_whole(runs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = runs(1000, "whole")
    monkeypatch.setattr(loop, "MOST_LIVE", 0)
    kept, said = runs(1, "kept")
    assert "all branches go on being trained, since " in said
    assert "% of their multiply-adds are live, too many to gain by it" in said
    assert all(torch.equal(kept[name], whole[name]) for name in whole)


def test_it_is_woven_as_before_once_the_training_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "WORTH_IT", 1)
    run = gated_run(tmp_path, recipe(epochs=2, gates={"freeze_at": 0.5}), backbone=without_dropout)
    assert isinstance(run.network, GatedNetwork)
    fit(run, Journal(Console(file=io.StringIO()), tensorboard=False))
    network = run.network
    network.train()
    sum(leaf.sum() for leaf in network(torch.randn(2, 3, 8, 8)).values()).backward()
    assert all(parameter.grad is not None for parameter in network.branches.parameters())
