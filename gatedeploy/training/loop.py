"""The loop that trains one network: single-task, uniform multi-task or gated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from gatedeploy.artifact import ModelInfo
from gatedeploy.errors import CheckError, GatedeployError, InputError
from gatedeploy.gating.network import GatedNetwork
from gatedeploy.gating.sparsity import sparsity_penalty
from gatedeploy.specs import Task
from gatedeploy.training.batches import Batch, Data, prefetched, training_batches
from gatedeploy.training.device import make_fabric
from gatedeploy.training.journal import Journal, RunJournal
from gatedeploy.training.losses import task_loss
from gatedeploy.training.measure import measure
from gatedeploy.training.metrics import headline
from gatedeploy.training.optimisers import Optimisers
from gatedeploy.training.recipe import Recipe
from gatedeploy.training.schedules import Clock, gates_move, learning_rate, sparsity_weight
from gatedeploy.training.snapshots import (
    FILE,
    Skeleton,
    Snapshot,
    all_finite,
    first_difference,
    load_network,
    read_snapshot,
    said_nothing_of,
    write_snapshot,
)

Stage = Literal["start", "single", "shared", "gated"]

LOOK_EVERY = 20
"""Steps between two looks at the losses. Each look waits for the device, so not every step takes one."""


@dataclass(frozen=True)
class Run:
    """One network to be trained.

    Args:
        stage: what it is trained for: see `gatedeploy.training.stages`.
        network: maps pictures to predictions by task; is trained in place, and ends on the CPU.
        tasks: what it is trained on.
        epochs: how often it sees every picture.
        recipe: everything else about its training.
        data: pictures and labels.
        folder: where `checkpoint.pt` and TensorBoard's files go.
    """

    stage: Stage
    network: nn.Module
    tasks: tuple[Task, ...]
    epochs: int
    recipe: Recipe
    data: Data
    folder: Path

    @property
    def title(self) -> str:
        """How the run is called in messages: `gated`, `single depth`."""
        return f"{self.stage} {self.tasks[0].name}" if self.form == "single" else self.stage

    @property
    def form(self) -> str:
        """What the network is, see `ModelInfo`."""
        return "single" if self.stage == "start" else self.stage


def fit(run: Run, journal: Journal, resume: bool = False) -> ModelInfo:
    """Train a network and write `checkpoint.pt` after every epoch.

    The data's order and dropout follow from seed and epoch, and all else is in the checkpoint, so a run that was
    interrupted and resumed on the same CPU gives the same network, bit for bit.

    Args:
        run: what to train.
        journal: told of progress.
        resume: go on from the checkpoint in the run's folder, if there is one.

    Returns:
        What travels with the network; its metrics are those of the last epoch.

    Raises:
        InputError: the network, data and recipe do not fit each other, or the checkpoint is of another recipe.
        CheckError: a loss or a weight is no number; the last epoch's checkpoint stays.
    """
    path = run.folder / FILE
    snapshot = _resumable(run, path) if resume and path.is_file() else None
    if snapshot is not None:
        load_network(run.network, snapshot.network, path)
        if snapshot.epochs >= run.epochs:
            journal.say(f"{run.title}: {snapshot.epochs} epochs are done already")
            return snapshot.info
    trainer = _Trainer(run)
    done = trainer.restore(snapshot)
    with journal.run(run.title, run.folder, trainer.steps, done * trainer.steps_per_epoch) as run_journal:
        for epoch in range(done, run.epochs):
            trainer.train(epoch, run_journal)
            info = trainer.measured()
            trainer.write(path, info, epoch + 1)
            trainer.tell(run_journal, info, epoch + 1)
    run.network.cpu()
    return info


def _resumable(run: Run, path: Path) -> Snapshot:
    snapshot = read_snapshot(path)
    saved, now = {**snapshot.info.recipe, "form": snapshot.info.form}, {**run.recipe.plain(), "form": run.form}
    difference = first_difference(saved, now, said_nothing_of(run.stage))
    if difference is not None:
        raise InputError(
            f"{path}: is of another recipe: {difference}. Resume with the recipe it was begun with, or train into "
            "another folder"
        )
    return snapshot


class _Trainer:
    """The state of a run: network, optimisers and device."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.skeleton = Skeleton(run.network, run.data.input)  # while the network is on the CPU
        self.fabric = make_fabric(run.recipe.train)
        self.network = self.fabric.setup_module(run.network)
        self.scaler = getattr(self.fabric.strategy.precision, "scaler", None)
        self.optimisers = Optimisers(run.network, run.recipe, self.scaler)
        self.steps_per_epoch = len(self._batches(0))
        self.steps = self.steps_per_epoch * run.epochs

    def _batches(self, epoch: int) -> list[list[int]]:
        train = self.run.recipe.train
        return training_batches(len(self.run.data.train), train.batch_size, train.seed, epoch)

    def restore(self, snapshot: Snapshot | None) -> int:
        """Go on from a snapshot; returns how many epochs are done."""
        if snapshot is None:
            return 0
        self.optimisers.restore(snapshot.optimisers)
        if self.scaler is not None:
            self.scaler.load_state_dict(snapshot.scaler)
        return snapshot.epochs

    def train(self, epoch: int, journal: RunJournal) -> None:
        """One epoch."""
        # Dropout follows from seed and epoch, like the order of pictures: nothing to save, nothing to restore.
        torch.manual_seed(epoch_seed(self.run.recipe.train.seed, epoch))
        self.network.train()
        losses = _Losses(self.run, epoch)
        for position, batch in enumerate(prefetched(self.run.data.train, self._batches(epoch), self.fabric.device)):
            clock = Clock(epoch * self.steps_per_epoch + position, epoch, self.steps)
            losses.add(clock, self._step(clock, batch))
            if (position + 1) % LOOK_EVERY == 0 or position + 1 == self.steps_per_epoch:
                rate = {"learning_rate": learning_rate(self.run.recipe, clock)}
                journal.steps(clock.step + 1, {**losses.look(), **rate})
        if not all_finite(self.run.network):
            raise CheckError(_no_number(self.run, epoch, f"step {self.steps_per_epoch}: a weight is no number"))

    def _step(self, clock: Clock, batch: Batch) -> Tensor:
        """One step of all optimisers; returns the losses: one per task, and the weighted penalty."""
        run = self.run
        moving = gates_move(run.recipe, clock)
        self.optimisers.prepare(learning_rate(run.recipe, clock), moving)
        images, labels = batch
        predictions = self.network(images)
        losses = [task_loss(task, predictions[task.name], labels[task.name]) for task in run.tasks]
        penalty = losses[0].new_zeros(())
        weight = sparsity_weight(run.recipe, clock)
        if isinstance(run.network, GatedNetwork) and moving and weight:
            penalty = weight * sparsity_penalty(run.network, run.recipe.sparsity.form, run.recipe.sparsity.scale)
        parts = torch.stack([*losses, penalty])
        self.fabric.backward(parts @ parts.new_tensor([*(task.weight for task in run.tasks), 1.0]))
        self.optimisers.step()
        return parts.detach()

    def measured(self) -> ModelInfo:
        """What travels with the network as it is now."""
        run = self.run
        self.network.eval()
        size = run.recipe.train.batch_size
        metrics = measure(self.network, run.data.val, run.tasks, size, self.fabric.device)
        return ModelInfo(run.tasks, run.data.input, run.form, run.recipe.plain(), metrics)

    def write(self, path: Path, info: ModelInfo, epochs: int) -> None:
        """Write the checkpoint of `epochs` epochs."""
        scaler = self.scaler.state_dict() if self.scaler is not None else {}
        snapshot = Snapshot(info, epochs, self.run.network.state_dict(), self.optimisers.state(), scaler)
        try:
            write_snapshot(path, self.skeleton, snapshot)
        except GatedeployError as error:
            error.args = (f"{error}, and go on with --resume",)
            raise

    def tell(self, journal: RunJournal, info: ModelInfo, epochs: int) -> None:
        """Tell of the epoch that was just measured."""
        scalars = {
            f"metric/{task}/{metric}": value
            for task, values in info.metrics.items()
            for metric, value in values.items()
        }
        said = [f"{task.name} {headline(task).name} {_figure(info.metrics, task)}" for task in self.run.tasks]
        if isinstance(self.run.network, GatedNetwork):
            shares = self.run.network.specific_share()
            scalars |= {f"specific_share/{task}": share for task, share in shares.items()}
            said.append("specific " + " / ".join(f"{share:.2f}" for share in shares.values()))
        journal.epoch(epochs, self.run.epochs, epochs * self.steps_per_epoch, scalars, ", ".join(said))


class _Losses:
    """The losses of the steps since the last look, left on the device."""

    def __init__(self, run: Run, epoch: int) -> None:
        self.run = run
        self.epoch = epoch
        self.clocks: list[Clock] = []
        self.parts: list[Tensor] = []

    def add(self, clock: Clock, parts: Tensor) -> None:
        self.clocks.append(clock)
        self.parts.append(parts)

    def look(self) -> dict[str, float]:
        """The mean losses by name; raises `CheckError` if one of them is no number."""
        names = [*(task.name for task in self.run.tasks), "sparsity"]
        seen = torch.stack(self.parts).double().cpu()
        for clock, row in zip(self.clocks, seen.tolist(), strict=True):
            for name, value in zip(names, row, strict=True):
                if not math.isfinite(value):
                    what = f"task {name}" if name != "sparsity" else "the sparsity penalty"
                    raise CheckError(
                        _no_number(self.run, self.epoch, f"step {clock.step}: {what}: the loss is {value}")
                    )
        self.clocks, self.parts = [], []
        return {f"loss/{name}": float(value) for name, value in zip(names, seen.mean(0), strict=True)}


def _no_number(run: Run, epoch: int, what: str) -> str:
    path = run.folder / FILE
    kept = f" {path} is still that of the epoch before." if path.is_file() else ""
    return (
        f"{run.title}: epoch {epoch + 1}, {what}. Try a lower train.learning_rate (now "
        f"{run.recipe.train.learning_rate:g}), train.precision=32-true, and look for wrong labels.{kept}"
    )


def _figure(metrics: Mapping[str, Mapping[str, float]], task: Task) -> str:
    return f"{metrics[task.name][headline(task).name]:.4g}"


def epoch_seed(seed: int, epoch: int) -> int:
    """What PyTorch's generators are seeded with in this epoch."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
