"""Ask a network about any number of pictures where it takes only some numbers of them at once."""

from __future__ import annotations

import numpy as np

from gatedeploy.runners.base import Array, Runner

Batches = tuple[int, int, int] | None
"""The smallest, the usual and the largest batch size that a network takes; None: any."""

MOST_AT_ONCE = 1024
"""No more pictures than these are tried at once: a stranger may say that his engine takes any number."""


def in_pieces(runner: Runner, image: str, pictures: Array, smallest: int, largest: int) -> dict[str, Array]:
    """The answers to `pictures`, `largest` at a time; where fewer than `smallest` are left, the last one fills up."""
    found: list[dict[str, Array]] = []
    for start in range(0, len(pictures), largest):
        piece = pictures[start : start + largest]
        filled = np.concatenate([piece, np.repeat(piece[-1:], max(0, smallest - len(piece)), axis=0)])
        found.append({name: values[: len(piece)] for name, values in runner.infer({image: filled}).items()})
    return {name: np.concatenate([each[name] for each in found]) for name in found[0]}


def cycled(values: Array, count: int) -> Array:
    """`count` rows: all of them in turn, again and again."""
    return values[np.arange(count) % len(values)]


def batches_to_try(usual: int, batches: Batches) -> list[int]:
    """One picture, `usual` ones, and the fewest and the most that a network takes; of these, those that it takes."""
    if batches is None:
        return sorted({1, usual})
    smallest, _, largest = batches
    ends = {smallest, max(smallest, min(largest, MOST_AT_ONCE))}
    return sorted(ends | {size for size in (1, usual) if smallest <= size <= largest})
