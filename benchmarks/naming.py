"""Where names are put beside the marks of a picture, so that they cover neither each other nor marks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

DISTANCES = (6.0, 14.0, 24.0, 36.0, 50.0)
DIRECTIONS = 12
ROUNDS = 3


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
    def area(self) -> float:
        """Of all of it."""
        return (self.right - self.left) * (self.top - self.bottom)


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
    found: list[Box | None] = [None] * len(marks)
    for _ in range(ROUNDS):
        for number, (mark, size) in enumerate(zip(marks, sizes, strict=True)):
            others = [*drawn] + [box for other, box in enumerate(found) if other != number and box is not None]
            found[number] = min(_candidates(mark, size), key=lambda each: _cost(each, others, frame))[1]
    return [box for box in found if box is not None]


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


def _cost(each: tuple[float, Box], others: Sequence[Box], frame: Box) -> float:
    """Points squared that it covers or that lie outside, and a little for being far away."""
    distance, box = each
    covered = sum(box.overlap(other) for other in others)
    return 4 * (box.area - box.overlap(frame)) + covered + 2 * distance
