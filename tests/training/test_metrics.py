from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gatedeploy.errors import CheckError, InputError
from gatedeploy.specs import Task
from gatedeploy.training.metrics import METRICS, Meter, Metrics, delta_mtl, gain, headline

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
    assert measured(COLOUR, first, second) == {"accuracy": 0.75}


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


def test_mean_angle_by_hand_with_holes() -> None:
    predicted = torch.tensor([[1.0, 0, 0], [0, 0, 5.0], [0, 2.0, 2.0], [1.0, 2.0, 3.0]]).T.reshape(1, 3, 1, 4)
    labels = torch.tensor([[0.0, 1, 0], [0, 0, 1], [0, 0, 1.0], [0, 0, 0]]).T.reshape(1, 3, 1, 4)
    assert measured(NORMALS, (predicted, labels))["mean_angle"] == pytest.approx((90 + 0 + 45) / 3)


def test_perfect_normals_are_no_degree_off_whatever_rounding_makes_of_their_cosine() -> None:
    normals = torch.nn.functional.normalize(
        torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)), dim=1
    )
    assert measured(NORMALS, (normals, normals))["mean_angle"] == pytest.approx(0, abs=1e-5)


def test_a_metric_without_any_valid_label_is_refused() -> None:
    for task, prediction, labels in (
        (DEPTH, torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), math.nan)),
        (NORMALS, torch.ones(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)),
    ):
        with pytest.raises(CheckError, match=rf"task {task.name}: \w+ is no number: either no label .* is valid"):
            measured(task, (prediction, labels))


def test_each_kind_has_a_headline_and_knows_its_direction() -> None:
    assert {kind: (metrics[0].name, metrics[0].lower_is_better) for kind, metrics in METRICS.items()} == {
        "classification": ("accuracy", False),
        "segmentation": ("mean_iou", False),
        "depth": ("rmse", True),
        "normals": ("mean_angle", True),
    }
    with pytest.raises(InputError, match=r"task puzzle has no kind, so there is no metric for it"):
        headline(Task("puzzle"))


def test_the_gain_is_that_of_headlines() -> None:
    single = {"depth": {"rmse": 2.0, "absolute_error": 9.0}, "colour": {"accuracy": 0.5}}
    better = {"depth": {"rmse": 1.0, "absolute_error": 9.0}, "colour": {"accuracy": 0.6}}
    assert gain([DEPTH, COLOUR], better, single) == pytest.approx(100 * (0.5 + 0.2) / 2)
    assert gain([DEPTH], better, single) == pytest.approx(50)


@pytest.mark.parametrize(
    ("tasks", "model", "single"),
    [
        ([], {}, {}),
        ([Task("puzzle")], {"puzzle": {"rmse": 1.0}}, {"puzzle": {"rmse": 1.0}}),
        ([DEPTH], {}, {"depth": {"rmse": 1.0}}),
        ([DEPTH], {"depth": {"rmse": 1.0}}, {}),
        ([DEPTH], {"depth": {"rmse": 1.0}}, {"depth": {"rmse": 0.0}}),
    ],
)
def test_there_is_no_gain_without_figures(tasks: list[Task], model: Metrics, single: Metrics) -> None:
    assert gain(tasks, model, single) is None


def test_delta_mtl_reproduces_a_published_row() -> None:
    # InterroGate, supplement, table 10: HRNet-18 on NYUD-v2, uniform MTL and the best gated network against STL.
    single = {"semseg": 41.70, "depth": 0.582, "normals": 18.89}
    errors = {"depth", "normals"}
    uniform = delta_mtl({"semseg": 41.83, "depth": 0.582, "normals": 22.84}, single, errors)
    gated = delta_mtl({"semseg": 43.58, "depth": 0.559, "normals": 19.32}, single, errors)
    assert uniform == pytest.approx(-6.86, abs=0.01)
    assert gated == pytest.approx(2.06, abs=0.02)
    assert delta_mtl(single, single, errors) == 0


def test_delta_mtl_explains_what_cannot_be_compared() -> None:
    with pytest.raises(InputError, match=r"Δ_MTL compares the same tasks: the model has a, the single-task nets b"):
        delta_mtl({"a": 1.0}, {"b": 1.0}, set())
    with pytest.raises(InputError, match=r"Δ_MTL: the single-task metric of a is 0, so no gain can be relative to it"):
        delta_mtl({"a": 1.0}, {"a": 0.0}, set())
    with pytest.raises(InputError, match=r"the model has none"):
        delta_mtl({}, {}, set())
