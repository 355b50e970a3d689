"""Choices of gates that are set to others than training left: what changes what a network computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gatedeploy.gating.operators import SELECT, per_channel
from gatedeploy.program import Program
from gatedeploy.shapes import shapes_of

BARELY = 1e-6
"""The logit of a gate that stood at 0, flipped."""


@dataclass(frozen=True)
class Gate:
    """A gate of a program.

    Args:
        name: of its logits among the weights.
        group: how many neighbouring channels follow one choice.
        channels: how many it gates.
    """

    name: str
    group: int
    channels: int

    def per_channel(self, values: Tensor) -> Tensor:
        """(channels,) of one value per choice."""
        return per_channel(values, self.group, self.channels)


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


def gates_of(program: Program) -> list[Gate]:
    """The gates whose logits are weights, each once, in the order in which the network reaches them."""
    shapes = shapes_of(program)
    found: dict[str, Gate] = {}
    for node in program.graph.nodes:
        if node.target is SELECT and node.args[2].op == "get_attr":
            name = str(node.args[2].target)
            found.setdefault(name, Gate(name, node.args[3], shapes[node][node.args[4]]))
    return list(found.values())


def with_choices(program: Program, chosen: Mapping[str, Tensor]) -> tuple[Program, tuple[Rounded, ...]]:
    """The network with these choices, and which gates had others.

    Args:
        program: a gated network.
        chosen: by the name of a gate's logits `(choices,)` bool; gates that are not named stay.
    """
    weights, rounded = dict(program.weights), []
    for gate in gates_of(program):
        logits = program.weights[gate.name]
        wanted = chosen.get(gate.name, logits > 0)
        flipped = int((wanted != (logits > 0)).sum())
        if flipped:
            weights[gate.name] = with_signs(logits, wanted)
            before, after = (int(gate.per_channel(each).sum()) for each in (logits > 0, wanted))
            rounded.append(Rounded(gate.name, before, after, flipped, len(logits)))
    return replace(program, weights=weights), tuple(rounded)


def with_signs(logits: Tensor, chosen: Tensor) -> Tensor:
    """The logits, those whose choice is another negated."""
    chosen = chosen.to(logits.device)
    negated = torch.where(logits == 0, torch.full_like(logits, BARELY), -logits)
    return torch.where(chosen == (logits > 0), logits, negated)
