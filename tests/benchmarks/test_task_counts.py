from __future__ import annotations

from pathlib import Path

import pytest

from gatedeploy.benchmarks import task_counts
from gatedeploy.benchmarks.random_gates import Trunk
from gatedeploy.benchmarks.task_counts import section
from gatedeploy.benchmarks.timing import Plan

pytestmark = pytest.mark.usefixtures("shallow")


@pytest.mark.slow
def test_every_way_for_every_number_of_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_counts, "TRUNKS", {"tiny": Trunk("resnet20", {"width": 0.5}, "linear", (16, 16))})
    monkeypatch.setattr(task_counts, "PLAN", Plan(0.2, 3, 4, 1, 1))
    monkeypatch.setattr(task_counts, "DRAWS", 2)
    text = section("tiny", (2, 3), tmp_path)
    latency, macs = (
        [[cell.strip() for cell in row.strip("|").split("|")] for row in part.splitlines() if row.startswith("|")]
        for part in text.split("| multiply-adds |")
    )
    ways = [
        "single-task",
        "one encoder",
        "experts, passes",
        "experts, batched",
        "collapsed, p = 0.1",
        "collapsed, p = 0.3",
    ]
    assert [row[0] for row in latency[2:]] == ways
    assert latency[0] == ["latency", "2", "3"]
    by_way = {row[0]: [float(cell) for cell in row[1:]] for row in macs[1:]}
    assert by_way["single-task"] == [2, 3]
    assert by_way["one encoder"] == pytest.approx([1, 1], abs=0.02)  # but for the heads
    assert by_way["one encoder"] < by_way["collapsed, p = 0.1"] < by_way["collapsed, p = 0.3"]
    assert (tmp_path / "task_counts_tiny.svg").is_file()
