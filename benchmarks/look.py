"""How every picture looks, and how it is written as SVG whose text stays text.

Pictures are drawn in the colours of `COLOURS`. In a page these become CSS variables, so that one picture serves light
and dark. Names are untrusted: they are never read as mathematics, and XML's special characters are escaped by
matplotlib.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
