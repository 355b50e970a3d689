"""Accuracy against cost: which networks no other beats, and the picture of it (InterroGate's Fig. 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gatedeploy.benchmarks.plots import COLOURS, WIDTH, apart, bare, canvas, label, short, style

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


def front(places: Sequence[tuple[float, float]]) -> list[bool]:
    """Which of some places (cost, gain) no other beats: none is as cheap and as good and in one of both better."""

    def beaten(cost: float, gain: float) -> bool:
        return any(c <= cost and g >= gain and (c, g) != (cost, gain) for c, g in places)

    return [not beaten(*place) for place in places]


def accuracy_against(panels: Mapping[str, Sequence[Place]]) -> Figure:
    """Δ_MTL against each cost, side by side; a line joins those of ours that no other of ours beats.

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
    axes.margins(x=0.15, y=0.12)
    axes.set_xlim(left=0)
    low, high = axes.get_ylim()
    middle = sum(axes.get_xlim()) / 2
    heights = apart([place.gain for place in places], 0.05 * (high - low))
    for place, height in zip(places, heights, strict=True):
        label(axes, (place.cost, height), short(place.label), leftwards=place.cost > middle, away=7)
    bare(axes, grid="both")


def _colour(kind: str) -> str:
    return COLOURS["ours" if kind == "ours" else "rival"]
