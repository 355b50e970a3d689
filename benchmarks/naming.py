"""Where names are put beside the marks of a picture, so that they cover neither each other nor marks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from gatedeploy.benchmarks.look import COLOURS

DISTANCES = (6.0, 14.0, 24.0, 36.0, 50.0)
DIRECTIONS = 12
ROUNDS = 3

SIZE, LETTER, LINE, HALF, THICK = 8, 4.6, 11.0, 4.0, 1.5
"""Points: of names, of a letter's width on average, of a line's height, half of a mark's side and of a line's width."""


@dataclass(frozen=True)
class Mark:
    """What is drawn at one place of a picture: a point, and a line from the lowest to the highest it may be.

    Args:
        name: what is written beside it.
        x: of its point.
        y: of its point.
        low: where its line begins.
        high: and where it ends.
    """

    name: str
    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Box:
    """A rectangle; of a picture's lengths."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """The area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(width, 0) * max(height, 0)

    @property
    def middle(self) -> tuple[float, float]:
        """Of both sides."""
        return (self.left + self.right) / 2, (self.bottom + self.top) / 2

    @property
    def area(self) -> float:
        """Of all of it."""
        return (self.right - self.left) * (self.top - self.bottom)


def write_names(axes: Any, marks: Sequence[Mark], line: Sequence[tuple[float, float]] = ()) -> None:
    """Write the names beside the marks, each with a pointer to its own.

    It is the last that is drawn: where marks are in points has to stand still.

    Args:
        axes: matplotlib's, in which the marks are drawn.
        marks: in the units of the axes.
        line: the corners of one that is drawn from mark to mark, likewise.
    """
    axes.figure.draw_without_rendering()  # which gives all their places
    points = 72 / axes.figure.dpi

    def at(x: float, y: float) -> tuple[float, float]:
        across, up = points * axes.transData.transform((x, y))
        return float(across), float(up)

    middles = [at(mark.x, mark.y) for mark in marks]
    drawn = [Box(x - HALF, y - HALF, x + HALF, y + HALF) for x, y in middles]
    for mark, (x, _) in zip(marks, middles, strict=True):
        drawn.append(Box(x - THICK, at(mark.x, mark.low)[1], x + THICK, at(mark.x, mark.high)[1]))
    corners = [at(*corner) for corner in line]
    drawn += [box for start, end in pairwise(corners) for box in along(start, end)]
    extent = axes.get_window_extent()
    frame = Box(*(points * edge for edge in (extent.x0, extent.y0, extent.x1, extent.y1)))
    boxes = placed(middles, [(LETTER * len(mark.name), LINE) for mark in marks], drawn, frame)
    for mark, (x, y), box in zip(marks, middles, boxes, strict=True):
        axes.annotate(
            mark.name,
            (mark.x, mark.y),
            xytext=(box.middle[0] - x, box.middle[1] - y),
            textcoords="offset points",
            **{"ha": "center", "va": "center", "size": SIZE, "zorder": 2.5},
            bbox={"facecolor": COLOURS["surface"], "alpha": 0.8, "linewidth": 0, "pad": 0.5},
            arrowprops={"arrowstyle": "-", "color": COLOURS["muted"], "linewidth": 0.5, "shrinkB": 3},
        ).set_in_layout(False)


def placed(
    marks: Sequence[tuple[float, float]], sizes: Sequence[tuple[float, float]], drawn: Sequence[Box], frame: Box
) -> list[Box]:
    """Where each mark's name is put: near it, inside the frame, where it covers least.

    One after the other takes the best place beside those that the others have, some rounds long.

    Args:
        marks: the marks' middles, in points.
        sizes: the names' widths and heights, in points.
        drawn: what names should not cover.
        frame: what they should not leave.
    """
    found: dict[int, Box] = {}
    for _ in range(ROUNDS):
        for number, (mark, size) in enumerate(zip(marks, sizes, strict=True)):
            names = {other: box for other, box in found.items() if other != number}
            pointers = [part for other, box in names.items() for part in along(marks[other], box.middle)]
            held = list(names.values())
            costs = {
                box: 2 * distance + _cost(mark, box, held, [*drawn, *pointers], frame)
                for distance, box in _candidates(mark, size)
            }
            found[number] = min(costs, key=costs.__getitem__)
    return list(found.values())


def _cost(mark: tuple[float, float], box: Box, names: Sequence[Box], lines: Sequence[Box], frame: Box) -> float:
    """Points squared that a mark's name would cover, that would lie outside, and that its pointer would cross."""
    pointer = [part for part in along(mark, box.middle) if not part.overlap(box)]
    return 4 * (box.area - box.overlap(frame)) + _common([box], [*names, *lines]) + _common(pointer, names)


def along(start: tuple[float, float], end: tuple[float, float]) -> list[Box]:
    """A line of `THICK` to each side, as squares in a row."""
    across, up = end[0] - start[0], end[1] - start[1]
    steps = math.ceil(math.hypot(across, up) / (2 * THICK))
    middles = [(start[0] + across * step / steps, start[1] + up * step / steps) for step in range(1, steps)]
    return [Box(x - THICK, y - THICK, x + THICK, y + THICK) for x, y in middles]


def _common(some: Sequence[Box], others: Sequence[Box]) -> float:
    return sum(one.overlap(other) for one in some for other in others)


def _candidates(mark: tuple[float, float], size: tuple[float, float]) -> Iterator[tuple[float, Box]]:
    """Boxes around a mark, each with its distance: the one to the right first, which reads best."""
    (x, y), (width, height) = mark, size
    for distance in DISTANCES:
        for step in range(DIRECTIONS):
            angle = 2 * math.pi * step / DIRECTIONS
            across, up = math.cos(angle), math.sin(angle)
            # The box's side or corner that looks at the mark lies at this distance.
            left = x + distance * across - width * (1 - across) / 2
            bottom = y + distance * up - height * (1 - up) / 2
            yield distance, Box(left, bottom, left + width, bottom + height)
