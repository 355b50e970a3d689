from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from torch import nn

from gatedeploy.artifact import ModelInfo, read_checkpoint
from gatedeploy.benchmarks import tradeoff, tradeoff_page
from gatedeploy.benchmarks.candidates import Candidate
from gatedeploy.benchmarks.costs import NetworkCost
from gatedeploy.benchmarks.latency import Latency, Measurement
from gatedeploy.benchmarks.methods import Entry, recipe_of
from gatedeploy.benchmarks.timing import Plan
from gatedeploy.benchmarks.tradeoff import FULL, HALF, STRENGTHS, Width, report, train
from gatedeploy.benchmarks.tradeoff_page import costs, deltas_of, equal_accuracy
from gatedeploy.benchmarks.ways import Times, Way
from gatedeploy.errors import InputError
from gatedeploy.models.moe import MOE
from gatedeploy.specs import InputSpec, Task

TINY = (
    *("data.train=16", "data.val=8", "data.size=16", "train.epochs=1", "train.single_epochs=1", "train.batch_size=8"),
    "tasks={depth: {}, normals: {}}",
)
DEPTH = ModelInfo((Task("depth", "depth"),), InputSpec(3, 8, 8))


def way(title: str, ours: bool, rmses: list[float], macs: int) -> Way:
    """Networks with these errors, one for each seed; that they are the same network does not matter."""
    candidate = Candidate(title, "collapsed", NetworkCost(macs, 7), (nn.Identity(),))
    return Way(title, ours, DEPTH, (candidate,) * len(rmses), tuple({"depth": {"rmse": rmse}} for rmse in rmses))


def timed(**each: list[float]) -> Times:
    """Times of one request a round."""
    found = [
        Measurement(name, tuple((ms,) for ms in times), tuple((ms,) for ms in times)) for name, times in each.items()
    ]
    return Times(Latency(tuple(found), found[0].candidate, 0))


@pytest.fixture
def found() -> tuple[list[Way], dict[str, list[float]], Times]:
    """Two seeds: networks of full width, one that is as accurate and one that is not, and experts between them."""
    ways = [
        way("full", False, [1.0, 2.0], 1000),
        way("experts", False, [1.2, 2.4], 700),
        way("small", True, [1.1, 2.2], 200),
        way("large", True, [0.9, 2.1], 500),
    ]
    deltas = {each.title: deltas_of(each, ways[0]) for each in ways}
    times = timed(
        **{"full, network 1": [8.0, 10.0], "experts, network 1": [16.0, 20.0], "small, network 1": [2.0, 2.5]},
        **{"small, network 2": [2.0, 2.5], "large, network 1": [4.0, 5.0], "large, network 2": [6.0, 7.5]},
    )
    return ways, deltas, times


def cells(row: str) -> list[str]:
    return [cell.strip().replace("\u00a0", " ") for cell in row.strip("|").split("|")]


def test_the_table_of_costs(found: tuple[list[Way], dict[str, list[float]], Times]) -> None:
    ways, deltas, times = found
    _, _, full, _, small, large = costs(ways, deltas, times).splitlines()
    assert cells(full)[2:] == ["", "1.00 k", "1.00", "9.00 ms", "1.00 (1.00 to 1.00)"]
    assert cells(small) == [
        *("small", "1.650 ± 0.778", "-10.0 ± 0.0", "200", "0.20", "2.25 ms", "0.25 (0.25 to 0.25)"),
    ]
    # Two seeds' networks, of half and of three quarters the time.
    assert cells(large)[2:] == ["+2.5 ± 10.6", "500", "0.50", "5.62 ms", "0.62 (0.62 to 0.62)"]


def test_the_fastest_network_that_is_no_worse(found: tuple[list[Way], dict[str, list[float]], Times]) -> None:
    ways, deltas, times = found
    _, _, full, experts = equal_accuracy(ways, deltas, times).splitlines()
    assert cells(full) == ["full", "0", "large", "+2.5 ± 10.6", "0.50", "0.62 (0.62 to 0.62)"]
    assert cells(experts) == ["experts", "-20.0 ± 0.0", "small", "+10.0 ± 0.0", "0.29", "0.12 (0.12 to 0.12)"]
    ways = [each for each in ways if each.title != "large"]
    _, _, full, _ = equal_accuracy(ways, deltas, times).splitlines()
    assert cells(full) == ["full", "0", "none; nearest: small", "-10.0 ± 0.0", "–", "–"]


def test_all_differ_in_what_they_say_alone() -> None:
    for width in (FULL, HALF):
        for entry in width.entries:
            recipe = recipe_of("scenes", entry, 1, width.changes("scenes", ()))
            assert recipe.model.backbone.options["width"] == {"full": 1.0, "half": 0.5}[width.name]
            assert recipe.gates.group == {"full": 8, "half": 4}[width.name]
            assert recipe.train.rival_epochs == 12
            assert (recipe.method.name if recipe.method else "gated") == entry.name.partition("-")[0]
    weights = [recipe_of("scenes", entry, 1, HALF.changes("scenes", ())).sparsity.weight for entry in HALF.entries[2:]]
    assert weights == list(STRENGTHS)


@pytest.mark.parametrize(("source", "expected"), [("scenes", 2), ("usgra", 0), ("mine.yaml", 2)])
def test_experts_are_not_trained_where_they_take_too_long(
    source: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []

    def note(_source: str, _seed: int, entries: Sequence[Entry], _changes: Sequence[str], _out: Path) -> None:
        trained.extend(entry.name for entry in entries)

    monkeypatch.setattr(tradeoff, "train_seed", note)
    train(source, 0, (), tmp_path)
    assert trained.count(MOE) == expected
    assert trained.count("mtl") == 2


@pytest.mark.slow
@pytest.mark.usefixtures("shallow")
def test_the_road(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tradeoff_page, "PLAN", Plan(0.2, 3, 4, 1, 1))
    few = Entry(MOE, "experts", ("method={name: moe, experts: 2, top_k: 1}",))
    monkeypatch.setattr(tradeoff, "FULL", Width("full", 1, 8, FULL.entries[:1]))
    monkeypatch.setattr(tradeoff, "HALF", Width("half", 0.5, 4, (HALF.entries[0], few, HALF.entries[2])))
    train("scenes", 0, TINY, tmp_path)
    assert read_checkpoint(tmp_path / "0" / "half" / MOE / "checkpoint.pt").info.form == MOE
    text = report("scenes", [0], TINY, tmp_path)
    assert (tmp_path / "tradeoff.md").read_text(encoding="utf-8") == text
    titles = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")]
    assert titles[2:9] == [
        *("| single-task, full", "| uniform MTL, full", "| single-task, half", "| uniform MTL, half"),
        *("| experts, half, 2 passes", "| experts, half, batched"),
        "| gated, λ_s = 0.01, half",
    ]
    assert "### At equal accuracy" in text
    assert "gates.learning_rate=5, gates.tie=residual; of full width gates.group=8, model.backbone.width=1; of" in text
    assert "milliseconds in ONNX Runtime" in (tmp_path / "tradeoff.svg").read_text(encoding="utf-8")
    for checkpoint in (tmp_path / "0" / "half" / MOE).glob("checkpoint.pt*"):
        checkpoint.unlink()
    from_figures = report("scenes", [0], TINY, tmp_path)
    assert "| experts, half, 2 passes" in from_figures
    assert "batched" not in from_figures  # what a batch costs was not kept
    assert "At equal accuracy" not in from_figures
    assert "so nothing was timed" in from_figures
    assert "Machine" not in from_figures


def test_nothing_is_written_where_nothing_was_trained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="single-task networks are not trained yet; leave --report out"):
        report("scenes", [0], TINY, tmp_path)
    assert list(tmp_path.iterdir()) == []
