from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gatedeploy.errors import InputError
from gatedeploy.specs import TASK_KINDS, Task
from gatedeploy.training.losses import LOSSES, depth_loss, normals_loss, segmentation_loss, task_loss

COLOUR = Task("colour", "classification", ("red", "green", "blue"))
PARTS = Task("parts", "segmentation", ("dark", "bright"))
DEPTH = Task("depth", "depth")
NORMALS = Task("normals", "normals")
SALIENCY = Task("foreground", "saliency")
EDGES = Task("contours", "edges")


def test_cross_entropy_by_hand() -> None:
    scores = torch.tensor([[0.0, 0.0, 0.0], [math.log(2), 0.0, 0.0]])
    loss = task_loss(COLOUR, scores, torch.tensor([1, 0]))
    assert loss.item() == pytest.approx((math.log(3) + math.log(4 / 2)) / 2)


def test_segmentation_averages_over_the_pixels_that_are_not_ignored() -> None:
    scores = torch.zeros(1, 2, 1, 3)
    scores[0, 0, 0, 0] = math.log(3)  # probabilities 3/4 and 1/4
    labels = torch.tensor([[[1, 0, 255]]])
    assert segmentation_loss(scores, labels).item() == pytest.approx((math.log(4) + math.log(2)) / 2)


def test_depth_leaves_nan_out() -> None:
    depth = torch.tensor([1.0, 5.0, 7.0]).view(1, 1, 1, 3)
    labels = torch.tensor([2.0, math.nan, 4.0]).view(1, 1, 1, 3)
    assert depth_loss(depth, labels).item() == pytest.approx((1 + 3) / 2)


def test_normals_are_compared_as_unit_vectors_and_zero_vectors_left_out() -> None:
    normals = torch.tensor([[3.0, 0.0, 4.0], [9.0, 9.0, 9.0]]).T.reshape(1, 3, 1, 2)
    labels = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]).T.reshape(1, 3, 1, 2)
    assert normals_loss(normals, labels).item() == pytest.approx((0.6 + 0 + 0.2) / 3)


def test_yes_and_no_by_hand() -> None:
    """Probabilities of 3/4, 1/2 and 1/5, where there is something, nothing and nothing, and one that does not count."""
    scores = torch.tensor([3.0, 1.0, 0.25, 9.0]).log().view(1, 1, 1, 4)
    labels = torch.tensor([[[1, 0, 0, 255]]])
    parts = [math.log(4 / 3), math.log(2), math.log(5 / 4)]
    assert task_loss(SALIENCY, scores, labels).item() == pytest.approx(sum(parts) / 3)
    weighted = 0.95 * parts[0] + 0.05 * (parts[1] + parts[2])
    assert task_loss(EDGES, scores, labels).item() == pytest.approx(weighted / 3)


NOTHING_VALID: dict[str, tuple[Task, Tensor, Tensor]] = {
    "segmentation": (PARTS, torch.randn(2, 2, 3, 3), torch.full((2, 3, 3), 255)),
    "depth": (DEPTH, torch.randn(2, 1, 3, 3), torch.full((2, 1, 3, 3), math.nan)),
    "normals": (NORMALS, torch.randn(2, 3, 3, 3), torch.zeros(2, 3, 3, 3)),
    "saliency": (SALIENCY, torch.randn(2, 1, 3, 3), torch.full((2, 3, 3), 255)),
    "edges": (EDGES, torch.randn(2, 1, 3, 3), torch.full((2, 3, 3), 255)),
}


@pytest.mark.parametrize("kind", NOTHING_VALID)
def test_a_batch_without_valid_labels_gives_loss_0_and_gradient_0(kind: str) -> None:
    task, prediction, labels = NOTHING_VALID[kind]
    prediction = prediction.clone().requires_grad_()
    loss = task_loss(task, prediction, labels)
    loss.backward()
    assert loss.item() == 0
    assert prediction.grad is not None
    assert torch.equal(prediction.grad, torch.zeros_like(prediction))


@pytest.mark.parametrize("kind", NOTHING_VALID)
def test_ignored_pixels_get_no_gradient(kind: str) -> None:
    task, prediction, labels = NOTHING_VALID[kind]
    labels = labels.clone()
    prediction = prediction.clone().requires_grad_()
    labels[0, ..., 0, 0] = 1 if task is PARTS else 0.5  # one valid pixel
    task_loss(task, prediction, labels).backward()
    assert prediction.grad is not None
    assert prediction.grad[0, :, 0, 0].abs().sum() > 0
    prediction.grad[0, :, 0, 0] = 0
    assert torch.equal(prediction.grad, torch.zeros_like(prediction))


def test_every_kind_of_task_has_a_loss() -> None:
    assert set(LOSSES) == set(TASK_KINDS)


@pytest.mark.parametrize(
    ("task", "predicted", "labels", "expected"),
    [
        (DEPTH, (2, 1, 1, 1), torch.zeros(2, 1, 4, 4), r"\(2, 1, 4, 4\)"),
        (PARTS, (2, 2, 2, 2), torch.zeros(2, 4, 4, dtype=torch.int64), r"\(2, 2, 4, 4\)"),
        (COLOUR, (2, 2), torch.zeros(2, dtype=torch.int64), r"\(2, 3\)"),
    ],
    ids=["depth", "parts", "colour"],
)
def test_a_prediction_of_the_wrong_shape_is_named(
    task: Task, predicted: tuple[int, ...], labels: Tensor, expected: str
) -> None:
    with pytest.raises(InputError, match=rf"task {task.name}: the network predicts .* its labels ask for {expected}"):
        task_loss(task, torch.zeros(predicted), labels)


def test_a_task_without_a_kind_has_no_loss() -> None:
    with pytest.raises(InputError, match=r"task puzzle has no kind, so there is no loss for it"):
        task_loss(Task("puzzle"), torch.zeros(1, 1), torch.zeros(1))
