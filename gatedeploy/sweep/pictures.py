"""A sweep drawn as InterroGate draws it: Δ_MTL against multiply-adds (Fig. 3), coloured by targets (Figs. 5 and 6)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gatedeploy.benchmarks.look import COLOURS, WIDTH, apart, bare, canvas, label, short, style
from gatedeploy.benchmarks.pareto import front
from gatedeploy.sweep.grid import TARGET, shown
from gatedeploy.sweep.records import Found, Line, Measured, figures

if TYPE_CHECKING:  # where something is drawn, matplotlib is imported: it takes long
    from matplotlib.figure import Figure

COST = "MACs, % of the single-task networks'"
MOST_LABELS = 10
MAP = "viridis"
WIDEST = 60
"""Characters that fit above a picture."""


def pareto(found: Found) -> Figure:
    """Every point at its mean, with its deviation over seeds; the line joins those that no other beats."""
    lines = found.lines
    places = [(line.mean("share"), line.mean("delta_mtl")) for line in lines]
    best = front(places)
    with style():
        figure = canvas(WIDTH, 3.7)
        axes = figure.add_subplot()
        joined = sorted(place for place, is_best in zip(places, best, strict=True) if is_best)
        axes.plot(*zip(*joined, strict=True), color=COLOURS["ours"], linewidth=1, zorder=1)
        for line, place, is_best in zip(lines, places, best, strict=True):
            _mark(axes, place, [line.each("share"), line.each("delta_mtl")], COLOURS["ours"], 1 if is_best else 0.4)
        _rivals(axes, found)
        _names(axes, [line for line, is_best in zip(lines, best, strict=True) if is_best])
        _axes(axes)
        keys = ", ".join(lines[0].point)
        varied = keys if len(keys) < WIDEST else f"{len(lines[0].point)} keys varied"
        axes.set_title(varied, size=8, color=COLOURS["muted"], loc="left")
    return figure


def targets(found: Found) -> Figure:
    """The same points once for each task, coloured by what that task was to keep for itself: its τ."""
    lines = found.lines
    tasks = [task.name for task in found.tasks if f"tasks.{task.name}.{TARGET}" in lines[0].point]
    with style():
        figure = canvas(0.8 * WIDTH * len(tasks), 3.2)
        shared: Any = None
        for number, task in enumerate(tasks, start=1):
            axes = figure.add_subplot(1, len(tasks), number, sharey=shared, title=short(task))
            shared = shared or axes
            values = [float(line.point[f"tasks.{task}.{TARGET}"] or 0) for line in lines]
            x, y = ([line.mean(what) for line in lines] for what in ("share", "delta_mtl"))
            dots = axes.scatter(x, y, c=values, cmap=MAP, vmin=0, vmax=1, s=26, linewidths=0, zorder=3)
            _axes(axes)
            if number > 1:
                axes.set_ylabel("")
        figure.colorbar(dots, ax=figure.axes, label="τ, the share that the task may keep for itself", pad=0.01)
    return figure


def _mark(
    axes: Any, place: tuple[float, float], over_seeds: Sequence[Sequence[float]], colour: str, alpha: float
) -> None:
    x, y = (statistics.stdev(values) if len(values) > 1 else 0 for values in over_seeds)
    axes.errorbar(*place, xerr=x or None, yerr=y or None, color=colour, alpha=alpha, linewidth=0.9, zorder=2)
    axes.plot(*place, "o", color=colour, alpha=alpha, markersize=6, zorder=3)


def _rivals(axes: Any, found: Found) -> None:
    """Single-task networks, which are 100 % and 0 %, and uniform MTL where it was trained."""
    axes.plot(100, 0, "s", color=COLOURS["rival"], markersize=6, zorder=2)
    label(axes, (100, 0), "single-task", leftwards=True, away=7)
    shared = [(seed, rivals.shared) for seed, rivals in found.rivals.items() if rivals.shared is not None]
    if not shared:
        return
    both = [figures(found, _sure(shared), what) for what in ("share", "delta_mtl")]
    if all(both):
        place = (statistics.fmean(both[0]), statistics.fmean(both[1]))
        _mark(axes, place, both, COLOURS["rival"], 1)
        label(axes, place, "uniform MTL", away=7)


def _sure(some: Sequence[tuple[int, Measured | None]]) -> list[tuple[int, Measured]]:
    return [(seed, measured) for seed, measured in some if measured is not None]


def _names(axes: Any, best: Sequence[Line]) -> None:
    """What was chosen at the points of the front, where these are few."""
    if len(best) > MOST_LABELS:
        return
    low, high = axes.get_ylim()
    heights = apart([line.mean("delta_mtl") for line in best], 0.05 * (high - low))
    for line, height in zip(best, heights, strict=True):
        text = " / ".join(shown(value) for value in line.point.values())
        label(axes, (line.mean("share"), height), short(text), away=7)


def _axes(axes: Any) -> None:
    axes.set_xlabel(COST)
    axes.set_ylabel("Δ_MTL, %")
    axes.margins(0.12)
    bare(axes, grid="both")
