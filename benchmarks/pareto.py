"""Accuracy against cost: which networks no other beats, and the picture of it (InterroGate's Fig. 3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gatedeploy.benchmarks.look import COLOURS, WIDTH, bare, canvas, short, style
from gatedeploy.benchmarks.naming import Mark, write_names

if TYPE_CHECKING:  # where something is drawn, matplotlib is imported: it takes long
    from matplotlib.figure import Figure

HEIGHT = 3.7

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

    @property
    def mark(self) -> Mark:
        """What is drawn of it, with one deviation to each side."""
        low, high = self.gain - self.deviation, self.gain + self.deviation
        return Mark(short(self.label), self.cost, self.gain, low, high)


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
        for axes, places in zip(figure.axes, panels.values(), strict=True):
            write_names(axes, [place.mark for place in places], _best(places, "ours"))
    return figure


def _draw(axes: Any, places: Sequence[Place]) -> None:
    for kind in ("published", "ours"):
        if best := _best(places, kind):
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


def _best(places: Sequence[Place], kind: str) -> list[tuple[float, float]]:
    """Those of one kind that no other of it beats, from the cheapest."""
    own = [(place.cost, place.gain) for place in places if place.kind == kind]
    return sorted(place for place, is_best in zip(own, front(own), strict=True) if is_best)


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
