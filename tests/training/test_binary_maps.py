from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gatedeploy.errors import CheckError
from gatedeploy.specs import Task
from gatedeploy.training.metrics import Meter

SALIENCY = Task("foreground", "saliency")
EDGES = Task("contours", "edges")


def measured(task: Task, *batches: tuple[Tensor, Tensor]) -> dict[str, float]:
    meter = Meter([task])
    for probabilities, labels in batches:
        meter.update({task.name: probabilities.double().logit().unsqueeze(1)}, {task.name: labels})
    return meter.compute()[task.name]


def test_max_f_by_hand() -> None:
    """Two pictures; above .6 the first has one pixel said of two that are there, and the second both of its one."""
    first = (torch.tensor([[[0.9, 0.3, 0.1, 0.2]]]), torch.tensor([[[1, 1, 0, 0]]]))
    second = (torch.tensor([[[0.7, 0.8, 0.1, 0.99]]]), torch.tensor([[[1, 0, 0, 255]]]))
    # From .2 to .3: precision (2/2 + 1/2) / 2, recall 1, F = 1.3 · .75 / (.3 · .75 + 1). Up to .7: precision
    # (1 + 1/2) / 2, recall (1/2 + 1) / 2. At .9: (1 + 1) / 2 and (1/2 + 0) / 2.
    candidates = [(0.75, 1.0), (0.75, 0.75), (1.0, 0.25)]
    expected = max(1.3 * precision * recall / (0.3 * precision + recall) for precision, recall in candidates)
    figures = measured(SALIENCY, first, second)
    assert figures["max_f"] == pytest.approx(expected)
    assert figures["iou"] == pytest.approx(2 / 4), "one of two, and one beside one that is not there"


def test_a_picture_in_which_nothing_stands_out_misses_nothing() -> None:
    figures = measured(SALIENCY, (torch.tensor([[[0.1, 0.2]]]), torch.tensor([[[0, 0]]])))
    assert figures["max_f"] == pytest.approx(1)
    assert math.isnan(figures["iou"])


def test_edges_that_are_nearly_met_are_met() -> None:
    """A picture of 40 × 40, whose tolerance is max(1, .0075 · 56.6) = 1 pixel or less."""
    labels = torch.zeros(1, 40, 40, dtype=torch.int64)
    labels[0, :, 20] = 1
    beside, far = torch.full((1, 40, 40), 0.01), torch.full((1, 40, 40), 0.01)
    beside[0, :, 21] = 0.9
    far[0, :, 23] = 0.9
    assert measured(EDGES, (beside, labels))["ods_f"] == pytest.approx(1)
    # Nothing of what is said is right, or else everything is said: three columns of forty are near an edge.
    assert measured(EDGES, (far, labels))["ods_f"] == pytest.approx(2 * (3 / 40) / (3 / 40 + 1), rel=1e-6)


def test_the_threshold_is_one_for_all_pictures() -> None:
    """One picture answers loudly, one softly: no threshold is best for both."""
    labels = torch.zeros(2, 1, 9, dtype=torch.int64)
    labels[0, 0, 0] = labels[1, 0, 0] = 1
    probabilities = torch.full((2, 1, 9), 0.02)
    probabilities[0, 0, 0], probabilities[0, 0, 5] = 0.9, 0.6  # right, wrong
    probabilities[1, 0, 0] = 0.3
    # At .3: 2 of 3 are right, both edges are found. At .9: 1 of 1 and 1 of 2.
    expected = max(2 * (2 / 3) / (2 / 3 + 1), 2 * 0.5 / 1.5)
    figures = measured(EDGES, (probabilities, labels))
    assert figures["ods_f"] == pytest.approx(expected)
    assert figures["absolute_error"] == pytest.approx((0.1 + 0.6 + 0.7 + 15 * 0.02) / 18)


@pytest.mark.parametrize("task", [SALIENCY, EDGES], ids=["saliency", "edges"])
def test_predictions_that_are_no_numbers_are_told(task: Task) -> None:
    broken = torch.tensor([[[0.5, math.nan]]])
    with pytest.raises(CheckError, match=f"task {task.name}: .* is no number"):
        measured(task, (broken, torch.tensor([[[1, 0]]])))


@pytest.mark.parametrize("task", [SALIENCY, EDGES], ids=["saliency", "edges"])
def test_what_is_not_labelled_does_not_count(task: Task) -> None:
    labels = torch.randint(0, 2, (1, 8, 8), generator=torch.Generator().manual_seed(0))
    labels[0, :4] = 255
    probabilities = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(1))
    other = probabilities.clone()
    other[0, :4] = 1 - other[0, :4]
    assert measured(task, (probabilities, labels)) == measured(task, (other, labels))
