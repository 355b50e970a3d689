from __future__ import annotations

import itertools

import numpy as np
import pytest

from gatedeploy.benchmarks.naming import THICK, Box, along, placed

FRAME = Box(0, 0, 300, 200)


def square(mark: tuple[float, float]) -> Box:
    return Box(mark[0] - 4, mark[1] - 4, mark[0] + 4, mark[1] + 4)


def test_areas() -> None:
    box = Box(0, 0, 4, 2)
    assert box.area == 8
    assert box.overlap(Box(3, 1, 9, 9)) == 1
    assert box.overlap(Box(4, 0, 9, 9)) == 0
    assert box.overlap(Box(5, 3, 9, 9)) == 0  # and not the product of two negative lengths


def test_a_name_alone_stands_to_the_right_at_the_height_of_its_mark() -> None:
    (box,) = placed([(100, 100)], [(40, 10)], [square((100, 100))], FRAME)
    assert (box.left, box.bottom, box.right, box.top) == pytest.approx((106, 95, 146, 105))


def test_at_the_edge_it_stands_to_the_left() -> None:
    (box,) = placed([(295, 100)], [(40, 10)], [square((295, 100))], FRAME)
    assert box.right <= 289.01
    assert box.overlap(FRAME) == pytest.approx(box.area)


@pytest.mark.parametrize("seed", range(5))
def test_names_cover_neither_marks_nor_each_other_where_there_is_room(seed: int) -> None:
    drawn = np.random.default_rng(seed)
    marks = [(float(x), float(y)) for x, y in drawn.uniform((20, 20), (280, 180), (8, 2))]
    boxes = placed(marks, [(50.0, 10.0)] * 8, [square(mark) for mark in marks], FRAME)
    for box, mark in itertools.product(boxes, marks):
        assert box.overlap(square(mark)) == 0
    for one, other in itertools.combinations(boxes, 2):
        assert one.overlap(other) == 0
    assert all(box.overlap(FRAME) == pytest.approx(box.area) for box in boxes)


def test_a_name_does_not_lie_on_a_line() -> None:
    line = along((100, 100), (300, 100))
    (box,) = placed([(100, 100)], [(40, 10)], [square((100, 100)), *line], FRAME)
    assert all(box.overlap(part) == 0 for part in line)


def test_a_pointer_does_not_lead_through_another_name() -> None:
    """Six marks so close that names have to stand away from them."""
    marks = [(120.0 + 8 * number, 100.0 + 3 * (number % 2)) for number in range(6)]
    boxes = placed(marks, [(60.0, 11.0)] * 6, [square(mark) for mark in marks], FRAME)
    for mark, own in zip(marks, boxes, strict=True):
        for part in along(mark, own.middle):
            assert all(part.overlap(other) == 0 for other in boxes if other is not own)


def test_a_line_is_covered_by_squares() -> None:
    row = along((0, 0), (30, 40))
    assert all(box.area == pytest.approx((2 * THICK) ** 2) for box in row)
    assert all(box.middle[1] == pytest.approx(4 / 3 * box.middle[0]) for box in row)
    steps = [b.middle[0] - a.middle[0] for a, b in itertools.pairwise(row)]
    assert max(steps) <= 2 * THICK
    assert along((1, 1), (1, 1)) == []


def test_nothing_to_name() -> None:
    assert placed([], [], [], FRAME) == []
