"""Pictures of a report, drawn by matplotlib as SVG whose text stays text.

They are drawn in the colours of `COLOURS`. In a page these become CSS variables, so that one picture serves light and
dark. Names are untrusted: they are never read as mathematics, and XML's special characters are escaped by matplotlib.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gatedeploy.files import replacing_file

if TYPE_CHECKING:  # where something is drawn, matplotlib is imported: it takes long, and most commands draw nothing
    from matplotlib.figure import Figure

COLOURS = {
    **{"ink": "#1b2026", "muted": "#5a6572", "grid": "#dde2e8", "surface": "#fefefe"},
    **{"ours": "#1769d2", "rival": "#8b97a5"},
}
"""Colour by role; each is one that no other role has, so that it can be told in the SVG."""

WIDTH = 4.2
"""Inches of every picture, 72 of its units each: about a telephone's width, so that text stays readable there."""

LONGEST = 28
"""Characters of a name that are shown."""

SETTINGS: dict[str, Any] = {
    **{"svg.fonttype": "none", "text.parse_math": False, "font.size": 9, "axes.linewidth": 0.6},
    **{"font.sans-serif": ["DejaVu Sans"], "axes.edgecolor": COLOURS["grid"], "axes.labelcolor": COLOURS["muted"]},
    **{"text.color": COLOURS["ink"], "xtick.color": COLOURS["muted"], "ytick.color": COLOURS["ink"]},
    **{"xtick.major.size": 0, "ytick.major.size": 0, "axes.axisbelow": True, "hatch.linewidth": 0.5},
}


@dataclass(frozen=True)
class Point:
    """One candidate in the pictures of cost and latency, all relative to the baseline.

    Args:
        label: what it is called.
        ours: whether it is drawn as ours or as a rival.
        macs: MACs over the baseline's.
        latency: latency over the baseline's.
        low: the lower end of the latency's interval.
        high: the upper end.
    """

    label: str
    ours: bool
    macs: float
    latency: float
    low: float
    high: float


def ratio_bars(points: Sequence[Point], baseline: str) -> Figure:
    """Two bars for each candidate: its MACs (pale) and its latency (solid) as multiples of the baseline's."""
    with style():
        figure = canvas(WIDTH, 0.7 + 0.5 * len(points))
        axes = figure.add_subplot()
        for row, point in enumerate(points):
            colour = COLOURS["ours" if point.ours else "rival"]
            axes.barh(row - 0.19, point.macs, 0.34, color=colour, alpha=0.45)
            axes.barh(row + 0.19, point.latency, 0.34, color=colour)
            axes.plot([point.low, point.high], [row + 0.19] * 2, color=COLOURS["ink"], linewidth=1)
            for offset, value, end in ((-0.19, point.macs, point.macs), (0.19, point.latency, point.high)):
                label(axes, (max(value, end), row + offset), f"{value:.2f}")
        widest = max(max(point.macs, point.high) for point in points)
        axes.set(xlim=(0, 1.16 * widest), ylim=(len(points) - 0.5, -0.5))
        axes.axvline(1, color=COLOURS["ink"], linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set_yticks(range(len(points)), [short(point.label) for point in points])
        axes.set_xlabel(f"× {short(baseline)}")
        bare(axes, grid="x")
    return figure


def latency_against_macs(points: Sequence[Point], baseline: str) -> Figure:
    """Each candidate at its MACs and its latency; on the dashed line the milliseconds are what the MACs promise."""
    with style():
        figure = canvas(WIDTH, 3.7)
        axes = figure.add_subplot()
        end = 1.15 * max(max(point.macs, point.high) for point in points)
        axes.plot([0, end], [0, end], color=COLOURS["muted"], linewidth=0.8, linestyle=(0, (4, 3)))
        for point in points:
            colour = COLOURS["ours" if point.ours else "rival"]
            axes.plot([point.macs] * 2, [point.low, point.high], color=colour, linewidth=1.2)
            axes.plot(point.macs, point.latency, "o", color=colour, markersize=7, zorder=3)
        for point, height in zip(points, apart([point.latency for point in points], 0.06 * end), strict=True):
            axes.plot([point.macs] * 2, [point.latency, height], color=COLOURS["muted"], linewidth=0.5)
            label(axes, (point.macs, height), short(point.label), leftwards=point.macs > 0.5 * end, away=7)
        axes.set(xlim=(0, end), ylim=(0, end))
        axes.set_xlabel(f"MACs, × {short(baseline)}")
        axes.set_ylabel("latency, likewise")
        bare(axes, grid="both")
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


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an `svg` element for a page: colours as CSS variables, ids of its own, nothing from elsewhere.

    Args:
        figure: the picture.
        name: unique on the page; begins every id.
        description: what it shows, for those who cannot see it.
    """
    text = _svg(figure, name, transparent=True)
    text = text[text.index("<svg") :]  # without the declaration, which names a file on the net
    # Its description, and a rule that would hold for the whole page.
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
    for role, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{role})")
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    width, height = (72 * inches for inches in figure.get_size_inches())
    box = f'viewBox="0 0 {width:.1f} {height:.1f}" role="img" aria-label="{escape(description)}"'
    return re.sub(r"<svg[^>]*>", f'<svg id="{name}" {box}>', text, count=1)


def write_picture(figure: Figure, path: Path) -> None:
    """Write a figure as a file of the kind that its name ends with: svg or png; complete when it appears."""
    kind = path.suffix.lower().removeprefix(".")
    with replacing_file(path) as temporary, style():
        if kind == "svg":
            temporary.write_text(_svg(figure, path.stem, facecolor=COLOURS["surface"]), encoding="utf-8")
        else:
            figure.savefig(temporary, format=kind, dpi=200, facecolor=COLOURS["surface"], metadata={"Software": None})


def _svg(figure: Figure, name: str, **ground: Any) -> str:
    buffer = io.StringIO()
    with style(**{"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, **ground)
    return buffer.getvalue()


@contextmanager
def style(**more: Any) -> Iterator[None]:
    """The look of every picture, with settings of matplotlib's for this one."""
    from matplotlib import rc_context

    with rc_context({**SETTINGS, **more}), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a letter that the font lacks; browsers bring others
        yield


def canvas(width: float, height: float) -> Figure:
    """An empty picture of so many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


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


def label(axes: Any, place: tuple[float, float], text: str, leftwards: bool = False, away: int = 4) -> None:
    """Text beside a place, `away` points from it, on paper of its own so that lines do not cross it."""
    axes.annotate(
        text,
        place,
        xytext=(-away if leftwards else away, 0),
        textcoords="offset points",
        **{"ha": "right" if leftwards else "left", "va": "center", "size": 8},
        zorder=2.5,  # marks lie above it
        bbox={"facecolor": COLOURS["surface"], "alpha": 0.8, "linewidth": 0, "pad": 0.8},
    )


def apart(heights: Sequence[float], gap: float) -> list[float]:
    """The heights, moved as little as it takes (least squares) so that none is closer to another than `gap`."""
    order = np.argsort(heights, kind="stable")
    # Without the gaps that lie below it each height has to be no less than the one before: where it is, both take their
    # mean, and so on with those that were put together before (pool adjacent violators).
    pools: list[list[float]] = []
    for place, number in enumerate(order):
        pools.append([heights[number] - place * gap])
        while len(pools) > 1 and np.mean(pools[-2]) > np.mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    moved = [0.0] * len(heights)
    lowest = [float(np.mean(pool)) for pool in pools for _ in pool]
    for place, number in enumerate(order):
        moved[number] = lowest[place] + place * gap
    return moved


def bare(axes: Any, grid: str) -> None:
    """Take the frame away and draw lines behind: along `x`, `y` or `both`; none where that is empty."""
    axes.spines[:].set_visible(False)
    if grid:
        axes.grid(axis=grid, color=COLOURS["grid"], linewidth=0.6)


def short(name: str) -> str:
    """A name as it is shown: printable, and not too long."""
    printable = "".join(letter if letter.isprintable() else "·" for letter in name)
    return printable if len(printable) <= LONGEST else f"{printable[: LONGEST - 1]}…"
