"""What a collapse says of itself: costs, parity, sites, barriers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gatedeploy as gd
from gatedeploy.graph.cost import Cost
from gatedeploy.parity import Parity
from tests.graph.small import PICTURE, UNSEEN, Net, assert_equal, conv, prepared
from tests.test_compiler import gated, two_tasks


def test_the_report_says_what_was_done() -> None:
    _, program = gated()
    report = gd.collapse(program, target=None).report
    assert report is not None
    # shared, own twice and head: 64 pixels times rows times columns
    assert report.gated == Cost(64 * (3 * 12 + 16 + 8), 3 * 16 + 20 + 10 + 4 + 4 + 8)
    # Rows: 3 shared, since both have channel 1 of their own; 2 for depth, 1 for normals.
    assert report.collapsed.macs == 64 * ((3 + 2 + 1) * 3 + 16 + 8)
    # Two of the four channels that are mixed differ between the tasks: two shares each.
    assert report.collapsed.params == 6 * 4 + 20 + 10 + 2 * 2
    assert (report.parity.tolerance, report.parity_float32.tolerance) == (1e-9, 1e-9)
    assert report.parity.holds
    assert set(report.parity.error) == {"depth", "normals"}
    (site,) = report.sites
    assert (site.channels, site.specific) == (4, {"gates.0": 2, "gates.1": 1})
    assert report.barriers == {}
    assert set(report.seconds) == {"capture", "passes", "verification"}
    assert all(seconds >= 0 for seconds in report.seconds.values())


def test_the_report_names_what_no_rule_knows() -> None:
    report = gd.collapse(
        prepared(Net(lambda n, x: n.a(x).roll(1, 1).roll(1, 1), a=conv())), example_input=PICTURE
    ).report
    assert report is not None
    assert report.barriers == {"aten.roll": 2}


@pytest.mark.parametrize(
    ("run", "operator"),
    [
        (lambda n, x: n.b(n.a(x)), "aten.conv_transpose2d"),
        (lambda n, x: torch.softmax(n.a(x), 1), "aten.softmax"),
        (lambda n, x: n.a(x).mean(1, keepdim=True), "aten.mean"),
    ],
    ids=["transposed convolution in groups", "softmax over channels", "mean over channels"],
)
def test_the_report_names_forms_that_no_rule_knows(run: Callable[[Any, Tensor], Tensor], operator: str) -> None:
    network = prepared(Net(run, a=conv(), b=nn.ConvTranspose2d(4, 6, 1, groups=2)))
    report = gd.collapse(network, example_input=PICTURE).report
    assert report is not None
    assert report.barriers == {operator: 1}


def test_of_some_tasks_the_report_tells_their_cost_beside_that_of_all() -> None:
    _, program = gated()
    whole, part = (gd.collapse(program, tasks=tasks, target=None).report for tasks in (None, ["normals"]))
    assert whole is not None
    assert part is not None
    # What was trained is the whole network, whichever tasks are kept of it.
    assert part.gated == whole.gated
    assert part.sites == whole.sites
    # One row of its own and three of the shared layer.
    assert part.collapsed == Cost(64 * 4 * 3, 4 * (3 + 1))
    assert set(part.parity.error) == set(part.parity_float32.error) == {"normals"}


def test_the_worst_of_all_pictures_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each task by itself: either picture may be the worse one."""
    errors = [{"depth": 3e-12, "normals": 1e-12}, {"depth": 2e-12, "normals": 5e-12}] * 2

    def compare(expected: object, got: object, tolerance: float) -> Parity:
        return Parity(errors.pop(0), tolerance)

    monkeypatch.setattr("gatedeploy.questions.compare", compare)
    _, program = gated()
    report = gd.collapse(program).report
    assert report is not None
    assert report.parity.error == report.parity_float32.error == {"depth": 3e-12, "normals": 5e-12}
    assert errors == []


def test_float32_is_judged_as_float32() -> None:
    network = two_tasks().eval()
    report = gd.collapse(network, example_input=PICTURE.float()).report
    assert report is not None
    assert (report.parity.tolerance, report.parity_float32.tolerance) == (1e-9, 1e-4)
    assert max(report.parity.error.values()) < 1e-12 < max(report.parity_float32.error.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_judged_in_more(dtype: torch.dtype) -> None:
    network = two_tasks().to(dtype).eval()
    thin = gd.collapse(network, example_input=PICTURE.to(dtype))
    assert {weight.dtype for weight in thin.parameters()} == {dtype}
    assert thin.report is not None
    assert (thin.report.parity.tolerance, thin.report.parity_float32.tolerance) == (1e-9, 1e-4)
    with torch.no_grad():
        assert_equal(thin(UNSEEN.to(dtype)), network(UNSEEN.to(dtype)), 0.05)
