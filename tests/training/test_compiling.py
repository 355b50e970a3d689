"""Compiled steps train what plain ones train."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch._dynamo.backends.debugging import aot_eager

from gatedeploy.errors import InputError
from gatedeploy.training import compiling, loop
from gatedeploy.training.journal import Journal
from gatedeploy.training.loop import fit
from gatedeploy.training.recipe import Recipe
from gatedeploy.training.run import Run
from gatedeploy.training.snapshots import read_snapshot
from tests.training.made_up import recipe, without_dropout
from tests.training.test_loop import gated_run, shared_run

GATES = {"sparsity": {"weight": 5.0}, "gates": {"freeze_at": 0.5, "learning_rate": 1.0}}


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was compiled; the compiler's front does all that it does, and no machine code is made."""
    found: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        found.append(graph)
        return aot_eager(graph, inputs)

    monkeypatch.setattr(compiling, "BACKEND", backend)
    monkeypatch.setattr(loop, "WORTH_IT", 1)
    torch._dynamo.reset()
    return found


def trained(folder: Path, make: Callable[[Path, Recipe], Run], made: Recipe) -> tuple[dict[str, Tensor], str]:
    said = io.StringIO()
    fit(make(folder, made), Journal(Console(file=said, width=200), tensorboard=False))
    return read_snapshot(folder / "checkpoint.pt").network, said.getvalue()


def without_any_dropout(folder: Path, made: Recipe) -> Run:
    return gated_run(folder, made, backbone=without_dropout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "options", "at_least"),
    [
        (without_any_dropout, GATES, 2),  # gates that move, and what is live
        (without_any_dropout, {"train": {"balance": {"name": "pcgrad"}}, **GATES}, 2),
        (shared_run, {"train": {"balance": {"name": "auto_lambda"}}}, 1),
    ],
    ids=["gates", "gates, gradients of each task", "one encoder, another batch beside"],
)
def test_weights_become_what_they_would_have(
    make: Callable[[Path, Recipe], Run],
    options: dict[str, Any],
    at_least: int,
    graphs: list[Any],
    tmp_path: Path,
) -> None:
    plain, _ = trained(tmp_path / "plain", make, recipe(epochs=2, **options))
    assert not graphs
    train = {**options.get("train", {}), "compile": True}
    made, said = trained(tmp_path / "compiled", make, recipe(epochs=2, **{**options, "train": train}))
    assert len(graphs) >= at_least
    assert ("gates stand still; of the branches'" in said) == (make is without_any_dropout)
    for name, expected in plain.items():
        torch.testing.assert_close(made[name], expected, rtol=1e-3, atol=1e-4)  # six steps of Adam in float32


@pytest.mark.slow
def test_a_narrow_convolution_with_strides_stays_within_its_memory() -> None:
    """Compiled as PyTorch would have it, oneDNN wrote past the end of its own here, and the process died."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 1, stride=2))
    image = torch.randn(32, 3, 64, 64)
    gradients = []
    for run in (network, compiling.compiled(network, torch.device("cpu")), network):
        for _ in range(3):
            network.zero_grad()
            run(image).square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-5)
    assert all(map(torch.equal, gradients[0], gradients[2]))


def test_without_a_compiler_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(InputError, match=r"^train\.compile: torch\.compile needs a C\+\+ compiler, and here is"):
        compiling.compiled(torch.relu, torch.device("cpu"))


def test_what_looks_into_the_network_is_refused() -> None:
    with pytest.raises(InputError, match=r"compile: MGDA's upper bound looks into the network"):
        recipe(train={"compile": True, "balance": {"name": "mgda", "upper_bound": True}})
