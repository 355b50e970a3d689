"""What each kind of task is trained on: one loss per kind, which looks at valid labels alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from gatedeploy.errors import InputError
from gatedeploy.specs import IGNORED_CLASS, Task, TaskKind


def class_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy. `scores`: (batch, classes). `labels`: (batch,) int64."""
    return F.cross_entropy(_single(scores), labels)


def segmentation_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the pixels that are not 255; 0 if there are none.

    `scores`: (batch, classes, height, width). `labels`: (batch, height, width) int64.
    """
    total = F.cross_entropy(_single(scores), labels, ignore_index=IGNORED_CLASS, reduction="sum")
    return total / (labels != IGNORED_CLASS).sum().clamp_min(1)


def depth_loss(depth: Tensor, labels: Tensor) -> Tensor:
    """Mean absolute error of the pixels that are not NaN, in the labels' unit; 0 if there are none.

    Both: (batch, 1, height, width).
    """
    valid = ~labels.isnan()
    # The hole is filled before subtracting: 0 · NaN would be NaN, in the gradient too.
    difference = _single(depth) - torch.where(valid, labels, 0.0)
    return torch.where(valid, difference.abs(), 0.0).sum() / valid.sum().clamp_min(1)


def normals_loss(normals: Tensor, labels: Tensor) -> Tensor:
    """Mean absolute difference, per component, of unit vectors; pixels whose label is the zero vector do not count.

    Both: (batch, 3, height, width); the prediction may have any length.
    """
    valid = (labels != 0).any(1, keepdim=True)
    difference = unit(normals) - labels
    return torch.where(valid, difference.abs(), 0.0).sum() / (3 * valid.sum()).clamp_min(1)


def saliency_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean binary cross-entropy of the pixels that are not 255; 0 if there are none.

    `scores`: (batch, 1, height, width). `labels`: (batch, height, width) int64, 0 or 1.
    """
    return _binary(scores, labels, 0.5) * 2


def edges_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy in which an edge counts 19 times what a pixel without one does, for edges are few.

    Mean over the pixels that are not 255, of weights 0.95 and 0.05 (Maninis et al. 2019, as InterroGate's protocol);
    shapes as `saliency_loss`.
    """
    return _binary(scores, labels, 0.95)


def _binary(scores: Tensor, labels: Tensor, weight: float) -> Tensor:
    """Mean over valid pixels of binary cross-entropy, times `weight` for a label of 1, `1 − weight` for one of 0."""
    valid, yes = labels != IGNORED_CLASS, labels == 1
    scores = _single(scores[:, 0])
    each = F.binary_cross_entropy_with_logits(scores, yes.to(scores), reduction="none")
    weights = torch.where(yes, weight, 1 - weight) * valid
    return (each * weights).sum() / valid.sum().clamp_min(1)


def unit(vectors: Tensor) -> Tensor:
    """`vectors`: (batch, 3, …) of any length; the result has length 1 along axis 1."""
    return F.normalize(_single(vectors), dim=1, eps=1e-6)


def _single(values: Tensor) -> Tensor:
    """In single precision, unless it is double already: sums over pixels are none for half precision."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


LOSSES: dict[TaskKind, Callable[[Tensor, Tensor], Tensor]] = {
    "classification": class_loss,
    "segmentation": segmentation_loss,
    "depth": depth_loss,
    "normals": normals_loss,
    "saliency": saliency_loss,
    "edges": edges_loss,
}
"""By kind of task: cross-entropy for classes, what stands out and edges, L1 for depth and normals (InterroGate B.2)."""


COUNTS: dict[TaskKind, Callable[[Tensor], Tensor]] = {
    "classification": lambda labels: torch.tensor(len(labels), device=labels.device),
    "segmentation": lambda labels: (labels != IGNORED_CLASS).sum(),
    "depth": lambda labels: (~labels.isnan()).sum(),
    "normals": lambda labels: (labels != 0).any(1).sum(),
    "saliency": lambda labels: (labels != IGNORED_CLASS).sum(),
    "edges": lambda labels: (labels != IGNORED_CLASS).sum(),
}
"""By kind of task: of how many labels the loss is a mean."""


def task_loss(task: Task, prediction: Tensor, labels: Tensor) -> Tensor:
    """The loss of one task on one batch, a scalar of at least single precision, not yet weighted by ω_t.

    Raises:
        InputError: the task has no kind, or prediction and labels do not fit each other.
    """
    if task.kind is None:
        raise InputError(f"task {task.name} has no kind, so there is no loss for it")
    check_fit(task, prediction, labels)
    return LOSSES[task.kind](prediction, labels)


def check_fit(task: Task, prediction: Tensor, labels: Tensor) -> None:
    """Raise `InputError` unless the prediction has the shape that task and labels ask for.

    Without it a map of one pixel would be broadcast over all labels.
    """
    places = labels.shape[2:] if task.kind in ("depth", "normals") else labels.shape[1:]
    expected = (len(labels), task.channels, *places)
    if tuple(prediction.shape) != expected:
        raise InputError(
            f"task {task.name}: the network predicts {tuple(prediction.shape)}, its labels ask for {expected}; "
            "choose a head that answers at the labels' size"
        )
