import math
from dataclasses import replace

import pytest

from gatedeploy.graph.prices import Prices, Source

RATES = {
    **{(9, 8, 16, 64): 100.0, (9, 32, 16, 64): 200.0, (9, 8, 64, 64): 100.0, (9, 32, 64, 64): 400.0},
    **{(1, 8, 16, 64): 50.0, (1, 32, 16, 64): 50.0, (1, 8, 64, 64): 50.0, (1, 32, 64, 64): 50.0},
}
PRICES = Prices(
    "made up",
    "a machine",
    8,
    RATES,
    launch_ms=1,
    weight_ms=0,
    add_ms=0,
    join_ms=0.001,
    cut_ms=0.01,
    cut_launch_ms=3,
    gather_ms=0.02,
    gather_launch_ms=5,
    turn_ms=0.1,
    turn_launch_ms=7,
    last_cut_ms=0.03,
    last_cut_launch_ms=1,
    last_gather_ms=0.005,
    last_gather_launch_ms=2,
    last_turn_ms=0.2,
    last_turn_launch_ms=9,
    last_rates={(1, 8, 16, 64): 25.0},
    last_by_rows=True,
)


def test_rows_are_rounded_up_to_what_was_measured() -> None:
    assert PRICES.layer(9, 3, 16, 64) == PRICES.layer(9, 8, 16, 64) == pytest.approx(9 * 8 * 16 * 64 / 100)
    assert PRICES.layer(9, 9, 16, 64) == pytest.approx(9 * 32 * 16 * 64 / 200)


def test_channels_that_lie_last_have_prices_of_their_own() -> None:
    source = Source(held=64, part=32, runs=30)
    assert PRICES.where(False).cutting(source, 10)[0] == pytest.approx(5 + 0.02 * 960)
    assert PRICES.where(True).cutting(source, 10)[0] == pytest.approx(2 + 0.005 * 960)
    assert PRICES.where(True).gathered(4, 10, [64], 2) == pytest.approx(2 * (9 + 0.2 * 680))
    assert PRICES.where(True).gathering(64, 32, 10) == pytest.approx(2 + 0.005 * 960)
    assert PRICES.where(True).layer(1, 8, 16, 64) == pytest.approx(8 * 16 * 64 / 25)


def test_of_a_tensor_whose_channels_lie_last_only_what_is_cut_out_is_touched() -> None:
    at = replace(PRICES, last_gather_launch_ms=100)
    assert at.where(True).cutting(Source(held=64, part=32, runs=3), 10) == pytest.approx((3 * 1 + 0.03 * 320, True))


def test_more_rows_than_were_measured_take_several_turns() -> None:
    assert PRICES.layer(9, 70, 16, 64) == pytest.approx(2 * 9 * 32 * 16 * 64 / 200 + 9 * 8 * 16 * 64 / 100)


def test_rates_lie_between_those_of_their_neighbours() -> None:
    assert PRICES.layer(9, 32, 32, 64) == pytest.approx(9 * 32 * 32 * 64 / math.sqrt(200 * 400))


def test_beyond_the_ends_the_nearest_rate_holds() -> None:
    assert PRICES.layer(9, 32, 1000, 9999) == pytest.approx(9 * 32 * 1000 * 9999 / 400)


def test_a_kernel_costs_as_the_nearest_one_that_was_measured() -> None:
    assert PRICES.layer(49, 8, 16, 64) == pytest.approx(49 * 8 * 16 * 64 / 100)


def test_weights_are_fetched() -> None:
    dear = replace(PRICES, weight_ms=1)
    assert dear.layer(9, 8, 16, 64) == pytest.approx(PRICES.layer(9, 8, 16, 64) + 9 * 8 * 16)


def test_channels_are_cut_by_slices_or_gathered() -> None:
    """8 of 16 channels, 10 numbers each: 3 ms a slice or 5 ms for a gather, 0.01 or 0.02 ms a number."""
    cut = [PRICES.cutting(Source(16, 8, runs), 10) for runs in (1, 2, 3)]
    assert [ms for ms, _ in cut] == pytest.approx([3 + 2.4, 6 + 2.4, 5 + 4.8])
    assert [sliced for _, sliced in cut] == [True, True, False]


def test_tensors_are_read_whole_or_cut_or_joined() -> None:
    """8 of 16 channels of one tensor and all 16 of another, 10 numbers each."""
    sources = [Source(16, 8, 1), Source(16, 16, 1)]
    two = PRICES.layer(9, 8, 8, 64) + PRICES.layer(9, 8, 16, 64)
    apart = replace(PRICES, join_ms=1000).reading(9, 8, 64, sources, 10)
    assert (apart.joined, apart.cut) == (False, (True, False))
    assert apart.ms == pytest.approx(two + 2 + (0.01 * 240 + 3))
    whole = replace(PRICES, join_ms=1000, cut_launch_ms=1000, gather_launch_ms=1000).reading(9, 8, 64, sources, 10)
    assert (whole.joined, whole.cut) == (False, (False, False))
    assert whole.ms == pytest.approx(2 * PRICES.layer(9, 8, 16, 64) + 2)
    joined = PRICES.reading(9, 8, 64, [*sources, Source(16, 16, 1)], 10)
    assert (joined.joined, joined.cut) == (True, (True, False, False))
    assert joined.ms == pytest.approx(PRICES.layer(9, 8, 40, 64) + 2 + (0.01 * 240 + 3) + 0.001 * 400)


def test_what_is_joined_is_cut_where_that_spares_a_vector_in_all() -> None:
    """12 of 16 channels of two tensors: neither fits into fewer vectors by itself, both together do."""
    at = replace(PRICES, launch_ms=0, cut_launch_ms=0)
    reading = at.reading(9, 8, 64, [Source(16, 12, 1)] * 2, 1)
    assert (reading.joined, reading.cut) == (True, (True, True))
    assert reading.ms == pytest.approx(PRICES.layer(9, 8, 24, 64) + 2 * 0.01 * 28 + 0.001 * 24)


def test_channels_are_gathered_turn_by_turn() -> None:
    """Two tensors of 8 channels are joined; three times a channel is gathered for each of 4 rows, 10 numbers each."""
    joined = 1 + 0.001 * 160
    assert PRICES.gathered(4, 10, [8, 8], 3) == pytest.approx(joined + 3 * (7 + 0.1 * (160 + 40)))
    assert PRICES.gathered(4, 10, [8], 3) == pytest.approx(3 * (7 + 0.1 * (80 + 40)))
