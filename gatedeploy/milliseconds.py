"""Gates flipped so that a budget in milliseconds is met, as prices of kernels predict them.

Milliseconds depend on the layout that is chosen for a network as a whole, and so cannot be differentiated gate by gate
as multiply-adds can (`graph/budget.py`): the network is laid out anew for each number of choices that is tried.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from gatedeploy.errors import InputError
from gatedeploy.graph.budget import SLACK
from gatedeploy.graph.flips import Rounded, gates_of, with_choices
from gatedeploy.graph.prices import Prices
from gatedeploy.lowering import lower
from gatedeploy.program import Program


@dataclass(frozen=True)
class Milliseconds:
    """What a collapsed network may take for one picture, by the prices of its target.

    Predicted are layers, additions and mixes; activations, pooling and what is kept whole come on top.
    """

    most: float


def predicted_ms(program: Program, prices: Prices) -> float:
    """What the collapse of a gated network is predicted to take for one picture, laid out by `prices`."""
    return sum(site.ms for site in lower(program, prices).layout)


def within_milliseconds(program: Program, budget: Milliseconds, prices: Prices) -> tuple[Program, tuple[Rounded, ...]]:
    """The network with the least sure gates flipped, so that what it collapses to is predicted to meet the budget.

    The choices with the largest α are open, as many as the budget allows, or some hundredths fewer. The result computes
    something else than `program`: measure how good it is.

    Raises:
        InputError: the budget cannot be met.
    """
    surest = _Surest(program)

    def ms(count: int) -> float:
        return predicted_ms(surest.open(count)[0], prices)

    least = _least(surest, budget, prices)
    return surest.open(_most_open(ms, least, surest.count, budget.most))


def closed_and_open_ms(program: Program, budget: Milliseconds, prices: Prices) -> tuple[float, float]:
    """What is predicted with all gates closed, and with all open.

    Raises:
        InputError: the budget cannot be met.
    """
    surest = _Surest(program)
    return _least(surest, budget, prices), predicted_ms(surest.open(surest.count)[0], prices)


class _Surest:
    """A network whose choices with the largest α are open, and no others."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._names = [gate.name for gate in gates_of(program)]
        self._sizes = [len(program.weights[name]) for name in self._names]
        self.count = sum(self._sizes)
        logits = torch.cat([program.weights[name].detach().double().cpu() for name in self._names])
        self._order = logits.argsort(descending=True, stable=True)

    def open(self, count: int) -> tuple[Program, tuple[Rounded, ...]]:
        """With so many open choices; and which gates had others."""
        chosen = torch.zeros(self.count, dtype=torch.bool)
        chosen[self._order[:count]] = True
        return with_choices(self._program, dict(zip(self._names, torch.split(chosen, self._sizes), strict=True)))


def _least(surest: _Surest, budget: Milliseconds, prices: Prices) -> float:
    """What is predicted with every gate closed; `InputError` where the budget is less."""
    least = predicted_ms(surest.open(0)[0], prices)
    if least > budget.most:
        raise InputError(
            f"{budget.most:g} ms cannot be reached on {prices.target}: with every gate closed, so that all is shared, "
            f"{least:.3g} ms are predicted; ask for at least that"
        )
    return least


def _most_open(ms: Callable[[int], float], least: float, count: int, most: float) -> int:
    """How many choices may be open, so that `ms` is at most `most` and little below it.

    Milliseconds grow about evenly with open choices, so the next number to try lies on a straight line between the
    largest that is known to fit and the smallest that does not; if that hardly moves, in their middle.
    """
    highest = ms(count)
    if highest <= most:
        return count
    fits, fitting, too_many, above = 0, least, count, highest
    halve = False
    while too_many - fits > 1 and fitting < (1 - SLACK) * most:
        share = 0.5 if halve else (most - fitting) / (above - fitting)
        tried = min(max(fits + round(share * (too_many - fits)), fits + 1), too_many - 1)
        halve = not halve
        found = ms(tried)
        if found <= most:
            fits, fitting = tried, found
        else:
            too_many, above = tried, found
    return fits
