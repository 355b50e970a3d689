"""A short training against the same one written down in plain PyTorch."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from gatedeploy.gating.network import GatedNetwork
from gatedeploy.training.journal import Journal
from gatedeploy.training.loop import epoch_seed, fit
from gatedeploy.training.losses import task_loss
from gatedeploy.training.recipe import Recipe
from gatedeploy.training.run import Run
from gatedeploy.training.stages import gated_network
from tests.training.made_up import TASKS, MadeUp, parts, recipe

EPOCHS = 4
ASKED = {"colour": {"weight": 2.0, "sparsity_target": 0.2}, "depth": {"weight": 0.5}}
GATES = {"learning_rate": 0.3, "freeze_at": 0.7}
TRAIN = {"batch_size": 24, "learning_rate": 0.01, "weight_decay": 0.1}  # one batch is all there is to train on


@pytest.mark.parametrize(
    ("form", "schedule", "rates"),
    [
        ("l1", {"name": "polynomial", "power": 0.9}, [0.01 * (1 - step / 4) ** 0.9 for step in range(4)]),
        ("hinge", {"name": "step", "every": 2, "factor": 0.25}, [0.01, 0.01, 0.0025, 0.0025]),
    ],
)
def test_a_training_does_what_its_recipe_says(
    tmp_path: Path, form: str, schedule: dict[str, object], rates: list[float]
) -> None:
    sparsity = {"weight": 0.4, "form": form, "scale": 3.0, "ramp": 0.5}
    made = recipe(epochs=EPOCHS, train={**TRAIN, "schedule": schedule}, sparsity=sparsity, tasks=ASKED, gates=GATES)
    torch.manual_seed(0)
    tasks = made.chosen_tasks(TASKS)
    trained = gated_network(made, parts(), tasks, {})
    for site in trained.sites:  # so that the tasks read the shared branch too
        trained.gate(site, "colour").choose([True, False] * 4)
        trained.gate(site, "depth").choose([False, False, True, True] * 2)
    by_hand = copy.deepcopy(trained)
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    journal = Journal(Console(file=io.StringIO()), tensorboard=False)
    fit(Run("gated", trained, tasks, EPOCHS, made, MadeUp(), tmp_path), journal)
    _train(by_hand, made, rates, l1=form == "l1")
    for name, tensor in by_hand.state_dict().items():
        # Both sum up in float32, the one in a fused step; rounding grows over four steps of Adam.
        torch.testing.assert_close(trained.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)
        assert not torch.equal(tensor, before[name]), f"{name} was not trained"


def _train(network: GatedNetwork, made: Recipe, rates: list[float], l1: bool) -> None:
    """Full batches, one a step: SGD at 0.3 for three of four steps for gates and mixes, Adam with L2 for the rest."""
    gates = [parameter for name, parameter in network.named_parameters() if name.startswith(("gates.", "mixes."))]
    weights = [parameter for name, parameter in network.named_parameters() if not name.startswith(("gates.", "mixes."))]
    adam, sgd = torch.optim.Adam(weights, weight_decay=0.1), torch.optim.SGD(gates, 0.3)
    network.train()
    for epoch, (rate, λ) in enumerate(zip(rates, (0.2, 0.4, 0.4, 0.4), strict=True)):
        order = torch.from_numpy(np.random.default_rng([made.train.seed, epoch]).permutation(24))
        torch.manual_seed(epoch_seed(made.train.seed, epoch))
        images, labels = MadeUp().train.batch(order.tolist())
        predictions = network(images)
        colour, depth = (task_loss(task, predictions[task.name], labels[task.name]) for task in network.tasks)
        loss = 2.0 * colour + 0.5 * depth
        if epoch < 3:
            loss = loss + λ * (_openness(network, "colour", 0.0 if l1 else 0.2) + _openness(network, "depth", 0.0)) / 2
        network.zero_grad()
        loss.backward()
        adam.param_groups[0]["lr"] = rate
        adam.step()
        if epoch < 3:
            sgd.step()


def _openness(network: GatedNetwork, task: str, target: float) -> Tensor:
    """Mean over sites of σ(α) beyond the target, its gradient three times as steep."""
    means = [torch.sigmoid(network.gate(site, task).gate_logits).mean() for site in network.sites]
    beyond = torch.stack(means).mean() - target
    assert beyond > 0, "the test should walk on the slope of the hinge"
    return 3 * beyond
