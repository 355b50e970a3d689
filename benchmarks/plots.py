"""Pictures of a report, drawn by matplotlib in the look of `gatedeploy.benchmarks.look`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gatedeploy.benchmarks.latency import Ratio
from gatedeploy.benchmarks.look import COLOURS, WIDTH, apart, bare, canvas, label, short, style
from gatedeploy.benchmarks.naming import Mark, write_names

if TYPE_CHECKING:  # where something is drawn, matplotlib is imported: it takes long, and most commands draw nothing
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Point:
    """One candidate in the pictures of cost and latency, all relative to the baseline.

    Args:
        label: what it is called.
        ours: whether it is drawn as ours or as a rival.
        macs: MACs over the baseline's.
        latency: latency over the baseline's, with its interval.
    """

    label: str
    ours: bool
    macs: float
    latency: Ratio

    @property
    def longest(self) -> float:
        """How far what is drawn of it reaches."""
        return max(self.macs, self.latency.high) if self.latency.told else self.macs


def ratio_bars(points: Sequence[Point], baseline: str) -> Figure:
    """Two bars for each candidate: its MACs (pale) and its latency (solid) as multiples of the baseline's.

    Where the machine was too noisy to tell a latency there is a question mark in its place.
    """
    with style():
        figure = canvas(WIDTH, 0.7 + 0.5 * len(points))
        axes = figure.add_subplot()
        for row, point in enumerate(points):
            colour = COLOURS["ours" if point.ours else "rival"]
            axes.barh(row - 0.19, point.macs, 0.34, color=colour, alpha=0.45)
            label(axes, (point.macs, row - 0.19), f"{point.macs:.2f}")
            ratio = point.latency
            if not ratio.told:
                label(axes, (0, row + 0.19), "?")
                continue
            axes.barh(row + 0.19, ratio.value, 0.34, color=colour)
            axes.plot([ratio.low, ratio.high], [row + 0.19] * 2, color=COLOURS["ink"], linewidth=1)
            label(axes, (ratio.high, row + 0.19), f"{ratio.value:.2f}")
        axes.set(xlim=(0, 1.16 * max(point.longest for point in points)), ylim=(len(points) - 0.5, -0.5))
        axes.axvline(1, color=COLOURS["ink"], linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set_yticks(range(len(points)), [short(point.label) for point in points])
        axes.set_xlabel(f"× {short(baseline)}")
        bare(axes, grid="x")
    return figure


def latency_against_macs(points: Sequence[Point], baseline: str) -> Figure:
    """Each candidate at its MACs and its latency; on the dashed line the milliseconds are what the MACs promise.

    Args:
        points: whose latency is told.
        baseline: what all are multiples of.
    """
    with style():
        figure = canvas(WIDTH, 3.7)
        axes = figure.add_subplot()
        end = 1.15 * max(point.longest for point in points)
        axes.plot([0, end], [0, end], color=COLOURS["muted"], linewidth=0.8, linestyle=(0, (4, 3)))
        for point in points:
            colour = COLOURS["ours" if point.ours else "rival"]
            axes.plot([point.macs] * 2, [point.latency.low, point.latency.high], color=colour, linewidth=1.2)
            axes.plot(point.macs, point.latency.value, "o", color=colour, markersize=7, zorder=3)
        axes.set(xlim=(0, end), ylim=(0, end))
        axes.set_xlabel(f"MACs, × {short(baseline)}")
        axes.set_ylabel("latency, likewise")
        bare(axes, grid="both")
        marks = [(each, each.latency) for each in points]
        write_names(axes, [Mark(short(each.label), each.macs, it.value, it.low, it.high) for each, it in marks])
    return figure


def share_bars(rows: Sequence[tuple[str, float, float]]) -> Figure:
    """Two bars for each row, shares in [0, 1] of two wholes: the first pale, the second solid."""
    with style():
        figure = canvas(WIDTH, 0.6 + 0.3 * len(rows))
        axes = figure.add_subplot()
        for row, (_, pale, solid) in enumerate(rows):
            axes.barh(row - 0.19, 100 * pale, 0.34, color=COLOURS["ours"], alpha=0.45)
            axes.barh(row + 0.19, 100 * solid, 0.34, color=COLOURS["ours"])
        axes.set(ylim=(len(rows) - 0.5, -0.5))
        axes.set_yticks(range(len(rows)), [short(name) for name, _, _ in rows], size=8)
        axes.set_xlabel("% of all")
        bare(axes, grid="x")
    return figure


@dataclass(frozen=True)
class Series:
    """One candidate in a picture of what becomes of it as something grows.

    Args:
        label: what it is called.
        ours: whether it is drawn as ours or as a rival.
        points: (x, y), from the left; at least one.
    """

    label: str
    ours: bool
    points: Sequence[tuple[float, float]]


def growth(lines: Sequence[Series], x: str, y: str) -> Figure:
    """Lines, each called by its name at its end; both axes are logarithmic.

    Args:
        lines: at least one.
        x: what grows.
        y: what becomes of it.
    """
    with style():
        figure = canvas(WIDTH, 3.7)
        axes = figure.add_subplot()
        for line in lines:
            colour = COLOURS["ours" if line.ours else "rival"]
            axes.plot(*zip(*line.points, strict=True), "o-", color=colour, markersize=4, linewidth=1.4)
        axes.set(xscale="log", yscale="log")
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        places = sorted({place for line in lines for place, _ in line.points})
        axes.set_xticks(places, [f"{float(f'{place:.3g}'):,g}" for place in places])
        axes.minorticks_off()
        low, high = axes.get_ylim()
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        steps = [step * 10.0**decade for decade in decades for step in (1, 2, 5)]
        if sum(low <= step <= high for step in steps) < 2:
            steps = [float(f"{low + share * (high - low):.2g}") for share in (0.2, 0.5, 0.8)]
        axes.set_yticks(steps, [f"{step:,g}" for step in steps])
        axes.minorticks_off()
        axes.set_ylim(low, high)
        ends = [math.log(line.points[-1][1]) for line in lines]
        for line, height in zip(lines, apart(ends, 0.06 * math.log(high / low)), strict=True):
            end, value = line.points[-1]
            right = places[-1] * (places[-1] / places[0]) ** 0.04
            axes.plot([end, right], [value, math.exp(height)], color=COLOURS["muted"], linewidth=0.5)
            label(axes, (right, math.exp(height)), short(line.label), away=2)
        bare(axes, grid="both")
    return figure


Shares = Sequence[Sequence[float | None]]


def heat(rows: Sequence[str], columns: Sequence[str], panels: Mapping[str, Shares]) -> Figure:
    """Tables of shares in [0, 1], side by side, whose cells are the darker the larger the share.

    Args:
        rows: names from top to bottom.
        columns: names from left to right.
        panels: by title, `(rows, columns)` shares; None leaves a cell empty. One panel alone goes without title.
    """
    with style():
        figure = canvas(WIDTH * len(panels), 1.1 + 0.21 * len(rows))
        for number, (title, values) in enumerate(panels.items(), start=1):
            axes = figure.add_subplot(1, len(panels), number, title=title if len(panels) > 1 else None)
            axes.set(xlim=(0, len(columns)), ylim=(len(rows), 0))
            for row, shares in enumerate(values):
                for column, share in enumerate(shares):
                    _cell(axes, row, column, share, said=len(columns) <= 8)
            slanted: dict[str, Any] = (
                {} if len(columns) <= 3 else {"rotation": 30, "ha": "left", "rotation_mode": "anchor"}
            )
            axes.set_xticks([column + 0.5 for column in range(len(columns))], [*map(short, columns)], **slanted)
            axes.xaxis.tick_top()
            axes.tick_params("x", labelcolor=COLOURS["ink"])
            axes.set_yticks([row + 0.5 for row in range(len(rows))], [*map(short, rows)], size=8)
            bare(axes, grid="")
    return figure


def _cell(axes: Any, row: int, column: int, share: float | None, said: bool) -> None:
    if share is None:
        return
    axes.add_patch(_rectangle(row, column, COLOURS["grid"], 0.5))
    # At most three quarters, so that the number on it can be read.
    axes.add_patch(_rectangle(row, column, COLOURS["ours"], 0.75 * share))
    if said:
        axes.text(column + 0.5, row + 0.52, f"{100 * share:.0f}", ha="center", va="center", size=8)


def _rectangle(row: int, column: int, colour: str, alpha: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column + 0.02, row + 0.05), 0.96, 0.9, linewidth=0, facecolor=colour, alpha=alpha)
