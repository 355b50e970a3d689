"""Tables and pictures say what the study says."""

from __future__ import annotations

import csv
import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from gatedeploy.benchmarks.look import COLOURS, write_picture
from gatedeploy.sweep.pages import table, trials_csv
from gatedeploy.sweep.pictures import pareto, targets
from gatedeploy.sweep.records import Found, Trial
from tests.sweep.made_up import KEY, TASKS, found, measured, trial

FAILED = Trial(4, "fail", {KEY: 2}, 0, error="epoch 1: a weight is no number")


def drawn(figure: Figure) -> list[Any]:
    """What is on a picture, whose parts matplotlib describes too narrowly to look at them."""
    return list(figure.axes)


def test_the_table_of_points() -> None:
    heads, single, shared, cheap, whole = table(found([FAILED]), [KEY])
    assert heads == [
        *(KEY, "seeds", "kind, accuracy ↑", "depth, rmse ↓", "Δ_MTL, %", "Δ_I, %", "η̂, %"),
        *("MACs", "of single-task nets, %", "parameters", "front"),
    ]
    assert single[:5] == ["single-task networks", "2", "0.65 ± 0.2121", "1.5 ± 0.7071", ""]
    # Half as accurate and twice as far off: −75 %. Then a quarter less and a quarter more.
    assert shared[:5] == ["uniform MTL", "2", "0.425 ± 0.2475", "2.625 ± 1.945", "-50.00 ± 35.36"]
    # +10 % and −5 %: no metric worse with the first seed, both with the second.
    assert cheap[:2] == ["1", "2"]
    assert cheap[4::2] == ["+2.50 ± 10.61", "50 ± 71", "50.0 ± 14.1", "•"]
    assert [cell.replace("\u00a0", " ").strip() for cell in cheap[7::2]] == ["500", "7"]
    assert whole[:2] == ["0", "2"]
    assert whole[4] == "+0.00 ± 0.00"
    assert whole[-1] == ""  # dearer and no better


def test_the_table_of_trials() -> None:
    rows = list(csv.DictReader(io.StringIO(trials_csv(found([FAILED]), [KEY]))))
    assert [row["number"] for row in rows] == ["0", "1", "2", "3", "4"]
    second = rows[1]
    assert (second["state"], second[KEY], second["seed"]) == ("complete", "1", "0")
    assert [float(second[name]) for name in ("delta_mtl", "macs", "share_of_single")] == [10.0, 400, 0.4]
    assert [float(second[name]) for name in ("kind.accuracy", "depth.rmse")] == [0.55, 1.8]
    assert (rows[4]["state"], rows[4]["delta_mtl"]) == ("fail", "")
    assert rows[4]["error"] == "epoch 1: a weight is no number"


def test_the_pareto_plot_shows_means_deviations_front_and_rivals() -> None:
    first, second = measured(0.6, 1.6, 900), measured(0.96, 0.8, 900)  # +20 % with both seeds
    (axes,) = drawn(pareto(found([trial(4, 3, 0, 20.0, first), trial(5, 3, 1, 20.0, second)])))
    dots = [line.get_xydata()[0] for line in axes.lines if line.get_marker() in "os"]
    marks = {(round(x, 3), round(y, 3)) for x, y in dots}
    assert marks == {(50.0, 2.5), (90.0, 20.0), (100.0, 0.0), (40.0, -50.0)}
    joined = next(line for line in axes.lines if line.get_color() == COLOURS["ours"] and len(line.get_xdata()) == 2)
    assert np.allclose(joined.get_xydata(), np.array([[50, 2.5], [90, 20]]))
    bars = [bar for group in axes.containers for bar in group.lines[2]]
    ends = [np.round(segment, 2).tolist() for bar in bars for segment in bar.get_segments()]
    assert [[35.86, 2.5], [64.14, 2.5]] in ends  # a deviation of √200 ≈ 14.14 around 50 %
    assert [[50.0, -8.11], [50.0, 13.11]] in ends
    written = [text.get_text() for text in axes.texts]
    assert written == ["single-task", "uniform MTL", "1", "3"]


def test_the_grid_of_targets_is_coloured_by_each_tasks_own() -> None:
    chosen = list(itertools.product((0, 0.25, 1), repeat=2))
    trials = [
        Trial(
            number,
            "complete",
            {"tasks.kind.sparsity_target": kind, "tasks.depth.sparsity_target": depth},
            0,
            (0.0, 500),
            measured(0.5, 2.0, 500 + number),
        )
        for number, (kind, depth) in enumerate(chosen)
    ]
    panels = drawn(targets(Found(TASKS, tuple(trials), found().rivals)))[:2]
    assert [panel.get_title() for panel in panels] == ["kind", "depth"]
    for position, panel in enumerate(panels):
        (dots,) = panel.collections
        assert dots.get_array().tolist() == [values[position] for values in chosen]
        assert np.allclose(dots.get_offsets(), [[50 + number / 10, 0] for number in range(9)])


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_pictures_are_written(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"pareto.{kind}"
    write_picture(pareto(found()), path)
    if kind == "svg":
        assert "uniform MTL" in path.read_text()
    else:
        assert Image.open(path).size == (840, 740)
