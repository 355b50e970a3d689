"""Two processes that train one network: the gradients of one process with the whole batch."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gatedeploy.artifact import read_checkpoint
from gatedeploy.errors import InputError
from gatedeploy.gating.multi_head import MultiHead
from gatedeploy.gating.network import GatedNetwork
from gatedeploy.training.batches import Batch
from gatedeploy.training.run import Run
from gatedeploy.training.schedules import Clock
from gatedeploy.training.stages import gated_network
from gatedeploy.training.stepper import Stepper
from gatedeploy.training.workers import Workers
from tests.training.balances import EVERY, backward
from tests.training.made_up import TASKS, Head, MadeUp, Noise, make_backbone, parts, recipe, without_dropout

BALANCES = [name for name in EVERY if name != "mgda_ub"]
HELD_OUT = "held out"
SHARED = "shared encoder"
CASES = [*BALANCES, HELD_OUT, SHARED]
STEPS = 2


def batch(seed: int) -> Batch:
    """Eight pictures in float64, of which the second half has few valid labels."""
    images, labels = Noise(8, seed).batch(range(8))
    labels["depth"][1::2, :, 2:] = torch.nan
    labels["parts"][1::2, 1:] = 255
    labels["normals"][3] = 0
    return images.double(), {task: each.double() if each.is_floating_point() else each for task, each in labels.items()}


def part(of: Batch, workers: Workers) -> Batch:
    chosen = workers.part(range(8))
    images, labels = of
    return images[chosen], {task: each[chosen] for task, each in labels.items()}


@cache
def untrained() -> GatedNetwork:
    torch.manual_seed(7)
    return gated_network(recipe(), parts(backbone=without_dropout), TASKS, {})


def grads(case: str, workers: Workers) -> list[dict[str, Tensor]]:
    """By step, what a gated network is to step along, with this process's part of each batch; norms are frozen."""
    torch.manual_seed(7)
    balance = EVERY.get(case, {"name": "pcgrad"} if case == SHARED else {"name": "sum"})
    train: dict[str, Any] = {"balance": balance, "hold_out": 0.3 if case == HELD_OUT else 0.0}
    made = recipe(epochs=4, sparsity={"weight": 0.3}, gates={"learning_rate": 0.1, "freeze_at": 1.0}, train=train)
    network: nn.Module = copy.deepcopy(untrained())
    if case == SHARED:
        network = MultiHead(without_dropout(), {task.name: Head(task) for task in TASKS})
    stage = "gated" if isinstance(network, GatedNetwork) else made.form
    network.double().train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    stepper = Stepper(Run(stage, network, TASKS, 4, made, MadeUp(), Path()), network, backward)
    found = []
    for step in range(STEPS):
        torch.manual_seed(step)
        other = part(batch(20 + step), workers) if stepper.wants_other else None
        stepper.take(Clock(step, 0, 12), part(batch(step), workers), other)
        left = network.named_parameters()
        found.append({name: parameter.grad.clone() for name, parameter in left if parameter.grad is not None})
    return found


CHILD = """
import sys, torch
from torch import distributed
from tests.training.test_workers import CASES, grads
from gatedeploy.training.workers import workers
torch.set_num_threads(1)
folder, rank = sys.argv[1], int(sys.argv[2])
distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
torch.save({case: grads(case, workers()) for case in CASES}, f"{folder}/{rank}.pt")
distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[dict[str, Tensor]]]]:
    """What two processes found, each with half of every batch; by case."""
    folder = tmp_path_factory.mktemp("workers")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    commands = [[sys.executable, "-c", CHILD, str(folder), str(rank)] for rank in range(2)]
    running = [subprocess.Popen(command, env=environment) for command in commands]
    assert [each.wait(timeout=300) for each in running] == [0, 0]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.slow
@pytest.mark.xdist_group("workers")
@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_the_whole_batch(case: str, of_two: list[dict[str, list[dict[str, Tensor]]]]) -> None:
    first, second = (found[case] for found in of_two)
    whole = grads(case, Workers())
    for step in range(STEPS):
        assert set(first[step]) == set(whole[step])
        scale = max(float(grad.abs().max()) for grad in whole[step].values())
        for name, expected in whole[step].items():
            assert torch.equal(first[step][name], second[step][name]), name
            # Sums in another order; and later steps go from weights that differ by as little.
            assert float((first[step][name] - expected).abs().max()) < 1e-10 * scale, name
    if case not in (SHARED,):
        assert any(name.startswith("gates.") for name in first[0])


@pytest.mark.slow
@pytest.mark.xdist_group("workers")
def test_the_command_in_two_processes_writes_what_one_would(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "data: {name: scenes, train: 16, val: 4, size: 16}\n"
        "model: {backbone: {name: resnet20, width: 0.125}, head: {name: dense, width: 8}}\n"
        "tasks: {segmentation: {}, depth: {}}\n"
        "train: {epochs: 1, single_epochs: 1, batch_size: 8, accelerator: cpu}\n"
        "sparsity: {weight: 0.1}\n"
    )
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "gatedeploy"]
    command = [sys.executable, *words, "train", "recipe.yaml", "--out", "out"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Wrote out/checkpoint.pt") == 1
    assert done.stderr.count("gated: epoch 1 of 1") == 1
    info = read_checkpoint(tmp_path / "out" / "checkpoint.pt").info
    assert set(info.metrics) == {"segmentation", "depth"}
    assert len(list(tmp_path.rglob("events.out.*"))) == 3  # of 2 starts and the gated network


def test_pictures_that_cannot_be_divided_evenly() -> None:
    Workers(2).check_divides(8)
    with pytest.raises(InputError, match=r"batch_size: 9 pictures cannot be divided evenly among 2 processes"):
        Workers(2).check_divides(9)


def test_each_process_takes_its_part() -> None:
    batches = [Workers(3, rank).part([10, 11, 12, 13, 14, 15]) for rank in range(3)]
    assert batches == [[10, 13], [11, 14], [12, 15]]


def test_what_is_compared_at_one_processs_features_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from gatedeploy.training import balancing

    monkeypatch.setattr(balancing, "workers", lambda: Workers(2))
    network = MultiHead(make_backbone(), {task.name: Head(task) for task in TASKS})
    section = recipe(train={"balance": EVERY["mgda_ub"]}).train.balance
    with pytest.raises(InputError, match="take upper_bound: false, or train in one process"):
        balancing.make_balance(section, network, TASKS, backward)
