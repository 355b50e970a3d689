"""Accuracy against cost: which networks no other beats, and the picture of it (InterroGate's Fig. 3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gatedeploy.benchmarks.plots import COLOURS, WIDTH, apart, bare, canvas, label, short, style

if TYPE_CHECKING:  # where something is drawn, matplotlib is imported: it takes long
    from matplotlib.figure import Figure

HEIGHT = 3.7
AWAY = 1.12
"""How many times as far as a mark its name begins, along the axis of costs."""

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
    axes.margins(x=0.35, y=0.12)
    _ticks(axes)
    low, high = axes.get_ylim()
    for leftwards in (True, False):  # ours lie to the left of what costs more, and so do their names
        side = [place for place in places if (place.kind == "ours") == leftwards]
        heights = apart([place.gain for place in side], 0.05 * (high - low))
        for place, height in zip(side, heights, strict=True):
            aside = place.cost * AWAY ** (-1 if leftwards else 1)
            axes.plot([place.cost, aside], [place.gain, height], color=COLOURS["muted"], linewidth=0.5, zorder=1)
            label(axes, (aside, height), short(place.label), leftwards=leftwards, away=2)
    bare(axes, grid="both")


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
