"""Gates flipped so that kernels compute whole vectors."""

from __future__ import annotations

import torch
from torch import Tensor

from gatedeploy.errors import InputError
from gatedeploy.graph.flips import Rounded, gates_of, with_choices
from gatedeploy.program import Program


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
    chosen = {}
    for gate in gates_of(program):
        logits = program.weights[gate.name]
        sizes = gate.per_channel(torch.arange(len(logits))).bincount()
        chosen[gate.name] = logits > 0
        chosen[gate.name][_flips(logits, sizes, multiple)] ^= True
    return with_choices(program, chosen)


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
