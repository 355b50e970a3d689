"""What a recipe says: the data, the network, the tasks, the gates and how they are trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from gatedeploy.errors import InputError, closest
from gatedeploy.specs import Task
from gatedeploy.training.balance_sections import MGDA, OF_GRADIENTS, AnyBalance, Sum
from gatedeploy.training.sections import Component, FieldError, Section, Within

Fraction = Annotated[float, Within(0, 1)]
Positive = Annotated[float, Within(0, above=True)]
NotNegative = Annotated[float, Within(0)]


@dataclass(frozen=True)
class Model(Section):
    """The network, whose parts are looked up by name.

    Args:
        backbone: the trunk, e.g. `{name: resnet20, width: 0.25}`.
        head: the head of every task that names none of its own.
        weights: a file of pretrained weights in which every trunk starts, among them the shared branch.
    """

    backbone: Component
    head: Component | None = None
    weights: str | None = None


@dataclass(frozen=True)
class TaskSettings(Section):
    """How one task is trained.

    Args:
        weight: ω_t of InterroGate eq. 1.
        sparsity_target: τ_t of eq. 4.
        head: its head; None takes `model.head`.
    """

    weight: Positive = 1.0
    sparsity_target: Fraction = 0.0
    head: Component | None = None


@dataclass(frozen=True)
class Gates(Section):
    """The gates and their end.

    Args:
        group: how many neighbouring channels share one α.
        tie: `residual` gives all block outputs on one residual stream one gate.
        sites: `auto`, or the names of the nodes to gate; `encoder` or `decoder` for gates behind the whole of it.
        kind: `channel`; `head` gives each head of attention one gate over q, k and v; behind encoders and decoders
            `soft` (SMTL, SMTL_c) or `drawn` (L-SMTL, L-SMTL_c).
        learning_rate: of the gates' SGD (supplement B.1).
        freeze_at: the share of the run after which gates stand still, so that the weights can follow; null: one half
            for channels and heads, and never for the others.
    """

    group: Annotated[int, Within(1)] = 1
    tie: Literal["residual"] | None = None
    sites: Literal["auto", "encoder", "decoder"] | tuple[str, ...] = "auto"
    kind: Literal["channel", "head", "soft", "drawn"] = "channel"
    learning_rate: Positive = 0.1
    freeze_at: Fraction | None = None

    @property
    def placing(self) -> dict[str, Any]:
        """The arguments of `gate` that say where gates stand and what they have in common."""
        sites = self.sites if isinstance(self.sites, str) else list(self.sites)
        return {"sites": sites, "group": self.group, "tie": self.tie, "gates": self.kind}

    @property
    def end(self) -> float:
        """The share of the run after which gates stand still."""
        if self.freeze_at is not None:
            return self.freeze_at
        return 0.5 if self.kind in ("channel", "head") else 1.0


@dataclass(frozen=True)
class Sparsity(Section):
    """The penalty that makes tasks share (eq. 4).

    Args:
        weight: λ_s; 0 leaves the gates to the tasks alone.
        form: `hinge` (eq. 4) or `l1`, which knows no targets.
        scale: factor on the gradient; None takes each site's number of channels.
        ramp: the share of the run over which λ_s grows from 0 to `weight`.
    """

    weight: NotNegative = 0.0
    form: Literal["hinge", "l1"] = "hinge"
    scale: Positive | None = None
    ramp: Fraction = 0.1


@dataclass(frozen=True)
class Budget(Section):
    """What the collapsed network may cost; gates are drawn to it, and meet it when they stand still.

    Args:
        macs: its multiply-adds for one picture. Up to 1: a share of those of the gated network, all its branches.
        tasks: by task, those that its own branch and head compute. Up to 1: a share of what these have.
        ms: instead of these, the milliseconds that its layers, additions and mixes are predicted to take for one
            picture on `target`, as `prune --budget` counts them. Gates are drawn to as many multiply-adds as should
            take that long.
        target: what to deploy on, as `prune --target`; nothing to multiply-adds.
    """

    macs: Positive | None = None
    tasks: Mapping[str, Positive] = field(default_factory=dict)
    ms: Positive | None = None
    target: Literal["cpu", "openvino", "gpu", "tensorrt"] = "cpu"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.macs is None and not self.tasks and self.ms is None:
            raise FieldError(("macs",), "is missing; name what the collapsed network may cost, such as 0.4, or ms")
        if self.ms is not None and (self.macs is not None or self.tasks):
            raise FieldError(("ms",), "stands alone; leave out either it or multiply-adds")


@dataclass(frozen=True)
class Constant(Section):
    """The learning rate stays."""

    name: Literal["constant"] = "constant"


@dataclass(frozen=True)
class Step(Section):
    """The learning rate falls in steps (supplement B.1: every 20 epochs to 1/3).

    Args:
        every: epochs from one step to the next.
        factor: what it is multiplied by.
    """

    name: Literal["step"] = "step"
    every: Annotated[int, Within(1)] = 20
    factor: Annotated[float, Within(0, 1, above=True)] = 1 / 3


@dataclass(frozen=True)
class Polynomial(Section):
    """The learning rate falls as (1 − share of the run)^`power` (supplement B.2: 0.9).

    Args:
        power: 1 is a straight line.
    """

    name: Literal["polynomial"] = "polynomial"
    power: Positive = 0.9


@dataclass(frozen=True)
class Train(Section):
    """The loop.

    Args:
        epochs: of the gated network.
        single_epochs: of each single-task network, from which branches and heads start; 0 starts them afresh.
        rivals: whether to train also what the gated network has to beat: each task's own network and one shared
            encoder, each for `single_epochs` and `epochs` together.
        hold_out: the share of the training pictures from which gates learn, and nothing else does: the bi-level form
            (Safe MTL eq. 6). With `auto_lambda`, that by which it weighs the losses. 0: all learn from all.
        batch_size: pictures a step; the pictures that fill no batch are left out, others each epoch.
        learning_rate: of the weights' Adam.
        head_learning_rate: the same for the heads' weights; None takes `learning_rate`.
        weight_decay: likewise.
        schedule: how the learning rate falls.
        balance: how the losses of several tasks become one step; of one task it is always the loss itself.
        precision: `16-mixed` needs a GPU.
        seed: of weights, dropout, the order of pictures and how they are augmented.
        unreadable: what becomes of a training picture whose file cannot be read: `stop`, or `skip`, which puts the next
            readable one of its batch in its place. One to validate on always stops, for figures must be of the same
            pictures.
        accelerator: `auto` takes a GPU if there is one.
        compile: whether `torch.compile` makes machine code of the step. That takes minutes before the first step, and
            again once gates stand still, and pays in long trainings.
    """

    epochs: Annotated[int, Within(1)]
    single_epochs: Annotated[int, Within(0)] = 0
    rivals: bool = False
    hold_out: Annotated[float, Within(0, 0.9)] = 0.0
    batch_size: Annotated[int, Within(1)] = 128
    learning_rate: Positive = 1e-3
    head_learning_rate: Positive | None = None
    weight_decay: NotNegative = 1e-4
    schedule: Constant | Step | Polynomial = field(default_factory=Polynomial)
    balance: AnyBalance = field(default_factory=Sum)
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    seed: Annotated[int, Within(0)] = 0
    unreadable: Literal["stop", "skip"] = "stop"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    compile: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.precision == "16-mixed" and isinstance(self.balance, OF_GRADIENTS):
            name = self.balance.name
            sentence = f"16-mixed scales gradients, which balance {name} looks at; take bf16-mixed or 32-true"
            raise FieldError(("precision",), sentence)
        if self.compile and isinstance(self.balance, MGDA) and self.balance.upper_bound:
            sentence = "MGDA's upper bound looks into the network, which compiled code does not allow; leave one out"
            raise FieldError(("compile",), sentence)

    @property
    def rival_epochs(self) -> int:
        """How long each rival is trained: as long as the gated network and what it starts from together."""
        return self.single_epochs + self.epochs


@dataclass(frozen=True)
class Recipe(Section):
    """One training, whole.

    Args:
        data: the data set, e.g. `{name: scenes, train: 2000}`.
        model: the network.
        train: the loop.
        tasks: the tasks to train, in order; empty takes all that the data set offers.
        method: what tasks share by instead of gates, e.g. `{name: cross_stitch}`; None for gates.
        gates: the gates; nothing to another method.
        sparsity: the penalty on them; likewise.
        budget: what the collapsed network may cost, instead of a penalty; likewise.
    """

    data: Component
    model: Model
    train: Train
    tasks: Mapping[str, TaskSettings] = field(default_factory=dict)
    method: Component | None = None
    gates: Gates = field(default_factory=Gates)
    sparsity: Sparsity = field(default_factory=Sparsity)
    budget: Budget | None = None

    def chosen_tasks(self, offered: Sequence[Task]) -> tuple[Task, ...]:
        """The tasks to train, with the recipe's weights and targets.

        Args:
            offered: the tasks of the data set.

        Raises:
            InputError: the data set does not offer one of them.
        """
        by_name = {task.name: task for task in offered}
        for name in self.tasks:
            if name not in by_name:
                near = closest(name, list(by_name))
                raise InputError(
                    f"tasks.{name}: no such task. The data set `{self.data.name}` offers: {', '.join(by_name)}{near}"
                )
        settings = self.tasks or {name: TaskSettings() for name in by_name}
        return tuple(
            dataclasses.replace(by_name[name], weight=chosen.weight, sparsity_target=chosen.sparsity_target)
            for name, chosen in settings.items()
        )

    @property
    def form(self) -> str:
        """What the network is that it is all about: `gated`, or the name of its method."""
        return self.method.name if self.method else "gated"

    def head(self, task: str) -> Component:
        """The head of a task: its own, or that of all.

        Raises:
            InputError: there is neither.
        """
        settings = self.tasks.get(task)
        head = (settings and settings.head) or self.model.head
        if head is None:
            raise InputError(f"tasks.{task}.head: is missing, and there is no model.head for all tasks; name one")
        return head
