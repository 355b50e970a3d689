"""What a pass is."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from gatedeploy.graph.channels import ChannelGraph, Ids, Operation, Value, map_leaves


class Pass(abc.ABC):
    """One step of a collapse; its docstring says when it may do what it does, case by case.

    `requires` names the passes that must have run before; `ensures` checks what this one promises.
    """

    requires: ClassVar[tuple[type[Pass], ...]] = ()

    @abc.abstractmethod
    def run(self, graph: ChannelGraph) -> None:
        """Change `graph` in place; what its outputs compute stays the same."""

    @abc.abstractmethod
    def ensures(self, graph: ChannelGraph) -> bool:
        """Whether `graph` is as this pass leaves it."""


def run_passes(graph: ChannelGraph, passes: Sequence[Pass]) -> None:
    """Run `passes` in order, checking what each requires and ensures; `graph` may have been through others before."""
    for step in passes:
        for needed in step.requires:
            if needed.__name__ not in graph.passed:
                raise RuntimeError(f"{type(step).__name__} must run after {needed.__name__}")
        step.run(graph)
        if not step.ensures(graph):
            raise RuntimeError(f"{type(step).__name__} did not leave the graph as it promises")
        graph.passed.append(type(step).__name__)


def made_once(graph: ChannelGraph) -> bool:
    """Whether every identity is made by one operation, once."""
    made = np.concatenate([np.zeros(0, np.int64), *(operation.output.ids for operation in graph.operations)])
    return len(made) == len(np.unique(made))


class Renaming:
    """Identities that turned out to be others; operations are visited in order, so one look-up is enough."""

    def __init__(self, graph: ChannelGraph) -> None:
        self.graph = graph
        self.now: Ids = np.arange(graph.created, dtype=np.int64)

    def rename(self, old: Ids, new: Ids) -> None:
        """From here on, read `old` as `new`."""
        self.now[old] = self.now[new]

    def read_by(self, operation: Operation) -> None:
        """Let `operation` read by the new names."""
        operation.operands = tuple(
            replace(operand, value=self._renamed(operand.value)) for operand in operation.operands
        )

    def finish(self) -> None:
        """Let the network's outputs read by the new names."""
        self.graph.outputs = map_leaves(self.graph.outputs, self._renamed)

    def _renamed(self, value: Value) -> Value:
        return replace(value, ids=self.now[value.ids])
