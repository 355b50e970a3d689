from collections.abc import Mapping
from typing import cast

import numpy as np
import pytest

from gatedeploy.exporters.pieces import MOST_AT_ONCE, Batches, batches_to_try, cycled, in_pieces
from gatedeploy.runners.base import Array, Runner


class Doubler:
    """Answers every picture with twice itself, and remembers how many it was asked about."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def infer(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        self.asked.append(len(feed["image"]))
        return {"double": 2 * feed["image"], "same": feed["image"]}


@pytest.mark.parametrize(
    ("smallest", "largest", "asked"),
    [(1, 11, [11]), (2, 5, [5, 5, 2]), (3, 3, [3] * 4), (16, 32, [16]), (1, 1, [1] * 11)],
)
def test_pictures_go_in_pieces(smallest: int, largest: int, asked: list[int]) -> None:
    runner = Doubler()
    pictures = np.arange(22.0).reshape(11, 2)
    found = in_pieces(cast(Runner, runner), "image", pictures, smallest, largest)
    assert runner.asked == asked
    assert np.array_equal(found["double"], 2 * pictures)
    assert np.array_equal(found["same"], pictures)


def test_rows_follow_each_other_again_and_again() -> None:
    assert cycled(np.array([[1], [2], [3]]), 7).tolist() == [[1], [2], [3], [1], [2], [3], [1]]
    assert cycled(np.array([1, 2, 3]), 2).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("batches", "sizes"),
    [
        (None, [1, 3]),
        ((1, 8, 32), [1, 3, 32]),
        ((1, 1, 1), [1]),
        ((2, 2, 2), [2]),
        ((4, 8, 16), [4, 16]),
        ((2, 3, 4), [2, 3, 4]),
        ((1, 8, 10**9), [1, 3, MOST_AT_ONCE]),
        ((5000, 5000, 10**9), [5000]),
    ],
)
def test_an_engine_is_tried_at_its_ends(batches: Batches, sizes: list[int]) -> None:
    assert batches_to_try(3, batches) == sizes
