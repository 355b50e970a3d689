from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gatedeploy.errors import CheckError, InputError
from gatedeploy.specs import Task
from gatedeploy.training.metrics import METRICS, Meter, headline

COLOUR = Task("colour", "classification", ("red", "green", "blue"))
PARTS = Task("parts", "segmentation", ("a", "b", "c"))
DEPTH = Task("depth", "depth")
NORMALS = Task("normals", "normals")


def measured(task: Task, *batches: tuple[Tensor, Tensor]) -> dict[str, float]:
    meter = Meter([task])
    for prediction, labels in batches:
        meter.update({task.name: prediction}, {task.name: labels})
    return meter.compute()[task.name]


def one_hot(labels: Tensor, classes: int) -> Tensor:
    return torch.nn.functional.one_hot(labels, classes).movedim(-1, 1).float()


def test_accuracy_over_batches_of_different_size() -> None:
    first = (one_hot(torch.tensor([0, 1, 2]), 3), torch.tensor([0, 1, 0]))
    second = (one_hot(torch.tensor([2]), 3), torch.tensor([2]))
    assert measured(COLOUR, first, second)["accuracy"] == 0.75


def test_the_area_under_the_roc_curve_by_hand() -> None:
    """Of the pairs of one picture of a class and one of another: the share in which its score for it is higher."""
    two = Task("two", "classification", ("no", "yes"))
    scores = torch.tensor([[0.0, 3.0], [0.0, 1.0], [0.0, 2.0], [0.0, -1.0], [0.0, 1.0]])
    labels = torch.tensor([1, 1, 0, 0, 0])
    # yes: 3 is above all of (2, -1, 1); 1 is above -1, below 2 and level with 1, which counts half.
    expected = (3 + 1.5) / 6
    assert measured(two, (scores[:2], labels[:2]), (scores[2:], labels[2:]))["auroc"] == pytest.approx(expected)
    # A class that no picture is of has no curve; the others count.
    three = torch.cat([scores, torch.full((5, 1), -9.0)], 1)
    assert measured(COLOUR, (three, labels))["auroc"] == pytest.approx(expected, abs=1e-3)
    assert math.isnan(measured(two, (scores[:2], labels[:2]))["auroc"]), "there is nothing to tell apart"


def test_mean_iou_by_hand_with_ignored_pixels() -> None:
    predicted = torch.tensor([[[0, 0, 1, 1, 1]]])
    labels = torch.tensor([[[0, 1, 1, 1, 255]]])
    # a: 1 right of 2 in the union; b: 2 of 3; c occurs nowhere and does not count.
    figures = measured(PARTS, (one_hot(predicted, 3), labels))
    assert figures["mean_iou"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert figures["pixel_accuracy"] == pytest.approx(3 / 4)


def test_depth_errors_by_hand_with_holes() -> None:
    first = (torch.tensor([1.0, 9.0]).view(1, 1, 1, 2), torch.tensor([4.0, math.nan]).view(1, 1, 1, 2))
    second = (torch.tensor([2.0, 2.0]).view(1, 1, 1, 2), torch.tensor([3.0, 2.0]).view(1, 1, 1, 2))
    empty = (torch.zeros(1, 1, 1, 2), torch.full((1, 1, 1, 2), math.nan))
    figures = measured(DEPTH, first, empty, second)
    assert figures["rmse"] == pytest.approx(math.sqrt((9 + 1 + 0) / 3))
    assert figures["absolute_error"] == pytest.approx((3 + 1 + 0) / 3)
    assert figures["relative_error"] == pytest.approx((3 / 4 + 1 / 3 + 0) / 3)


def test_a_depth_of_nothing_has_no_relative_error() -> None:
    depth, labels = torch.tensor([1.0, 3.0]).view(1, 1, 1, 2), torch.tensor([0.0, 2.0]).view(1, 1, 1, 2)
    figures = measured(DEPTH, (depth, labels))
    assert (figures["absolute_error"], figures["relative_error"]) == (1.0, 0.5)


def test_mean_angle_by_hand_with_holes() -> None:
    predicted = torch.tensor([[1.0, 0, 0], [0, 0, 5.0], [0, 2.0, 2.0], [1.0, 2.0, 3.0]]).T.reshape(1, 3, 1, 4)
    labels = torch.tensor([[0.0, 1, 0], [0, 0, 1], [0, 0, 1.0], [0, 0, 0]]).T.reshape(1, 3, 1, 4)
    figures = measured(NORMALS, (predicted, labels))
    assert figures["mean_angle"] == pytest.approx((90 + 0 + 45) / 3)
    assert figures["median_angle"] == 45
    assert [figures[f"within_{degrees}"] for degrees in ("11.25", "22.5", "30")] == pytest.approx([1 / 3] * 3)


def test_angles_by_hand() -> None:
    """Vectors that are 5, 11, 20, 25 and 60 degrees off."""
    turned = torch.deg2rad(torch.tensor([5.0, 11.0, 20.0, 25.0, 60.0], dtype=torch.float64))
    predicted = torch.stack([turned.sin(), torch.zeros(5), turned.cos()]).view(1, 3, 1, 5)
    labels = torch.tensor([0.0, 0, 1]).view(1, 3, 1, 1).expand(1, 3, 1, 5)
    figures = measured(NORMALS, (predicted[..., :2], labels[..., :2]), (predicted[..., 2:], labels[..., 2:]))
    assert figures["mean_angle"] == pytest.approx(121 / 5)
    assert figures["median_angle"] == pytest.approx(20, abs=0.006)
    assert [figures[f"within_{degrees}"] for degrees in ("11.25", "22.5", "30")] == pytest.approx([0.4, 0.6, 0.8])


def test_perfect_normals_are_no_degree_off_whatever_rounding_makes_of_their_cosine() -> None:
    normals = torch.nn.functional.normalize(
        torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)), dim=1
    )
    assert measured(NORMALS, (normals, normals))["mean_angle"] == pytest.approx(0, abs=1e-5)


def test_a_metric_without_any_valid_label_is_refused() -> None:
    for task, prediction, labels in (
        (DEPTH, torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), math.nan)),
        (NORMALS, torch.ones(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)),
        (Task("foreground", "saliency"), torch.ones(1, 1, 2, 2), torch.full((1, 2, 2), 255)),
        (Task("contours", "edges"), torch.ones(1, 1, 2, 2), torch.full((1, 2, 2), 255)),
    ):
        with pytest.raises(CheckError, match=rf"task {task.name}: \w+ is no number: either no label .* is valid"):
            measured(task, (prediction, labels))


def test_each_kind_has_a_headline_and_knows_its_direction() -> None:
    assert {kind: (metrics[0].name, metrics[0].lower_is_better) for kind, metrics in METRICS.items()} == {
        "classification": ("accuracy", False),
        "segmentation": ("mean_iou", False),
        "depth": ("rmse", True),
        "normals": ("mean_angle", True),
        "saliency": ("max_f", False),
        "edges": ("ods_f", False),
    }
    with pytest.raises(InputError, match=r"task puzzle has no kind, so there is no metric for it"):
        headline(Task("puzzle"))
