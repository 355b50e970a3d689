"""The whole road of a recipe: the networks it starts from, its rivals, the gated network.

    out/start/<task>/checkpoint.pt    train.single_epochs each; the gated network's branches and heads start from them
    out/single/<task>/checkpoint.pt   a rival: the task's own network
    out/shared/checkpoint.pt          a rival: one encoder for all tasks, which is uniform multi-task learning
    out/gated/checkpoint.pt           train.epochs; or out/<method>/, where the recipe names another
    out/checkpoint.pt                 the same, once it is done

Rivals are trained for as long as the gated network and what it starts from together, so that a gain is one of gates. So
is another method's network that has no branches which could start from single-task networks.

TensorBoard's files lie beside the checkpoints.
"""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from gatedeploy.artifact import ModelInfo
from gatedeploy.errors import InputError, located
from gatedeploy.files import check_writable, replacing_file
from gatedeploy.gating.multi_head import MultiHead
from gatedeploy.gating.network import GatedNetwork, gate
from gatedeploy.gating.placing import OVER_WHOLES
from gatedeploy.graph.build import channel_graph
from gatedeploy.graph.capture import capture
from gatedeploy.graph.precompute import precomputed
from gatedeploy.specs import Task
from gatedeploy.training.balancing import make_balance
from gatedeploy.training.batches import Data, divided, further_batches
from gatedeploy.training.budget import budget_keeper
from gatedeploy.training.comparing import Comparison, compare
from gatedeploy.training.journal import Journal
from gatedeploy.training.loop import epoch_seed, fit
from gatedeploy.training.recipe import Recipe, Train
from gatedeploy.training.run import Run
from gatedeploy.training.snapshots import FILE
from gatedeploy.training.workers import workers


@dataclass(frozen=True)
class Parts:
    """What a recipe names and others build.

    Args:
        data: the data set.
        make_backbone: a trunk, with fresh random weights or with the pretrained ones.
        make_head: a head for a task, with fresh random weights.
        make_method: the network of the recipe's method, with fresh random weights; None where none can be made.
    """

    data: Data
    make_backbone: Callable[[], nn.Module]
    make_head: Callable[[Task], nn.Module]
    make_method: Callable[[tuple[Task, ...]], nn.Module] | None = None


@runtime_checkable
class Branched(Protocol):
    """A network with a copy of the backbone for each task, which can start from that of a single-task network."""

    heads: nn.Module

    def load_branch(self, branch: str, weights: Mapping[str, Tensor], /) -> None:
        """Start a task's copy from these weights."""
        ...


@dataclass(frozen=True)
class Trained:
    """What came of a recipe.

    Args:
        checkpoint: the recipe's network.
        single: the single-task nets, by task; empty without rivals.
        shared: the uniform multi-task net; None without rivals.
        network: what it is all about: the gated network, or that of the recipe's method.
    """

    checkpoint: Path
    single: dict[str, ModelInfo]
    shared: ModelInfo | None
    network: ModelInfo

    def compare(self, info: ModelInfo) -> Comparison | None:
        """`info` beside the single-task nets; None without them."""
        return compare(self.network.tasks, info.metrics, {task: of.metrics[task] for task, of in self.single.items()})


def train_recipe(
    recipe: Recipe, parts: Parts, out: Path, *, resume: bool = False, journal: Journal | None = None
) -> Trained:
    """Train everything that a recipe asks for.

    Args:
        recipe: see `load_recipe`.
        parts: the data set and what builds the network.
        out: the folder, laid out as above.
        resume: skip what is done and go on with what was begun.
        journal: told of progress; standard error and TensorBoard when None.

    Raises:
        InputError: recipe, data and network do not fit each other, the network could not be collapsed, or `out` holds a
            training and `resume` is off.
        CheckError: a loss or a weight is no number; every checkpoint stays as it was.
    """
    journal = journal or Journal()
    tasks = recipe.chosen_tasks(parts.data.tasks)
    road = Road(recipe, parts, out, journal, resume)
    check_writable(out / FILE)
    begun = _begun(out, tasks, recipe.form)
    workers().wait()  # before one of them writes
    if begun and not resume:
        raise InputError(f"{out}: holds a training already ({begun}); go on with --resume, or choose another --out")
    if resume and not begun:
        journal.say(f"{out}: holds no training to go on with; beginning one")
    if recipe.budget and recipe.method:
        journal.say(f"budget: is met by choosing gates, which method {recipe.method.name} has none of; it is left out")
    elif recipe.budget and recipe.sparsity.weight:
        journal.say("budget: draws the gates instead of sparsity.weight, which is left out")
    if not (recipe.method or recipe.sparsity.weight or recipe.budget or recipe.gates.kind in OVER_WHOLES):
        journal.say("sparsity.weight is 0: nothing but the tasks themselves makes channels shared, so few will be")
    branched = isinstance(check_collapsible(recipe, parts, tasks), Branched)
    start = {task.name: road.start(task) for task in tasks} if branched and recipe.train.single_epochs else {}
    single = {task.name: road.single(task) for task in tasks} if recipe.train.rivals else {}
    shared = road.shared(tasks) if recipe.train.rivals else None
    network = road.network(tasks, start)
    trained = Trained(out / FILE, single, shared, network)
    for info in filter(None, (shared, network)):
        compared = trained.compare(info)
        if compared is not None and compared.delta_mtl is not None:
            journal.say(f"{info.form}: Δ_MTL over single-task nets {compared.delta_mtl:+.2f} %")
    return trained


def check_collapsible(recipe: Recipe, parts: Parts, tasks: tuple[Task, ...]) -> nn.Module:
    """Refuse before any training what could not be gated or collapsed after it; returns the network, untrained.

    Raises:
        InputError: says what stands in the way.
    """
    if recipe.method is None:
        gated = gated_network(recipe, parts, tasks, {})
        network: nn.Module = gated
        if recipe.budget is not None:
            program = capture(gated, torch.zeros(2, *parts.data.input.shape))
            with located("budget"):
                budget_keeper(gated, program, recipe.budget, recipe.gates.learning_rate, 1)
        plain: nn.Module = MultiHead(parts.make_backbone(), {task.name: parts.make_head(task) for task in tasks})
    else:
        network = plain = _of_method(recipe.method.name, parts, tasks)
    channel_graph(precomputed(capture(plain, torch.zeros(2, *parts.data.input.shape))))
    _check_learners(recipe.train, network, tasks, len(parts.data.train))
    return network


def _check_learners(train: Train, network: nn.Module, tasks: tuple[Task, ...], pictures: int) -> None:
    """Raise `InputError` where losses cannot be balanced as asked, or nobody learns from what is held out."""
    balance = make_balance(train.balance, network, tasks, torch.Tensor.backward)
    if not train.hold_out:
        return
    if not (isinstance(network, GatedNetwork) or balance.needs_other_batch):
        raise InputError(
            "train.hold_out: nothing learns from the pictures that it holds out; gates do, and auto_lambda. Leave it "
            "out, or choose one of these"
        )
    kept, held_out = divided(pictures, train.hold_out, train.seed)
    if len(kept) < train.batch_size:
        raise InputError(
            f"train.hold_out: {train.hold_out:g} leaves {len(kept)} of {pictures} pictures to learn from, fewer than a "
            f"batch of {train.batch_size}"
        )
    further_batches(held_out, train.batch_size, train.seed, epoch=0, steps=1)


@dataclass(frozen=True)
class Road:
    """The stages of a recipe, one by one; `train_recipe` takes them all.

    Args:
        recipe: see `load_recipe`.
        parts: the data set and what builds the network.
        out: the folder, laid out as above.
        journal: told of progress.
        resume: skip what is done and go on with what was begun.
    """

    recipe: Recipe
    parts: Parts
    out: Path
    journal: Journal
    resume: bool = False

    def start(self, task: Task) -> MultiHead:
        """A network of one task, trained for `train.single_epochs`, from which a branch and a head start."""
        network = self._multi_head("start", (task,))
        self._fit("start", network, (task,), self.recipe.train.single_epochs, f"start/{task.name}")
        return network

    def single(self, task: Task) -> ModelInfo:
        """A network of one task, trained as a rival."""
        network = self._multi_head("single", (task,))
        return self._fit("single", network, (task,), self.recipe.train.rival_epochs, f"single/{task.name}")

    def shared(self, tasks: tuple[Task, ...]) -> ModelInfo:
        """Uniform MTL, trained as a rival."""
        network = self._multi_head("shared", tasks)
        return self._fit("shared", network, tasks, self.recipe.train.rival_epochs, "shared")

    def network(self, tasks: tuple[Task, ...], start: Mapping[str, MultiHead]) -> ModelInfo:
        """What the recipe is about, the gated network or that of its method; done, it is `checkpoint.pt` of `out`."""
        info = self.gated(tasks, start) if self.recipe.method is None else self.method(tasks, start)
        if workers().first:
            _publish(self.out / self.recipe.form / FILE, self.out / FILE)
        workers().wait()
        return info

    def gated(self, tasks: tuple[Task, ...], start: Mapping[str, MultiHead]) -> ModelInfo:
        """The gated network, which starts from `start` by task and is trained for `train.epochs`."""
        self._seed("gated")
        network = gated_network(self.recipe, self.parts, tasks, start)
        return self._fit("gated", network, tasks, self.recipe.train.epochs, "gated")

    def method(self, tasks: tuple[Task, ...], start: Mapping[str, MultiHead]) -> ModelInfo:
        """The network of the recipe's method; it starts from `start` by task where it has branches that can."""
        form, epochs = self.recipe.form, self.recipe.train.rival_epochs
        self._seed(form)
        network = _of_method(form, self.parts, tasks)
        if isinstance(network, Branched) and start:
            _begin(network, start)
            epochs = self.recipe.train.epochs
        return self._fit(form, network, tasks, epochs, form)

    def _multi_head(self, stage: str, tasks: tuple[Task, ...]) -> MultiHead:
        self._seed(stage)
        return MultiHead(self.parts.make_backbone(), {task.name: self.parts.make_head(task) for task in tasks})

    def _fit(self, stage: str, network: nn.Module, tasks: tuple[Task, ...], epochs: int, folder: str) -> ModelInfo:
        run = Run(stage, network, tasks, epochs, self.recipe, self.parts.data, self.out / folder)
        return fit(run, self.journal, self.resume)

    def _seed(self, stage: str) -> None:
        torch.manual_seed(epoch_seed(self.recipe.train.seed, zlib.crc32(stage.encode())))


def gated_network(
    recipe: Recipe, parts: Parts, tasks: tuple[Task, ...], start: Mapping[str, MultiHead]
) -> GatedNetwork:
    """The gated network as its training begins (InterroGate supplement B.3).

    Args:
        recipe: says how it is gated.
        parts: the data set and what builds the network; the shared branch starts as `make_backbone` makes it.
        tasks: of the recipe.
        start: trained nets by task, from which branches and heads start; without one both start as they are made.
    """
    closing = "sparsity.weight" if recipe.sparsity.weight else "budget" if recipe.budget else None
    if recipe.gates.kind in OVER_WHOLES and closing:
        raise InputError(
            f"{closing} closes channels (InterroGate eq. 4), and gates.kind {recipe.gates.kind} has none; leave it "
            "out, or gate channels"
        )
    heads = {task.name: parts.make_head(task) for task in tasks}
    network = gate(
        parts.make_backbone(),
        tasks,
        example_input=torch.zeros(2, *parts.data.input.shape),
        heads=heads,
        **recipe.gates.placing,
    )
    _begin(network, start)
    return network


def _of_method(name: str, parts: Parts, tasks: tuple[Task, ...]) -> nn.Module:
    if parts.make_method is None:
        raise InputError(f"method {name}: nothing was given that makes its network; see Parts.make_method")
    return parts.make_method(tasks)


def _begin(network: Branched, start: Mapping[str, MultiHead]) -> None:
    """Let branches and heads start from trained nets of single tasks."""
    for task, net in start.items():
        network.heads.get_submodule(task).load_state_dict(net.heads[task].state_dict())
        network.load_branch(task, net.backbone.state_dict())


def _begun(out: Path, tasks: tuple[Task, ...], form: str) -> Path | None:
    """A checkpoint of a training that was begun in `out`, if there is one."""
    own = (f"{stage}/{task.name}" for stage in ("start", "single") for task in tasks)
    files = (out / folder / FILE for folder in (*own, "shared", form, "."))
    return next((file for file in files if file.is_file()), None)


def _publish(source: Path, target: Path) -> None:
    """Let `target` be the file `source`, in one step."""
    with replacing_file(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:  # a file system without links
            shutil.copyfile(source, temporary)
