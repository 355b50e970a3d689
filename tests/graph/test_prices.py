import math
from dataclasses import replace

import pytest

from gatedeploy.graph.prices import Prices

RATES = {
    **{(9, 8, 16, 64): 100.0, (9, 32, 16, 64): 200.0, (9, 8, 64, 64): 100.0, (9, 32, 64, 64): 400.0},
    **{(1, 8, 16, 64): 50.0, (1, 32, 16, 64): 50.0, (1, 8, 64, 64): 50.0, (1, 32, 64, 64): 50.0},
}
PRICES = Prices(
    "made up", "a machine", RATES, launch_ms=1, weight_ms=0, add_ms=0, copy_ms=0.001, cut_ms=0.01, cut_launch_ms=3
)


def test_rows_are_rounded_up_to_what_was_measured() -> None:
    assert PRICES.layer(9, 3, 16, 64) == PRICES.layer(9, 8, 16, 64) == pytest.approx(9 * 8 * 16 * 64 / 100)
    assert PRICES.layer(9, 9, 16, 64) == pytest.approx(9 * 32 * 16 * 64 / 200)


def test_more_rows_than_were_measured_take_several_turns() -> None:
    assert PRICES.layer(9, 70, 16, 64) == pytest.approx(2 * 9 * 32 * 16 * 64 / 200 + 9 * 8 * 16 * 64 / 100)


def test_rates_lie_between_those_of_their_neighbours() -> None:
    assert PRICES.layer(9, 32, 32, 64) == pytest.approx(9 * 32 * 32 * 64 / math.sqrt(200 * 400))


def test_beyond_the_ends_the_nearest_rate_holds() -> None:
    assert PRICES.layer(9, 32, 1000, 9999) == pytest.approx(9 * 32 * 1000 * 9999 / 400)


def test_a_kernel_costs_as_the_nearest_one_that_was_measured() -> None:
    assert PRICES.layer(49, 8, 16, 64) == pytest.approx(49 * 8 * 16 * 64 / 100)


def test_weights_are_fetched() -> None:
    dear = Prices(
        "made up", "a machine", RATES, launch_ms=0, weight_ms=1, add_ms=0, copy_ms=0, cut_ms=0, cut_launch_ms=0
    )
    assert dear.layer(9, 8, 16, 64) == pytest.approx(PRICES.layer(9, 8, 16, 64) + 9 * 8 * 16)


def test_tensors_are_read_whole_or_cut_or_joined() -> None:
    """8 of 16 channels of one tensor and all 16 of another, 10 numbers each."""
    sources = [(16, 8), (16, 16)]
    two = PRICES.layer(9, 8, 8, 64) + PRICES.layer(9, 8, 16, 64)
    apart = replace(PRICES, copy_ms=1000).reading(9, 8, 64, sources, 10)
    assert (apart.joined, apart.cut) == (False, (True, False))
    assert apart.ms == pytest.approx(two + 2 + (0.01 * 80 + 3))
    whole = replace(PRICES, copy_ms=1000, cut_launch_ms=1000).reading(9, 8, 64, sources, 10)
    assert (whole.joined, whole.cut) == (False, (False, False))
    assert whole.ms == pytest.approx(2 * PRICES.layer(9, 8, 16, 64) + 2)
    joined = PRICES.reading(9, 8, 64, [*sources, (16, 16)], 10)
    assert (joined.joined, joined.cut) == (True, (True, False, False))
    assert joined.ms == pytest.approx(PRICES.layer(9, 8, 40, 64) + 2 + (0.01 * 80 + 3) + 0.001 * 400)
