"""What each kind of task is measured by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gatedeploy.errors import CheckError, InputError
from gatedeploy.specs import Task, TaskKind
from gatedeploy.training.accumulator import Accumulator
from gatedeploy.training.accumulators import ACCUMULATORS, DEGREES
from gatedeploy.training.losses import check_fit

Metrics = Mapping[str, Mapping[str, float]]
"""Figures by task and metric, as in `ModelInfo.metrics`."""


@dataclass(frozen=True)
class Metric:
    """One figure that a task is measured by.

    Args:
        name: its key in `ModelInfo.metrics`.
        unit: what it is counted in; empty for a share between 0 and 1, or of something.
        lower_is_better: whether it is an error.
    """

    name: str
    unit: str
    lower_is_better: bool

    @property
    def arrow(self) -> str:
        """Which way is better, for headings."""
        return "↓" if self.lower_is_better else "↑"


METRICS: dict[TaskKind, tuple[Metric, ...]] = {
    "classification": (Metric("accuracy", "", False), Metric("auroc", "", False)),
    "segmentation": (Metric("mean_iou", "", False), Metric("pixel_accuracy", "", False)),
    "depth": (
        Metric("rmse", "depth units", True),
        Metric("absolute_error", "depth units", True),
        Metric("relative_error", "", True),
    ),
    "normals": (
        Metric("mean_angle", "degrees", True),
        Metric("median_angle", "degrees", True),
        *(Metric(f"within_{degrees:g}", "", False) for degrees in DEGREES),
    ),
    "saliency": (Metric("max_f", "", False), Metric("iou", "", False)),
    "edges": (Metric("ods_f", "", False), Metric("absolute_error", "", True)),
}
"""By kind of task; the first is the headline, which Δ_MTL and tables take. `accumulators` says what they are."""


def metrics_of(task: Task) -> tuple[Metric, ...]:
    """What a task is measured by.

    Raises:
        InputError: the task has no kind.
    """
    if task.kind is None:
        raise _unknown(task)
    return METRICS[task.kind]


def _unknown(task: Task) -> InputError:
    return InputError(f"task {task.name} has no kind, so there is no metric for it")


def headline(task: Task) -> Metric:
    """The metric that stands for a task where there is room for one; `InputError` for a task without a kind."""
    return metrics_of(task)[0]


def _accumulator(task: Task, device: torch.device) -> Accumulator:
    if task.kind is None:
        raise _unknown(task)
    return ACCUMULATORS[task.kind](task, device)


class Meter:
    """All metrics of all tasks, accumulated over batches."""

    def __init__(self, tasks: Sequence[Task], device: torch.device | str = "cpu") -> None:
        self._tasks = {task.name: task for task in tasks}
        self._accumulators = {task.name: _accumulator(task, torch.device(device)) for task in tasks}

    def update(self, predictions: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> None:
        """Take in one batch: predictions and labels by task, as `Task.kind` says.

        Raises:
            InputError: a prediction does not fit its labels.
        """
        for name, accumulator in self._accumulators.items():
            check_fit(self._tasks[name], predictions[name], labels[name])
            accumulator.update(predictions[name], labels[name])

    def compute(self) -> dict[str, dict[str, float]]:
        """The figures, by task and metric; one that is not the headline may be NaN, as the area under no ROC curve.

        Raises:
            CheckError: a headline is no number: no label was valid, or the predictions are not numbers.
        """
        figures = {name: accumulator.compute() for name, accumulator in self._accumulators.items()}
        for name, values in figures.items():
            metric = headline(self._tasks[name]).name
            if values[metric] != values[metric]:
                raise CheckError(
                    f"task {name}: {metric} is no number: either no label of the validation split is valid, or the "
                    "network predicts no numbers"
                )
        return figures
