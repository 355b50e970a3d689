from __future__ import annotations

from pathlib import Path

import pytest

from gatedeploy.artifact import read_checkpoint
from gatedeploy.benchmarks.gate_forms import Reached, run, table
from gatedeploy.graph.shares import site_shares
from gatedeploy.specs import Task
from gatedeploy.training.recipe_file import load_recipe

pytestmark = pytest.mark.usefixtures("shallow")

TINY = ("data.train=16", "data.val=8", "data.size=16", "train.epochs=1", "train.single_epochs=1", "train.batch_size=8")


def test_changes_are_taken_seed_by_seed() -> None:
    """Both seeds lose a tenth, though the second one is better with tied gates than the first one with free ones."""
    task = Task("left", "classification", ("a", "b"))

    def reached(accuracy: float) -> Reached:
        return Reached({"left": {"accuracy": accuracy}}, 0.5, 1.25)

    found = [{"free": reached(0.5), "tied": reached(0.45)}, {"free": reached(0.6), "tied": reached(0.54)}]
    free, tied = table([task], found).splitlines()[2:]
    assert free == "| free | 0.5500 ± 0.0707 |  | 0.50 ± 0.00 | 1.25 ± 0.00 |"
    assert tied == "| tied | 0.4950 ± 0.0636 | -10.00 ± 0.00 | 0.50 ± 0.00 | 1.25 ± 0.00 |"


@pytest.mark.slow  # six small trainings
def test_every_form_is_trained_and_what_is_done_is_kept(tmp_path: Path) -> None:
    recipe = load_recipe("scenes", [*TINY, "model.backbone.width=0.25"])
    text = run(recipe, "scenes", [3], 4, tmp_path)
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == text
    assert [line.split(" | ")[0] for line in text.splitlines()[2:]] == ["| free", "| tied", "| tied-group-4"]
    grouped = read_checkpoint(tmp_path / "3" / "tied-group-4" / "gated" / "checkpoint.pt").program
    counts = [count for site in site_shares(grouped) for count in site.specific.values()]
    assert all(count % 4 == 0 for count in counts)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("checkpoint.pt")}
    assert run(recipe, "scenes", [3], 4, tmp_path) == text
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("checkpoint.pt")} == before
