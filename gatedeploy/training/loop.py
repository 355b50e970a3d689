"""The loop that trains one network: single-task, uniform multi-task or gated."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gatedeploy.artifact import ModelInfo
from gatedeploy.errors import CheckError, GatedeployError, InputError
from gatedeploy.gating.network import GatedNetwork
from gatedeploy.gating.task_network import TaskNetwork
from gatedeploy.gating.woven import WovenNetwork
from gatedeploy.specs import Task
from gatedeploy.training.batches import Batch, divided, further_batches, of_epoch, prefetched, training_batches
from gatedeploy.training.budget import BudgetKeeper, budget_keeper
from gatedeploy.training.compiling import compiled
from gatedeploy.training.device import make_fabric
from gatedeploy.training.journal import Journal, RunJournal
from gatedeploy.training.live import train_live
from gatedeploy.training.measure import measure
from gatedeploy.training.metrics import headline
from gatedeploy.training.pieces import NotLiveError
from gatedeploy.training.run import Run
from gatedeploy.training.schedules import Clock, learning_rate
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
from gatedeploy.training.stepper import Stepper
from gatedeploy.training.unreadable import Readable
from gatedeploy.training.workers import workers

WORTH_IT = 50
"""For how many steps gates have to stand still so that what lost is left out: to find out takes as long as a few."""

MOST_LIVE = 0.5
"""With more of the branches' multiply-adds than this share a step of what is live may take longer than one of all: its
kernels are narrow (`python -m gatedeploy.benchmarks.step_time`, p = 0.5)."""

LOOK_EVERY = 20
"""Steps between two looks at the losses. Each look waits for the device, so not every step takes one."""


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
    trainer = _Trainer(run, journal)
    done = trainer.restore(snapshot)
    with journal.run(run.title, run.folder, trainer.steps, done * trainer.steps_per_epoch) as run_journal:
        for epoch in range(done, run.epochs):
            trainer.train(epoch, run_journal)
            info = trainer.measured()
            trainer.write(path, info, epoch + 1)
            trainer.tell(run_journal, info, epoch + 1)
    if isinstance(run.network, WovenNetwork):
        run.network.run_in_training(None)
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

    def __init__(self, run: Run, journal: Journal) -> None:
        self.run = run
        self.journal = journal
        self.skeleton = Skeleton(run.network, run.data.input)  # while the network is on the CPU
        self.fabric = make_fabric(run.recipe.train)
        self.network = self.fabric.setup_module(run.network)
        self.scaler = getattr(self.fabric.strategy.precision, "scaler", None)
        self.kept, self.held_out = divided(len(run.data.train), run.hold_out, run.recipe.train.seed)
        self.workers = workers()
        self.workers.check_divides(run.recipe.train.batch_size)
        self.steps_per_epoch = len(self._batches(0))
        self.steps = self.steps_per_epoch * run.epochs
        self.budget = self._budget()
        self.compiled = partial(compiled, device=self.fabric.device) if run.recipe.train.compile else None
        if self.compiled:
            journal.say(f"{run.title}: compiles its step before it takes the first, which takes minutes")
        stepping = self.fabric.setup_module(self.compiled(run.network)) if self.compiled else self.network
        self.stepper = Stepper(
            run, stepping, self.fabric.backward, self.scaler, self.budget, stand_still=self._stand_still
        )

    def _budget(self) -> BudgetKeeper | None:
        network, recipe = self.run.network, self.run.recipe
        if recipe.budget is None or not isinstance(network, GatedNetwork):
            return None
        steps = recipe.gates.end * self.steps
        return budget_keeper(network, self.skeleton.program, recipe.budget, recipe.gates.learning_rate, steps)

    def _stand_still(self, images: Tensor) -> None:
        """Gates move no more: they are made to meet the budget, and what lost at them is left out from here on."""
        network, end = self.run.network, self.run.recipe.gates.end
        if self.budget is not None:
            self.budget.settle()
        if not isinstance(network, GatedNetwork) or network.whole_gates() or (1 - end) * self.steps < WORTH_IT:
            return
        share, reason = None, "another process found that they have to"
        try:
            share = train_live(network, images, self.compiled)
            if share > MOST_LIVE:
                reason = f"{share:.0%} of their multiply-adds are live, too many to gain by it"
                share = None
        except NotLiveError as error:
            reason = str(error)
        if self.workers.agree(share is not None, self.fabric.device):
            self.stepper.network = self.network  # which is compiled as far as it is live
            told = f"of the branches' multiply-adds {share:.0%} are trained from here on, what lost is left out"
        else:
            network.run_in_training(None)
            told = f"all branches go on being trained, since {reason}"
        self.journal.say(f"{self.run.title}: gates stand still; {told}")

    def _batches(self, epoch: int) -> list[list[int]]:
        train = self.run.recipe.train
        chosen = training_batches(len(self.kept), train.batch_size, train.seed, epoch)
        return [[self.kept[number] for number in self.workers.part(batch)] for batch in chosen]

    def _pairs(self, pictures: Readable, epoch: int) -> Iterator[tuple[Batch, Batch | None]]:
        """The batches of an epoch, each with another beside it where the stepper wants one."""
        device, own = self.fabric.device, self._batches(epoch)
        if not self.stepper.wants_other:
            return ((batch, None) for batch in prefetched(pictures, own, device))
        train = self.run.recipe.train
        further = further_batches(self.held_out or self.kept, train.batch_size, train.seed, epoch, len(own))
        others = [self.workers.part(batch) for batch in further]
        return zip(prefetched(pictures, own, device), prefetched(pictures, others, device), strict=True)

    def restore(self, snapshot: Snapshot | None) -> int:
        """Go on from a snapshot; returns how many epochs are done."""
        if snapshot is None:
            return 0
        self.stepper.restore(snapshot.optimisers)
        if self.scaler is not None:
            self.scaler.load_state_dict(snapshot.scaler)
        return snapshot.epochs

    def train(self, epoch: int, journal: RunJournal) -> None:
        """One epoch."""
        # Dropout follows from seed and epoch, like the order of pictures and their looks: there is nothing to save.
        train = self.run.recipe.train
        torch.manual_seed(epoch_seed(train.seed, epoch))
        seen = of_epoch(self.run.data.train, train.seed, epoch)
        pictures = Readable(seen, train.unreadable == "skip", f"{self.run.title}: epoch {epoch + 1}")
        self.network.train()
        losses = _Losses(self.run, epoch)
        for position, (batch, other) in enumerate(self._pairs(pictures, epoch)):
            clock = Clock(epoch * self.steps_per_epoch + position, epoch, self.steps)
            losses.add(clock, self.stepper.take(clock, batch, other))
            if (position + 1) % LOOK_EVERY == 0 or position + 1 == self.steps_per_epoch:
                rate = {"learning_rate": learning_rate(self.run.recipe, clock)}
                journal.steps(clock.step + 1, {**losses.look(), **rate})
        journal.skipped(pictures.told())
        self.stepper.end_epoch(Clock((epoch + 1) * self.steps_per_epoch, epoch, self.steps))
        if not all_finite(self.run.network):
            raise CheckError(_no_number(self.run, epoch, f"step {self.steps_per_epoch}: a weight is no number"))

    def measured(self) -> ModelInfo:
        """What travels with the network as it is now."""
        run, metrics = self.run, None
        self.workers.average_statistics(run.network)
        self.network.eval()
        if self.workers.first:
            size = run.recipe.train.batch_size
            metrics = measure(self.network, run.data.val, run.tasks, size, self.fabric.device)
        return ModelInfo(run.tasks, run.data.input, run.form, run.recipe.plain(), self.workers.from_first(metrics))

    def write(self, path: Path, info: ModelInfo, epochs: int) -> None:
        """Write the checkpoint of `epochs` epochs, of which all processes know when it is there."""
        if self.workers.first:
            self._write(path, info, epochs)
        self.workers.wait()

    def _write(self, path: Path, info: ModelInfo, epochs: int) -> None:
        scaler = self.scaler.state_dict() if self.scaler is not None else {}
        snapshot = Snapshot(info, epochs, self.run.network.state_dict(), self.stepper.state(), scaler)
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
        decided = self.run.network.decided() if isinstance(self.run.network, TaskNetwork) else None
        if decided is not None:
            name, shares = decided
            scalars |= {f"{name}/{task}": share for task, share in shares.items()}
            said.append(f"{name} {' / '.join(f'{share:.2f}' for share in shares.values())}")
        if self.budget is not None:
            used = self.budget.used()
            scalars |= {f"budget/{name}": share for name, share in used.items()}
            named = [f"{name} {share:.2f}" if len(used) > 1 else f"{share:.2f}" for name, share in used.items()]
            said.append(f"of the budget {' / '.join(named)}")
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
