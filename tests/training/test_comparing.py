from __future__ import annotations

from typing import Any

import pytest

from gatedeploy.errors import InputError
from gatedeploy.specs import Task
from gatedeploy.training.comparing import Change, Comparison, combined, compare, mean_ranks
from gatedeploy.training.metrics import Metrics

COLOUR = Task("colour", "classification", ("red", "green", "blue"))
DEPTH = Task("depth", "depth")
SEGMENTATION = Task("segmentation", "segmentation", ("a", "b"))
NORMALS = Task("normals", "normals")


def close(delta_mtl: float | None, delta_i: float | None, eta: float) -> Comparison:
    """A comparison that one with rounding errors equals."""
    near: list[Any] = [None if value is None else pytest.approx(value, abs=1e-9) for value in (delta_mtl, delta_i)]
    return Comparison(near[0], near[1], eta)


def test_a_comparison_by_hand() -> None:
    single = {"depth": {"rmse": 2.0, "absolute_error": 1.0}, "colour": {"accuracy": 0.5, "auroc": 0.8}}
    model = {"depth": {"rmse": 1.0, "absolute_error": 1.5}, "colour": {"accuracy": 0.6, "auroc": 0.8}}
    found = compare([DEPTH, COLOUR], model, single)
    # Of the headlines 50 % and 20 %; of all metrics 50, -50, 20 and 0 %, of which three are no worse.
    assert found == close(35, ((0.5 - 0.5) / 2 + (0.2 + 0) / 2) / 2, 100 * (1 / 2 + 2 / 2) / 2)
    assert found is not None
    assert not found.safe
    assert compare([COLOUR], model, single) == close(20, 0.1, 100)
    level = compare([DEPTH, COLOUR], single, single)
    assert level == Comparison(0, 0, 100)
    assert level is not None
    assert level.safe


def test_what_one_of_them_was_not_measured_by_does_not_count() -> None:
    model, single = {"accuracy": 0.6, "auroc": float("nan")}, {"accuracy": 0.5, "auroc": 0.9}
    assert compare([COLOUR], {"colour": model}, {"colour": single}) == close(20, 0.2, 100)


def test_nothing_is_relative_to_nothing() -> None:
    model, single = {"mean_angle": 44.0, "within_11.25": 0.1}, {"mean_angle": 40.0, "within_11.25": 0.0}
    assert compare([NORMALS], {"normals": model}, {"normals": single}) == close(-10, None, 50)
    found = compare([COLOUR], {"colour": {"accuracy": 0.5}}, {"colour": {"accuracy": 0.0}})
    assert found == Comparison(None, None, 100)


@pytest.mark.parametrize(
    ("tasks", "model", "single"),
    [
        ([], {}, {}),
        ([Task("puzzle")], {"puzzle": {"rmse": 1.0}}, {"puzzle": {"rmse": 1.0}}),
        ([DEPTH], {}, {"depth": {"rmse": 1.0}}),
        ([DEPTH], {"depth": {"rmse": 1.0}}, {}),
        ([DEPTH], {"depth": {"absolute_error": 1.0}}, {"depth": {"absolute_error": 1.0}}),
    ],
)
def test_there_is_no_comparison_without_headlines(tasks: list[Task], model: Metrics, single: Metrics) -> None:
    assert compare(tasks, model, single) is None


@pytest.mark.parametrize(
    ("mean_iou", "rmse", "mean_angle", "published"), [(41.83, 0.582, 22.84, -6.86), (43.58, 0.559, 19.32, 2.06)]
)
def test_delta_mtl_reproduces_published_rows(mean_iou: float, rmse: float, mean_angle: float, published: float) -> None:
    """InterroGate, supplement, table 10: HRNet-18 on NYUD-v2, uniform MTL and the best gated network."""
    single = {"segmentation": {"mean_iou": 41.70}, "depth": {"rmse": 0.582}, "normals": {"mean_angle": 18.89}}
    model = {"segmentation": {"mean_iou": mean_iou}, "depth": {"rmse": rmse}, "normals": {"mean_angle": mean_angle}}
    found = compare([SEGMENTATION, DEPTH, NORMALS], model, single)
    assert found is not None
    assert found.delta_mtl == pytest.approx(published, abs=0.02)


CITYSCAPES = ((67.48, 91.00), (0.0139, 46.2507))
NYU = ((53.11, 75.20), (0.3957, 0.1632), (22.26, 15.49, 38.61, 64.43, 74.69))


@pytest.mark.parametrize(
    ("single", "gains", "delta_i", "eta"),
    [
        (CITYSCAPES, ((-0.08, -0.08), (-0.0003, 0.8245)), -0.0014, 25),
        (CITYSCAPES, ((0.68, 0.20), (-0.0005, -20.651)), -0.1175, 50),
        (CITYSCAPES, ((1.50, 0.62), (0.0005, 3.3886)), 0.0346, 100),
        (CITYSCAPES, ((1.62, 0.63), (0.0008, -1.9361)), 0.0117, 75),
        (NYU, ((0.52, 0.16), (0.0104, 0.0032), (-1.34, -1.57, -3.31, -3.42, -2.69)), -0.0127, 67),
        (NYU, ((0.16, 0.28), (0.0071, 0.0042), (0.26, 0.00, 0.03, 0.46, 0.53)), 0.0102, 100),
        (NYU, ((0.46, 0.21), (0.0132, 0.0081), (0.51, 0.28, 0.83, 1.09, 0.90)), 0.0218, 100),
    ],
    ids=["DMTL", "AdaShare", "SMTL", "SMTL_c", "NYU DMTL", "NYU SMTL", "NYU L-SMTL_c"],
)
def test_delta_i_and_eta_reproduce_published_rows(
    single: tuple[tuple[float, ...], ...], gains: tuple[tuple[float, ...], ...], delta_i: float, eta: float
) -> None:
    """Safe MTL, tables 1 and 2: what each method gains over single-task networks, rounded."""
    found = combined(
        [
            [Change(*change) for change in zip(gain, before, strict=True)]
            for gain, before in zip(gains, single, strict=True)
        ]
    )
    # CityScapes' depth errors are printed to two digits, which is a hundredth of the single-task network's.
    assert found.delta_i == pytest.approx(delta_i, abs=2e-3)
    assert round(found.eta) == eta
    assert found.safe == (eta == 100)


def test_mean_ranks_by_hand() -> None:
    networks = {
        "a": {"depth": {"rmse": 1.0}, "colour": {"accuracy": 0.5}},
        "b": {"depth": {"rmse": 2.0}, "colour": {"accuracy": 0.7}},
        "c": {"depth": {"rmse": 1.0}, "colour": {"accuracy": 0.6}},
    }
    assert mean_ranks([DEPTH, COLOUR], networks) == {"a": (1.5 + 3) / 2, "b": (3 + 1) / 2, "c": (1.5 + 2) / 2}
    assert mean_ranks([DEPTH], {"alone": networks["a"]}) == {"alone": 1}


def test_ranks_that_cannot_be() -> None:
    with pytest.raises(InputError, match="b: rmse of task depth was not measured, so it has no rank"):
        mean_ranks([DEPTH], {"a": {"depth": {"rmse": 1.0}}, "b": {"depth": {"rmse": float("nan")}}})
    with pytest.raises(InputError, match="a mean rank needs at least one task"):
        mean_ranks([], {})
