"""A network as data: a graph of ATen calls over named weights.

This is the form in which networks are captured, compiled, saved and verified; it needs none of the source code that
defined them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from gatedeploy.specs import InputSpec


@dataclass(frozen=True, eq=False)
class Program:
    """One network: `graph` calls functions on the input, on weights and on each other's results.

    Args:
        graph: an fx graph of one placeholder (the picture), `get_attr` nodes (weights, by name), `call_function` nodes
            (ATen overloads, gatedeploy's two operators, arithmetic on sizes) and an output that is a
            `dict[str, …]` of predictions.
        weights: parameters and buffers by name.
        trainable: the names of those that are parameters.
        input: the picture; its batch size is free.
    """

    graph: fx.Graph
    weights: dict[str, Tensor]
    trainable: frozenset[str]
    input: InputSpec

    @property
    def outputs(self) -> dict[str, Any]:
        """The output structure: predictions by task, graph nodes as leaves."""
        structure: dict[str, Any] = self.graph.output_node().args[0]  # type: ignore[assignment]
        return structure

    def example(self, batch: int = 2) -> Tensor:
        """A picture of zeros of the right shape, for tools that only look at shapes."""
        return torch.zeros(batch, *self.input.shape)


class _Evaluation(fx.Interpreter):
    """Runs a program node by node, converting each weight only while it is needed."""

    def __init__(self, program: Program, dtype: torch.dtype) -> None:
        super().__init__(torch.nn.Module(), graph=program.graph)
        self.weights = program.weights
        self.dtype = dtype

    def _convert(self, value: Any) -> Any:
        if isinstance(value, torch.dtype) and value.is_floating_point:
            return self.dtype  # a cast that the network writes down must not cost the precision asked for
        return value

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Tensor:
        weight = self.weights[target].detach()
        return weight.to(self.dtype) if weight.is_floating_point() else weight

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        args, kwargs = fx.node.map_aggregate((args, kwargs), self._convert)
        return super().call_function(target, args, kwargs)


@torch.no_grad()
def evaluate(program: Program, image: Tensor, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    """Run `program` on `image` (batch, channels, height, width) in `dtype`, whatever its weights are stored in.

    Only one weight at a time is held in `dtype`, so that verifying a network in float64 does not triple its memory.
    """
    result: dict[str, Any] = _Evaluation(program, dtype).run(image.to(dtype))
    return result
