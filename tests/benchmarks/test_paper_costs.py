from __future__ import annotations

import json
import sys

import pytest

from gatedeploy.assembly import describe_parts
from gatedeploy.benchmarks import paper_costs
from gatedeploy.benchmarks.paper_costs import PUBLISHED, rows
from gatedeploy.training.recipe_file import bundled_recipes, load_recipe


def test_the_papers_rule_and_the_true_sum() -> None:
    """Of three tasks with two classes each both are the same; deviations are told, not hidden."""
    shared, papers, true = rows("celeba_resnet20")
    assert (papers.macs, papers.params) == (true.macs, true.params)
    linear = 3 * 64 * 2
    assert papers.macs == 3 * (shared.macs - linear) + linear
    assert shared.deviation == pytest.approx(shared.macs / 58e6 - 1)
    assert true.deviation is None


@pytest.mark.parametrize(
    "recipe", [recipe for recipe in bundled_recipes() if "_" in recipe and recipe != "multi_fashion"]
)
def test_what_a_recipe_costs_can_be_told_without_its_pictures(recipe: str) -> None:
    assert recipe in PUBLISHED
    settings = load_recipe(recipe)
    data, _, make_head = describe_parts(settings, recipe)
    assert data.input.channels == 3
    assert [task.name for task in settings.chosen_tasks(data.tasks)] == [task.name for task in data.tasks]
    for task in data.tasks:
        make_head(task)


def test_a_table_and_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(paper_costs, "PUBLISHED", {"celeba_resnet20": PUBLISHED["celeba_resnet20"]})
    monkeypatch.setattr(sys, "argv", [""])
    paper_costs.main()
    assert "| celeba_resnet20 | MTL | 0.04081 | 0.04081 | 0.058 | -29.6% |" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["", "--json"])
    paper_costs.main()
    first = json.loads(capsys.readouterr().out)[0]
    assert first["deviation"] == pytest.approx(first["macs"] / 58e6 - 1)
