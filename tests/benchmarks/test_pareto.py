from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np

from gatedeploy.benchmarks.look import COLOURS, apart, inline_svg, write_picture
from gatedeploy.benchmarks.pareto import Place, accuracy_against, front


def test_the_front() -> None:
    assert front([(1, 0.0), (2, 5.0), (3, 4.0), (3, 6.0), (4, 6.0)]) == [True, True, False, True, False]
    assert front([(1, 1.0), (1, 1.0)]) == [True, True]
    assert front([]) == []


def test_names_are_moved_as_little_as_it_takes() -> None:
    assert apart([0, 5, 2], 1) == [0, 5, 2]
    assert apart([1, 1, 1], 1) == [0, 1, 2]
    assert apart([0, 0, 10, 10.5], 1) == [-0.5, 0.5, 9.75, 10.75]
    assert apart([2, 0.5, 0], 1) == [2, 0.75, -0.25]
    assert apart([], 1) == []


def test_every_network_is_drawn_and_called_by_its_name(tmp_path: Path) -> None:
    places = [
        Place("ours <1>", "ours", 1, -2.0, 0.5),
        Place("ours 2", "ours", 3, 1.0),
        Place("beaten", "ours", 4, 0.0),
        Place("rival", "rival", 4, 0.5),
        Place("paper", "published", 2, 2.0),
    ]
    figure = accuracy_against({"MACs": places, "ms": places[:4]})
    left, right = figure.axes
    assert [axes.get_xlabel() for axes in figure.axes] == ["MACs", "ms"]
    joined = next(line for line in left.lines if line.get_linewidth() == 1 and line.get_color() == COLOURS["ours"])
    assert np.asarray(joined.get_xydata()).tolist() == [[1, -2.0], [3, 1.0]]  # without the one that is beaten
    assert {text.get_text() for text in left.texts} == {place.label for place in places}
    assert len(right.texts) == 4
    marks = [line.get_marker() for line in left.lines if line.get_marker() != "None"]
    assert sorted(marks) == ["D", "o", "o", "o", "s"]
    write_picture(figure, tmp_path / "a.svg")
    assert "ours &lt;1&gt;" in (tmp_path / "a.svg").read_text(encoding="utf-8")
    ET.fromstring(inline_svg(figure, "plot", "all").replace("xlink:href", "href"))
