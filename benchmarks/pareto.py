"""Accuracy against cost: which networks no other beats, and the picture of it (InterroGate's Fig. 3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gatedeploy.benchmarks.naming import Box, placed
from gatedeploy.benchmarks.plots import COLOURS, WIDTH, bare, canvas, short, style

if TYPE_CHECKING:  # where something is drawn, matplotlib is imported: it takes long
    from matplotlib.figure import Figure

HEIGHT = 3.7
SIZE, LETTER, LINE, MARK = 8, 4.6, 11.0, 4.0
"""Points: of names, of a letter's width on average, of a line's height, and half of a mark's side."""

MARKS = {"ours": "o", "rival": "s", "published": "D"}


@dataclass(frozen=True)
class Place:
    """One network, or the mean of several seeds', in a picture of accuracy against cost.

    Args:
        label: what it is called.
        kind: whose it is, of `MARKS`; "published" are a paper's figures, and drawn hollow.
        cost: in the unit of the axis.
        gain: Δ_MTL in percent.
        deviation: of the gain over seeds; 0 where there is one.
    """

    label: str
    kind: str
    cost: float
    gain: float
    deviation: float = 0.0


def front(places: Sequence[tuple[float, float]]) -> list[bool]:
    """Which of some places (cost, gain) no other beats: none is as cheap and as good and in one of both better."""

    def beaten(cost: float, gain: float) -> bool:
        return any(c <= cost and g >= gain and (c, g) != (cost, gain) for c, g in places)

    return [not beaten(*place) for place in places]


def accuracy_against(panels: Mapping[str, Sequence[Place]]) -> Figure:
    """Δ_MTL against each cost, logarithmic, side by side; a line joins those of ours that no other of ours beats.

    Args:
        panels: by the words at the cost's axis, at least one place each.
    """
    with style():
        figure = canvas(WIDTH * len(panels), HEIGHT)
        shared: Any = None
        for number, (words, places) in enumerate(panels.items(), start=1):
            axes = figure.add_subplot(1, len(panels), number, sharey=shared)
            shared = shared or axes
            _draw(axes, places)
            axes.set_xlabel(words)
            axes.set_ylabel("Δ_MTL, %" if number == 1 else "")
        figure.draw_without_rendering()  # which gives all their places
        for axes, places in zip(figure.axes, panels.values(), strict=True):
            _name(axes, places)
    return figure


def _draw(axes: Any, places: Sequence[Place]) -> None:
    for kind in ("published", "ours"):
        own = [(place.cost, place.gain) for place in places if place.kind == kind]
        best = sorted(place for place, is_best in zip(own, front(own), strict=True) if is_best)
        if best:
            axes.plot(*zip(*best, strict=True), color=_colour(kind), linewidth=1, zorder=1)
    for place in places:
        colour = _colour(place.kind)
        axes.errorbar(place.cost, place.gain, yerr=place.deviation or None, color=colour, linewidth=0.9, zorder=2)
        filled = COLOURS["surface"] if place.kind == "published" else colour
        mark = MARKS[place.kind]
        axes.plot(place.cost, place.gain, mark, color=colour, markerfacecolor=filled, markersize=6, zorder=3)
    axes.set_xscale("log")
    axes.margins(x=0.2, y=0.12)
    _ticks(axes)
    bare(axes, grid="both")


def _name(axes: Any, places: Sequence[Place]) -> None:
    """Write the names beside the marks, each with a line to its own."""
    points = 72 / axes.figure.dpi

    def at(place: Place, deviations: float = 0) -> tuple[float, float]:
        x, y = points * axes.transData.transform((place.cost, place.gain + deviations * place.deviation))
        return float(x), float(y)

    marks, names = [at(place) for place in places], [short(place.label) for place in places]
    drawn = [Box(x - MARK, y - MARK, x + MARK, y + MARK) for x, y in marks]
    drawn += [Box(at(place)[0] - 1, at(place, -1)[1], at(place)[0] + 1, at(place, 1)[1]) for place in places]
    extent = axes.get_window_extent()
    frame = Box(*(points * edge for edge in (extent.x0, extent.y0, extent.x1, extent.y1)))
    boxes = placed(marks, [(LETTER * len(name), LINE) for name in names], drawn, frame)
    for place, name, (x, y), box in zip(places, names, marks, boxes, strict=True):
        axes.annotate(
            name,
            (place.cost, place.gain),
            xytext=((box.left + box.right) / 2 - x, (box.bottom + box.top) / 2 - y),
            textcoords="offset points",
            **{"ha": "center", "va": "center", "size": SIZE, "zorder": 2.5},
            bbox={"facecolor": COLOURS["surface"], "alpha": 0.8, "linewidth": 0, "pad": 0.5},
            arrowprops={"arrowstyle": "-", "color": COLOURS["muted"], "linewidth": 0.5, "shrinkB": 3},
        ).set_in_layout(False)


def _ticks(axes: Any) -> None:
    """At 1, 2 and 5 of each power of ten that the axis holds, in plain figures."""
    left, right = axes.get_xlim()
    powers = range(math.floor(math.log10(left)), math.ceil(math.log10(right)) + 1)
    steps = [step * 10.0**power for power in powers for step in (1, 2, 5)]
    shown = [step for step in steps if left <= step <= right]
    axes.set_xticks(shown, [f"{step:,g}" for step in shown])
    axes.minorticks_off()
    axes.set_xlim(left, right)


def _colour(kind: str) -> str:
    return COLOURS["ours" if kind == "ours" else "rival"]
