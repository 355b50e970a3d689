"""Gather the figures that a kind of task is measured by, batch by batch; what is not labelled does not count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gatedeploy.errors import MissingExtraError
from gatedeploy.specs import IGNORED_CLASS, Task, TaskKind
from gatedeploy.training.accumulator import Accumulator
from gatedeploy.training.binary_maps import Edges, Saliency

DEGREES = (11.25, 22.5, 30.0)
"""Of how many pixels the normals are off by no more than that is asked, as is usual since Eigen and Fergus (2015)."""


class Classes(Accumulator):
    """The share of pictures that are told right, and the areas under ROC curves."""

    def __init__(self, task: Task, device: torch.device) -> None:
        self.accuracy = _multiclass("MulticlassAccuracy", task, device, average="micro")
        self.scores: list[Tensor] = []
        self.labels: list[Tensor] = []

    def update(self, prediction: Tensor, labels: Tensor) -> None:
        """`prediction`: (batch, classes) scores. `labels`: (batch,)."""
        self.accuracy.update(prediction, labels)
        self.scores.append(prediction.double().softmax(1).cpu())
        self.labels.append(labels.cpu())

    def compute(self) -> dict[str, float]:
        """`accuracy`, `auroc`."""
        return {"accuracy": float(self.accuracy.compute()), "auroc": self._auroc()}

    def _auroc(self) -> float:
        """The mean over classes of the area under the curve of that class against all others.

        A class that all pictures are of, or none, has no such area.
        """
        scores, labels = torch.cat(self.scores), torch.cat(self.labels)
        area = _torchmetrics().functional.classification.binary_auroc
        of_class = [labels == number for number in range(scores.shape[1])]
        areas = [
            float(area(scores[:, number], here.long(), validate_args=False))
            for number, here in enumerate(of_class)
            if here.any() and not here.all()
        ]
        return sum(areas) / len(areas) if areas and bool(scores.isfinite().all()) else float("nan")


class Segments(Accumulator):
    """How well regions are met."""

    def __init__(self, task: Task, device: torch.device) -> None:
        self.mean_iou = _multiclass("MulticlassJaccardIndex", task, device, ignore_index=IGNORED_CLASS)
        self.accuracy = _multiclass("MulticlassAccuracy", task, device, average="micro", ignore_index=IGNORED_CLASS)

    def update(self, prediction: Tensor, labels: Tensor) -> None:
        """`prediction`: (batch, classes, height, width) scores. `labels`: (batch, height, width)."""
        self.mean_iou.update(prediction, labels)
        self.accuracy.update(prediction, labels)

    def compute(self) -> dict[str, float]:
        """`mean_iou`, `pixel_accuracy`."""
        return {"mean_iou": float(self.mean_iou.compute()), "pixel_accuracy": float(self.accuracy.compute())}


class Depths(Accumulator):
    """How far depths are off: at worst pixels most (RMS), in their unit, and relative to what is true (above 0)."""

    def __init__(self, task: Task, device: torch.device) -> None:
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)
        self.counts = torch.zeros(3, dtype=torch.int64, device=device)

    def update(self, prediction: Tensor, labels: Tensor) -> None:
        """Both: (batch, 1, height, width)."""
        valid = ~labels.isnan()
        expected = labels[valid].double()
        off = (prediction[valid].double() - expected).abs()
        has_scale = expected > 0
        self.sums += torch.stack([off.square().sum(), off.sum(), (off[has_scale] / expected[has_scale]).sum()])
        self.counts += torch.stack([valid.sum(), valid.sum(), has_scale.sum()])

    def compute(self) -> dict[str, float]:
        """`rmse`, `absolute_error`, `relative_error`."""
        square, absolute, relative = (self.sums / self.counts).tolist()  # 0 / 0 is NaN, as it should be
        return {"rmse": square**0.5, "absolute_error": absolute, "relative_error": relative}


class Angles(Accumulator):
    """By which angles normals are off.

    They are counted in steps of a hundredth of a degree, for those of all pixels of a data set would not fit in memory:
    the median and the limits of shares are right to half of that.
    """

    STEPS = 100
    """In a degree."""

    def __init__(self, task: Task, device: torch.device) -> None:
        self.total = torch.zeros((), dtype=torch.float64, device=device)
        self.counts = torch.zeros(180 * self.STEPS + 1, dtype=torch.int64, device=device)

    def update(self, prediction: Tensor, labels: Tensor) -> None:
        """Both: (batch, 3, height, width)."""
        valid = (labels != 0).any(1)
        # In float32, rounding alone makes three hundredths of a degree of a perfect prediction.
        cosine = (F.normalize(prediction.double(), dim=1) * F.normalize(labels.double(), dim=1)).sum(1)[valid]
        angles = torch.rad2deg(cosine.clamp(-1, 1).acos())
        self.total += angles.sum()
        steps = (angles * self.STEPS).nan_to_num().round().long()
        self.counts += torch.bincount(steps, minlength=len(self.counts))

    def compute(self) -> dict[str, float]:
        """`mean_angle`, `median_angle` in degrees; `within_…`, shares of pixels."""
        seen = self.counts.cumsum(0) / self.counts.sum()
        mean = float(self.total / self.counts.sum())
        median = int((seen >= 0.5).int().argmax()) / self.STEPS
        within = {f"within_{degrees:g}": float(seen[round(degrees * self.STEPS)]) for degrees in DEGREES}
        figures = {"mean_angle": mean, "median_angle": median, **within}
        return figures if mean == mean else dict.fromkeys(figures, mean)


ACCUMULATORS: dict[TaskKind, Callable[[Task, torch.device], Accumulator]] = {
    "classification": Classes,
    "segmentation": Segments,
    "depth": Depths,
    "normals": Angles,
    "saliency": Saliency,
    "edges": Edges,
}


def _multiclass(name: str, task: Task, device: torch.device, **options: Any) -> Any:
    """One of torchmetrics' figures over a task's classes; of several processes only the one that asks measures."""
    kind = getattr(_torchmetrics().classification, name)
    return kind(len(task.classes), validate_args=False, sync_on_compute=False, **options).to(device)


def _torchmetrics() -> Any:
    try:
        import torchmetrics
    except ImportError:
        raise MissingExtraError("measuring a network", "torchmetrics", "train") from None
    return torchmetrics
