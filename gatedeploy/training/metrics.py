"""What each kind of task is measured by, and how a network compares with single-task ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from gatedeploy.errors import CheckError, InputError, MissingExtraError
from gatedeploy.specs import IGNORED_CLASS, Task, TaskKind
from gatedeploy.training.losses import check_fit

Metrics = Mapping[str, Mapping[str, float]]
"""Figures by task and metric, as in `ModelInfo.metrics`."""


@dataclass(frozen=True)
class Metric:
    """One figure that a task is measured by.

    Args:
        name: its key in `ModelInfo.metrics`.
        unit: what it is counted in; empty for a share between 0 and 1.
        lower_is_better: whether it is an error.
        accumulate: makes an accumulator for a task: `update(prediction, labels)` per batch, then `compute()`.
    """

    name: str
    unit: str
    lower_is_better: bool
    accumulate: Callable[[Task], Any]


class _Masked:
    """A torchmetrics metric fed with the valid pixels of depth maps alone."""

    def __init__(self, metric: Any) -> None:
        self.metric = metric
        self.seen = False

    def to(self, device: torch.device) -> _Masked:
        self.metric.to(device)
        return self

    def update(self, depth: Tensor, labels: Tensor) -> None:
        valid = ~labels.isnan()
        if valid.any():
            self.seen = True
            self.metric.update(depth.float()[valid], labels[valid])

    def compute(self) -> Tensor | float:
        return cast(Tensor, self.metric.compute()) if self.seen else float("nan")


class _Angle:
    """The mean angle between predicted and true normals in degrees; the zero vector is no label."""

    def __init__(self) -> None:
        self.total = torch.zeros((), dtype=torch.float64)
        self.count = torch.zeros((), dtype=torch.int64)

    def to(self, device: torch.device) -> _Angle:
        self.total, self.count = self.total.to(device), self.count.to(device)
        return self

    def update(self, normals: Tensor, labels: Tensor) -> None:
        valid = (labels != 0).any(1)
        # In float32, rounding alone makes three hundredths of a degree of a perfect prediction.
        cosine = (F.normalize(normals.double(), dim=1) * F.normalize(labels.double(), dim=1)).sum(1)[valid]
        self.total += torch.rad2deg(cosine.clamp(-1, 1).acos()).sum()
        self.count += valid.sum()

    def compute(self) -> Tensor:
        return self.total / self.count  # 0 / 0 is NaN, as it should be


def _torchmetrics() -> Any:
    try:
        import torchmetrics
    except ImportError:
        raise MissingExtraError("measuring a network", "torchmetrics", "train") from None
    return torchmetrics


def _accuracy(task: Task) -> Any:
    kind = _torchmetrics().classification.MulticlassAccuracy
    ignored = IGNORED_CLASS if task.kind == "segmentation" else None
    return kind(len(task.classes), average="micro", ignore_index=ignored, validate_args=False)


def _mean_iou(task: Task) -> Any:
    kind = _torchmetrics().classification.MulticlassJaccardIndex
    return kind(len(task.classes), ignore_index=IGNORED_CLASS, validate_args=False)


METRICS: dict[TaskKind, tuple[Metric, ...]] = {
    "classification": (Metric("accuracy", "", False, _accuracy),),
    "segmentation": (Metric("mean_iou", "", False, _mean_iou), Metric("pixel_accuracy", "", False, _accuracy)),
    "depth": (
        Metric("rmse", "depth units", True, lambda task: _Masked(_torchmetrics().MeanSquaredError(squared=False))),
        Metric("absolute_error", "depth units", True, lambda task: _Masked(_torchmetrics().MeanAbsoluteError())),
    ),
    "normals": (Metric("mean_angle", "degrees", True, lambda task: _Angle()),),
}
"""By kind of task; the first is the headline, which Δ_MTL and tables take."""


def metrics_of(task: Task) -> tuple[Metric, ...]:
    """What a task is measured by.

    Raises:
        InputError: the task has no kind.
    """
    if task.kind is None:
        raise InputError(f"task {task.name} has no kind, so there is no metric for it")
    return METRICS[task.kind]


def headline(task: Task) -> Metric:
    """The metric that stands for a task where there is room for one; `InputError` for a task without a kind."""
    return metrics_of(task)[0]


class Meter:
    """All metrics of all tasks, accumulated over batches."""

    def __init__(self, tasks: Sequence[Task], device: torch.device | str = "cpu") -> None:
        self._tasks = {task.name: task for task in tasks}
        self._accumulators = {
            task.name: {metric.name: metric.accumulate(task).to(torch.device(device)) for metric in metrics_of(task)}
            for task in tasks
        }

    def update(self, predictions: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> None:
        """Take in one batch: predictions and labels by task, as `Task.kind` says.

        Raises:
            InputError: a prediction does not fit its labels.
        """
        for name, accumulators in self._accumulators.items():
            check_fit(self._tasks[name], predictions[name], labels[name])
            for accumulator in accumulators.values():
                accumulator.update(predictions[name], labels[name])

    def compute(self) -> dict[str, dict[str, float]]:
        """The figures, by task and metric.

        Raises:
            CheckError: a figure is no number: no label was valid, or the predictions are not numbers.
        """
        figures = {
            name: {metric: float(accumulator.compute()) for metric, accumulator in accumulators.items()}
            for name, accumulators in self._accumulators.items()
        }
        for name, values in figures.items():
            for metric, value in values.items():
                if value != value:
                    raise CheckError(
                        f"task {name}: {metric} is no number: either no label of the validation split is valid, or the "
                        "network predicts no numbers"
                    )
        return figures


def gain(tasks: Sequence[Task], model: Metrics, single: Metrics) -> float | None:
    """Δ_MTL of the tasks' headline metrics, in percent; None where one is missing or a single-task network reached 0.

    Args:
        tasks: what is compared.
        model: metric by name and task, of the model.
        single: likewise, of the single-task networks.
    """
    if not tasks or any(task.kind is None for task in tasks):
        return None
    names = {task.name: headline(task).name for task in tasks}
    if not all(name in model.get(task, {}) and single.get(task, {}).get(name) for task, name in names.items()):
        return None
    ours = {task: model[task][name] for task, name in names.items()}
    theirs = {task: single[task][name] for task, name in names.items()}
    return delta_mtl(ours, theirs, [task.name for task in tasks if headline(task).lower_is_better])


def delta_mtl(model: Mapping[str, float], single: Mapping[str, float], lower_is_better: Collection[str]) -> float:
    """Mean relative gain over single-task nets, in percent (InterroGate eq. 6; Maninis et al. 2019).

    Args:
        model: metric per task of the model, e.g. {"segmentation": 42.3, "depth": 0.564}.
        single: the same metrics of the single-task nets; none may be 0.
        lower_is_better: the tasks whose metric is an error.

    Raises:
        InputError: the two differ in tasks, there are none, or a single-task metric is 0.

    >>> round(delta_mtl({"seg": 44.0, "depth": 0.54}, {"seg": 40.0, "depth": 0.60}, {"depth"}), 1)
    10.0
    """
    if set(model) != set(single) or not model:
        raise InputError(
            f"Δ_MTL compares the same tasks: the model has {', '.join(model) or 'none'}, "
            f"the single-task nets {', '.join(single) or 'none'}"
        )
    gains = []
    for task, value in model.items():
        if single[task] == 0:
            raise InputError(f"Δ_MTL: the single-task metric of {task} is 0, so no gain can be relative to it")
        change = (value - single[task]) / single[task]
        gains.append(-change if task in lower_is_better else change)
    return 100 * sum(gains) / len(gains)
