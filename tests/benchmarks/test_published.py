from __future__ import annotations

import pytest

from gatedeploy.benchmarks.paper_costs import PUBLISHED as COSTS
from gatedeploy.benchmarks.published import CELEBA, DENSE, OURS, SINGLE_TASK, published
from gatedeploy.training.recipe_file import load_recipe


@pytest.mark.parametrize("name", [*DENSE, CELEBA])
def test_a_bundled_recipe_is_of_the_papers_set_up(name: str) -> None:
    rows = published(load_recipe(name))
    assert (rows[0].name, rows[0].macs_ratio) == ("uniform MTL", 1)
    (single,) = (row for row in rows if row.name == SINGLE_TASK)
    assert single.delta_mtl == 0
    costs = COSTS[name].mtl, COSTS[name].stl
    assert all(costs)
    assert single.macs_ratio == pytest.approx((costs[1] or 0) / (costs[0] or 1))
    ours = [row for row in rows if row.name == OURS]
    assert all(1 <= row.macs_ratio < single.macs_ratio for row in ours)


def test_accuracies_are_told_as_a_gain() -> None:
    """Half the width, 17.4 M: (97.33 / 96.99 + 87.05 / 85.60 + 92.12 / 92.72) / 3 - 1 = 0.466 %."""
    rows = published(load_recipe(CELEBA, ["model.backbone.width=0.5"]))
    row = next(row for row in rows if row.name == OURS and row.macs_ratio == pytest.approx(17.4 / 14.8))
    assert row.delta_mtl == pytest.approx(0.4657, abs=1e-4)
    assert row.source == "table 9"


@pytest.mark.parametrize(
    "change",
    [
        *("data.name=cityscapes", "data.size=[96, 128]", "model.backbone={name: resnet18}", "model.head={name: dense}"),
        "tasks={depth: {}, normals: {}}",
    ],
)
def test_another_set_up_has_no_figures(change: str) -> None:
    assert published(load_recipe("nyud_hrnet18", [change])) == []
    assert published(load_recipe("demo")) == []


def test_a_width_that_the_paper_does_not_tell_of() -> None:
    assert published(load_recipe(CELEBA, ["model.backbone.width=0.75"])) == []
