"""Sets as integers, against the same computed channel by channel."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gatedeploy.passes.bits import lowest, mask_of, most_overlaps, places_in, runs

SETS = st.sets(st.integers(0, 40))


def as_mask(places: set[int]) -> int:
    return mask_of(np.array(sorted(places), dtype=np.int64))


@given(SETS)
def test_places_come_back_from_low_to_high(places: set[int]) -> None:
    assert as_mask(places) == sum(1 << place for place in places)
    assert places_in(as_mask(places)).tolist() == sorted(places)


@given(SETS, st.integers(0, 45))
def test_the_lowest(places: set[int], count: int) -> None:
    assert lowest(as_mask(places), count) == as_mask(set(sorted(places)[:count]))


def test_runs_by_hand() -> None:
    """Of the channels 0 2 3 5, those at 0 and 2 are neighbours, those at 0 and 3 are not."""
    assert runs(0b000101, 0b101101) == 1
    assert runs(0b001001, 0b101101) == 2
    assert runs(0, 0b101101) == 0


@given(SETS, SETS)
def test_runs(part: set[int], others: set[int]) -> None:
    whole = sorted(part | others)
    inside = [place in part for place in whole]
    expected = sum(now and not before for before, now in zip([False, *inside], inside, strict=False))
    assert runs(as_mask(part), as_mask(set(whole))) == expected


@given(st.lists(SETS, max_size=6))
def test_overlaps(sets: list[set[int]]) -> None:
    counts = [sum(place in each for each in sets) for place in range(41)]
    assert most_overlaps(map(as_mask, sets)) == max(counts)
