"""Gates flipped so that kernels compute whole vectors: the one thing that changes what a network computes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gatedeploy.errors import InputError
from gatedeploy.gating.operators import SELECT, per_channel
from gatedeploy.program import Program
from gatedeploy.shapes import shapes_of

BARELY = 1e-6
"""The logit of a gate that stood at 0, flipped."""


@dataclass(frozen=True)
class Rounded:
    """A gate some of whose choices were flipped.

    Args:
        gate: the name of its logits among the weights.
        before: how many channels it left to the task.
        after: how many it leaves to it now.
        flipped: how many of its choices changed.
        choices: how many it has.
    """

    gate: str
    before: int
    after: int
    flipped: int
    choices: int


def rounded_gates(program: Program, multiple: int) -> tuple[Program, tuple[Rounded, ...]]:
    """The network with the least sure gates flipped, those of the smallest |α|, so that counts are whole multiples.

    At every gate the number of specific channels becomes a multiple of `multiple`, none, or all; of the two nearest,
    the one that takes fewer flips. The result computes something else than `program`: measure how good it is.

    Args:
        program: a gated network.
        multiple: how many channels the vectors of the target have, such as 8 or 16.

    Raises:
        InputError: `multiple` is no whole number of at least 2.
    """
    if not isinstance(multiple, int) or multiple < 2:
        raise InputError(f"gates are rounded to a whole number of channels of at least 2, such as 8; got {multiple!r}")
    shapes = shapes_of(program)
    weights = dict(program.weights)
    rounded: dict[str, Rounded] = {}
    for node in program.graph.nodes:
        if node.target is not SELECT or node.args[2].op != "get_attr":
            continue
        gate, group, channels = str(node.args[2].target), node.args[3], shapes[node][node.args[4]]
        if gate in rounded:
            continue
        logits = program.weights[gate]
        flips = _flips(logits, per_channel(torch.arange(len(logits)), group, channels).bincount(), multiple)
        if not flips:
            continue
        weights[gate] = _flipped(logits, flips)
        counts = [int(per_channel(each > 0, group, channels).sum()) for each in (logits, weights[gate])]
        rounded[gate] = Rounded(gate, counts[0], counts[1], len(flips), len(logits))
    return replace(program, weights=weights), tuple(rounded.values())


def _flips(logits: Tensor, sizes: Tensor, multiple: int) -> list[int]:
    """Which choices to flip; `sizes`: (choices,) channels that follow each."""
    chosen = logits > 0
    count, channels = int(sizes[chosen].sum()), int(sizes.sum())
    if len(logits) == 1 or count % multiple == 0 or count == channels:
        return []
    by_doubt = logits.abs().argsort(stable=True).tolist()
    ways = []
    for chosen_now, step in ((True, -1), (False, 1)):
        flips, left = [], count
        for choice in (choice for choice in by_doubt if bool(chosen[choice]) == chosen_now):
            flips.append(choice)
            left += step * int(sizes[choice])
            if left % multiple == 0 or left == channels:
                break
        ways.append(flips)
    return min(ways, key=lambda flips: (len(flips), float(logits[flips].abs().sum())))


def _flipped(logits: Tensor, flips: list[int]) -> Tensor:
    made = logits.clone()
    made[flips] = torch.where(logits[flips] == 0, torch.full_like(logits[flips], BARELY), -logits[flips])
    return made
