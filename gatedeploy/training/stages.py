"""The whole road of a recipe: the networks it starts from, its rivals, the gated network.

    out/start/<task>/checkpoint.pt    train.single_epochs each; the gated network's branches and heads start from them
    out/single/<task>/checkpoint.pt   a rival: the task's own network
    out/shared/checkpoint.pt          a rival: one encoder for all tasks, which is uniform multi-task learning
    out/gated/checkpoint.pt           train.epochs
    out/checkpoint.pt                 the gated one, once it is done

Rivals are trained for as long as the gated network and what it starts from together, so that a gain is one of gates.

TensorBoard's files lie beside the checkpoints.
"""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from gatedeploy.artifact import ModelInfo
from gatedeploy.errors import InputError
from gatedeploy.files import check_writable, replacing_file
from gatedeploy.gating.network import GatedNetwork, gate
from gatedeploy.gating.placing import OVER_WHOLES
from gatedeploy.graph.build import channel_graph
from gatedeploy.graph.capture import capture
from gatedeploy.graph.precompute import precomputed
from gatedeploy.specs import Task
from gatedeploy.training.batches import Data
from gatedeploy.training.comparing import Comparison, compare
from gatedeploy.training.journal import Journal
from gatedeploy.training.loop import Run, Stage, epoch_seed, fit
from gatedeploy.training.networks import MultiHead
from gatedeploy.training.recipe import Recipe
from gatedeploy.training.snapshots import FILE


@dataclass(frozen=True)
class Parts:
    """What a recipe names and others build.

    Args:
        data: the data set.
        make_backbone: a trunk, with fresh random weights or with the pretrained ones.
        make_head: a head for a task, with fresh random weights.
    """

    data: Data
    make_backbone: Callable[[], nn.Module]
    make_head: Callable[[Task], nn.Module]


@dataclass(frozen=True)
class Trained:
    """What came of a recipe.

    Args:
        checkpoint: the gated network.
        single: the single-task nets, by task; empty without rivals.
        shared: the uniform multi-task net; None without rivals.
        gated: the gated network.
    """

    checkpoint: Path
    single: dict[str, ModelInfo]
    shared: ModelInfo | None
    gated: ModelInfo

    def compare(self, info: ModelInfo) -> Comparison | None:
        """`info` beside the single-task nets; None without them."""
        return compare(self.gated.tasks, info.metrics, {task: of.metrics[task] for task, of in self.single.items()})


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
    begun = _begun(out, tasks)
    if begun and not resume:
        raise InputError(f"{out}: holds a training already ({begun}); go on with --resume, or choose another --out")
    if resume and not begun:
        journal.say(f"{out}: holds no training to go on with; beginning one")
    if not recipe.sparsity.weight and recipe.gates.kind not in OVER_WHOLES:
        journal.say("sparsity.weight is 0: nothing but the tasks themselves makes channels shared, so few will be")
    check_collapsible(recipe, parts, tasks)
    start = {task.name: road.start(task) for task in tasks} if recipe.train.single_epochs else {}
    single = {task.name: road.single(task) for task in tasks} if recipe.train.rivals else {}
    shared = road.shared(tasks) if recipe.train.rivals else None
    gated = road.gated(tasks, start)
    checkpoint = out / FILE
    _publish(out / "gated" / FILE, checkpoint)
    trained = Trained(checkpoint, single, shared, gated)
    for info in filter(None, (shared, gated)):
        compared = trained.compare(info)
        if compared is not None and compared.delta_mtl is not None:
            journal.say(f"{info.form}: Δ_MTL over single-task nets {compared.delta_mtl:+.2f} %")
    return trained


def check_collapsible(recipe: Recipe, parts: Parts, tasks: tuple[Task, ...]) -> None:
    """Refuse before any training what could not be gated or collapsed after it.

    Raises:
        InputError: says what stands in the way.
    """
    gated_network(recipe, parts, tasks, {})
    plain = MultiHead(parts.make_backbone(), {task.name: parts.make_head(task) for task in tasks})
    channel_graph(precomputed(capture(plain, torch.zeros(2, *parts.data.input.shape))))


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

    def gated(self, tasks: tuple[Task, ...], start: Mapping[str, MultiHead]) -> ModelInfo:
        """The gated network, which starts from `start` by task and is trained for `train.epochs`."""
        self._seed("gated")
        network = gated_network(self.recipe, self.parts, tasks, start)
        return self._fit("gated", network, tasks, self.recipe.train.epochs, "gated")

    def _multi_head(self, stage: Stage, tasks: tuple[Task, ...]) -> MultiHead:
        self._seed(stage)
        return MultiHead(self.parts.make_backbone(), {task.name: self.parts.make_head(task) for task in tasks})

    def _fit(self, stage: Stage, network: nn.Module, tasks: tuple[Task, ...], epochs: int, folder: str) -> ModelInfo:
        run = Run(stage, network, tasks, epochs, self.recipe, self.parts.data, self.out / folder)
        return fit(run, self.journal, self.resume)

    def _seed(self, stage: Stage) -> None:
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
    if recipe.gates.kind in OVER_WHOLES and recipe.sparsity.weight:
        raise InputError(
            f"sparsity.weight closes channels (InterroGate eq. 4), and gates.kind {recipe.gates.kind} has none; leave "
            "it out, or gate channels"
        )
    heads = {task.name: parts.make_head(task) for task in tasks}
    network = gate(
        parts.make_backbone(),
        tasks,
        example_input=torch.zeros(2, *parts.data.input.shape),
        heads=heads,
        **recipe.gates.placing,
    )
    for task, net in start.items():
        heads[task].load_state_dict(net.heads[task].state_dict())
        network.load_branch(task, net.backbone.state_dict())
    return network


def _begun(out: Path, tasks: tuple[Task, ...]) -> Path | None:
    """A checkpoint of a training that was begun in `out`, if there is one."""
    own = (f"{stage}/{task.name}" for stage in ("start", "single") for task in tasks)
    files = (out / folder / FILE for folder in (*own, "shared", "gated", "."))
    return next((file for file in files if file.is_file()), None)


def _publish(source: Path, target: Path) -> None:
    """Let `target` be the file `source`, in one step."""
    with replacing_file(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:  # a file system without links
            shutil.copyfile(source, temporary)
