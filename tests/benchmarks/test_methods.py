from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gatedeploy.artifact import ModelInfo, read_checkpoint
from gatedeploy.benchmarks import methods_table
from gatedeploy.benchmarks.candidates import Candidate
from gatedeploy.benchmarks.costs import NetworkCost
from gatedeploy.benchmarks.methods import ENTRIES, SMALL, recipe_of, report, train_seed
from gatedeploy.benchmarks.methods_figures import kept_figures
from gatedeploy.benchmarks.methods_table import table
from gatedeploy.benchmarks.timing import Plan
from gatedeploy.benchmarks.ways import Way
from gatedeploy.errors import InputError
from gatedeploy.models.moe import MOE
from gatedeploy.models.registry import METHODS
from gatedeploy.specs import InputSpec, Task
from gatedeploy.training.balance_sections import AnyBalance
from gatedeploy.training.sections import hints

pytestmark = pytest.mark.usefixtures("shallow")

TINY = (
    *("data.train=16", "data.val=8", "data.size=16", "train.epochs=1", "train.single_epochs=1", "train.batch_size=8"),
    *("tasks={depth: {}, normals: {}}",),
)
TASKS = (Task("kind", "classification", ("a", "b")), Task("depth", "depth"))
SHORT = (*SMALL["scenes"], *TINY)


def found(title: str, accuracies: list[float], rmses: list[float], macs: list[int]) -> Way:
    metrics = tuple({"kind": {"accuracy": a}, "depth": {"rmse": r}} for a, r in zip(accuracies, rmses, strict=True))
    candidates = tuple(Candidate(title, "collapsed", NetworkCost(each, 7)) for each in macs)
    return Way(title, False, ModelInfo(TASKS, InputSpec(3, 8, 8)), candidates, metrics)


def test_each_seed_is_compared_with_its_own_single_task_networks() -> None:
    single = found("single-task networks", [0.5, 0.8], [2.0, 1.0], [300, 300])
    # A tenth better in both tasks with the first seed; with the second as good in one and a fifth worse in the other.
    other = found("uniform MTL", [0.55, 0.8], [1.8, 1.2], [100, 200])
    heads, _, first, second = table(single, [other], None).splitlines()
    assert heads.startswith(
        "|  | kind, accuracy ↑ | depth, rmse ↓ | Δ_MTL, % | Δ_I, % | η̂, % | safe | mean rank | MACs |"
    )
    cells = [cell.strip() for cell in second.strip("|").split(" | ")]
    assert cells[:3] == ["uniform MTL", "0.675 ± 0.177", "1.500 ± 0.424"]
    assert cells[3] == "+0.0 ± 14.1"  # +10 and −10
    assert cells[5] == "75 ± 35"  # both metrics no worse, then one of two
    assert cells[6] == "1 of 2"
    assert cells[7] == "1.4 ± 0.5"  # 1, then 1.75: as good in one task, the second of two in the other
    assert cells[8:] == ["150", "7", "–"]
    assert " | 1.6 ± 0.5 | 300 " in first.replace("\u00a0", " ")


def test_every_method_and_every_way_of_balancing_is_among_them() -> None:
    named = {change.removeprefix("method.name=") for entry in ENTRIES for change in entry.changes}
    assert set(METHODS) - {MOE} <= named  # which is no network that could be collapsed
    balances = {change.removeprefix("train.balance.name=") for entry in ENTRIES for change in entry.changes}
    sections = [hints(section)["name"].__args__[0] for section in AnyBalance.__args__]
    assert set(sections) - {"sum"} <= balances
    for entry in ENTRIES:
        recipe = recipe_of("scenes", entry, 1, SMALL["scenes"])
        assert recipe.train.seed == 1
        assert recipe.train.single_epochs + recipe.train.epochs == 9  # all are trained for as long


@pytest.mark.slow
def test_what_is_done_is_kept_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods_table, "PLAN", Plan(0.2, 3, 4, 1, 1))
    entries = [entry for entry in ENTRIES if entry.name in ("mtl", "l-smtl")]
    train_seed("scenes", 0, entries, SHORT, tmp_path / "0")
    text = report("scenes", [0], [*entries, ENTRIES[1]], TINY, tmp_path)
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")]
    assert rows[2:] == ["| single-task networks", "| uniform MTL", "| L-SMTL"]
    assert "* Not trained with every seed yet: InterroGate, λ_s = 0." in text
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == text
    assert read_checkpoint(tmp_path / "0" / "l-smtl" / "checkpoint.pt").info.form == "gated"
    # On another machine: the figures of this seed are all that is brought along.
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "0").mkdir(parents=True)
    shutil.copy(tmp_path / "0" / "figures.json", elsewhere / "0")
    train_seed("scenes", 0, entries, SHORT, elsewhere / "0")
    assert [file.name for file in (elsewhere / "0").iterdir()] == ["figures.json"]
    again = report("scenes", [0], entries, TINY, elsewhere)
    without_latency = [row.rsplit(" | ", 1)[0] for row in text.splitlines() if row.startswith("| ")]
    assert [row.rsplit(" | ", 1)[0] for row in again.splitlines() if row.startswith("| ")] == without_latency
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("checkpoint.pt")}
    train_seed("scenes", 0, entries, SHORT, tmp_path / "0")
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("gated/checkpoint.pt")}.items() <= before.items()


def test_nothing_is_trained_yet(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0: single-task networks are not trained yet; leave --report out"):
        report("scenes", [0], ENTRIES[:1], TINY, tmp_path)


def test_figures_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "figures.json").write_text('{"mtl": {"macs": 3}}')
    with pytest.raises(InputError, match=r"figures.json: holds no figures of trainings .*; delete it"):
        kept_figures(tmp_path)
