from __future__ import annotations

import re
from pathlib import Path

import pytest

from gatedeploy.benchmarks.latency import Plan
from gatedeploy.benchmarks.multi_fashion import run
from gatedeploy.benchmarks.scenarios import Effort
from gatedeploy.exporters.reading import read_bundle
from gatedeploy.training.recipe_file import load_recipe
from tests.data.test_multi_fashion import write_npz

pytestmark = pytest.mark.usefixtures("shallow")

PLAN = Plan(seconds=0, min_rounds=3, max_rounds=3, block_ms=1, warm_up_ms=1)
EFFORT = Effort(single=PLAN, batches=(2,), batch=PLAN, loads=(0.5,), seconds=0.05, energy_seconds=0.05)
TINY = ("data.train=32", "data.val=16", "train.epochs=1", "train.single_epochs=1", "train.batch_size=8")


@pytest.mark.slow  # six small trainings and seven exports
def test_the_table_has_every_network(tmp_path: Path) -> None:
    recipe = load_recipe("multi_fashion", [f"data.root={write_npz(tmp_path)}", *TINY])
    text = run(recipe, (0, 200), tmp_path / "out", EFFORT)
    assert (tmp_path / "out" / "table.md").read_text(encoding="utf-8") == text
    rows = [re.split(r"\s*\|\s*", line)[1:-1] for line in text.splitlines() if line.startswith("|")]
    assert [row[0] for row in rows[2:]] == [
        "single-task networks",
        "one shared encoder",
        "gated, λ_s = 0",
        "gated, λ_s = 200",
    ]
    assert {len(row) for row in rows} == {10}
    by_name = {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[2:]}
    assert by_name["one shared encoder"]["MACs ÷ shared"] == "1.00"
    # With every gate at 1 it is two single-task networks.
    assert by_name["gated, λ_s = 0"]["specific channels"] == "1.00 / 1.00"
    assert by_name["gated, λ_s = 0"]["MACs"] == by_name["single-task networks"]["MACs"]
    # With every gate at 0 it is the shared encoder.
    assert by_name["gated, λ_s = 200"]["specific channels"] == "0.00 / 0.00"
    assert by_name["gated, λ_s = 200"]["MACs"] == by_name["one shared encoder"]["MACs"]
    assert "their rivals are trained for 2, so that all are trained for as long" in text
    assert set(read_bundle(tmp_path / "out" / "gated-0" / "bundle").manifest.metrics) == {"left", "right"}
