"""Sets of channels as integers: bit n of one says whether channel n of an order is in the set."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from gatedeploy.graph.channels import Ids


def mask_of(places: Ids) -> int:
    """The set of the channels at these places."""
    if len(places) == 0:
        return 0
    taken = np.zeros(int(places.max()) + 1, dtype=np.uint8)
    taken[places] = 1
    return int.from_bytes(np.packbits(taken, bitorder="little").tobytes(), "little")


def places_in(mask: int) -> Ids:
    """The places of the channels in a set, from low to high."""
    taken = np.frombuffer(mask.to_bytes(-(-mask.bit_length() // 8), "little"), dtype=np.uint8)
    return np.flatnonzero(np.unpackbits(taken, bitorder="little"))


def lowest(mask: int, count: int) -> int:
    """The first `count` channels of a set."""
    return mask if count >= mask.bit_count() else mask & ((1 << int(places_in(mask)[count])) - 1)


def runs(part: int, whole: int) -> int:
    """In how many runs of neighbours the channels `part` lie among the channels `whole`."""
    others = ((1 << whole.bit_length()) - 1) ^ whole
    # The bit after each of `part` is carried on to the next that is in `whole`: the sum has those that come after one.
    return (part & ~((part << 1) + others)).bit_count()


def most_overlaps(masks: Iterable[int]) -> int:
    """In how many of these sets a channel is at most."""
    in_more_than: list[int] = []
    for mask in masks:
        for count, known in enumerate(in_more_than):
            in_more_than[count], mask = known | mask, known & mask
        if mask:
            in_more_than.append(mask)
    return len(in_more_than)
