"""A small data set and networks for it, so that trainings take a second."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from gatedeploy.specs import InputSpec, Task
from gatedeploy.training.recipe import Recipe
from gatedeploy.training.stages import Parts

TASKS = (
    Task("colour", "classification", ("red", "green")),
    Task("parts", "segmentation", ("dark", "bright")),
    Task("depth", "depth"),
    Task("normals", "normals"),
)


@dataclass
class Noise:
    """Pictures of noise; every label follows from the picture."""

    count: int
    seed: int
    asked: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.images = torch.randn(self.count, 3, 8, 8, generator=torch.Generator().manual_seed(self.seed))

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: Sequence[int], /) -> tuple[Tensor, dict[str, Tensor]]:
        self.asked.append(list(indices))
        images = self.images[list(indices)]
        return images, {
            "colour": (images[:, 0].mean((1, 2)) < images[:, 1].mean((1, 2))).long(),
            "parts": (images.mean(1) > 0).long(),
            "depth": images.mean(1, keepdim=True),
            "normals": nn.functional.normalize(images, dim=1),
        }


@dataclass
class MadeUp:
    train: Noise = field(default_factory=lambda: Noise(24, 1))
    val: Noise = field(default_factory=lambda: Noise(10, 2))
    input: InputSpec = InputSpec(3, 8, 8)  # noqa: RUF009  frozen
    tasks: tuple[Task, ...] = TASKS


class Head(nn.Module):
    def __init__(self, task: Task) -> None:
        super().__init__()
        self.predict = nn.Conv2d(8, task.channels, 1)
        self.dense = task.dense

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.predict(x)
        return y if self.dense else y.mean((2, 3))


def make_backbone() -> nn.Module:
    """With batch norm and dropout, whose states are easily forgotten."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
    )


def without_dropout() -> nn.Module:
    """The same in training as in evaluation, but for the statistics of norms."""
    return nn.Sequential(*(layer for layer in make_backbone().children() if not isinstance(layer, nn.Dropout)))


def parts(data: MadeUp | None = None, backbone: Callable[[], nn.Module] = make_backbone) -> Parts:
    return Parts(data or MadeUp(), backbone, Head)


def recipe(*, epochs: int = 2, single_epochs: int = 0, **sections: object) -> Recipe:
    train = {"epochs": epochs, "single_epochs": single_epochs, "batch_size": 8, "accelerator": "cpu"}
    changed = sections.pop("train", {})
    assert isinstance(changed, dict)
    plain = {"data": {"name": "made_up"}, "model": {"backbone": {"name": "small"}}, "train": {**train, **changed}}
    return Recipe.from_plain({**plain, **sections})


def weights(path: Path) -> dict[str, Tensor]:
    from gatedeploy.training.snapshots import read_snapshot

    return read_snapshot(path).network
