"""One network to be trained, and on what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from gatedeploy.specs import Task
from gatedeploy.training.balance_sections import AnyBalance, Sum
from gatedeploy.training.batches import Data
from gatedeploy.training.recipe import Recipe


@dataclass(frozen=True)
class Run:
    """One network to be trained.

    Args:
        stage: what it is trained for: `start`, `single`, `shared`, `gated`, or the name of a method; see
            `gatedeploy.training.stages`.
        network: maps pictures to predictions by task; is trained in place, and ends on the CPU.
        tasks: what it is trained on.
        epochs: how often it sees every picture.
        recipe: everything else about its training.
        data: pictures and labels.
        folder: where `checkpoint.pt` and TensorBoard's files go.
    """

    stage: str
    network: nn.Module
    tasks: tuple[Task, ...]
    epochs: int
    recipe: Recipe
    data: Data
    folder: Path

    @property
    def own(self) -> bool:
        """Whether it is what the recipe is about, and neither a rival nor what it starts from."""
        return self.stage == self.recipe.form

    @property
    def hold_out(self) -> float:
        """The share of the training pictures that its weights do not learn from."""
        return self.recipe.train.hold_out if self.own else 0.0

    @property
    def balance(self) -> AnyBalance:
        """How its losses become one step."""
        return self.recipe.train.balance if self.own else Sum()

    @property
    def title(self) -> str:
        """How the run is called in messages: `gated`, `single depth`."""
        return f"{self.stage} {self.tasks[0].name}" if self.form == "single" else self.stage

    @property
    def form(self) -> str:
        """What the network is, see `ModelInfo`."""
        return "single" if self.stage == "start" else self.stage
