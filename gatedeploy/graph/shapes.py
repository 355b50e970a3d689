"""Shapes of every value of a program, without computing any."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree

from gatedeploy.program import Program

BATCH = 1009
"""The batch size that stands for "any" while shapes are worked out: a prime that no other dimension is made of, so
that a size which depends on the batch can be told by looking at it."""


class _Shapes(fx.Interpreter):
    """Runs a program on fake tensors, which have shapes and no data, and notes each node's in `meta["shape"]`."""

    def __init__(self, program: Program, mode: FakeTensorMode) -> None:
        super().__init__(torch.nn.Module(), graph=program.graph)
        self.weights = program.weights
        self.mode = mode

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Tensor:
        weight = self.weights[target]
        return torch.empty(weight.shape, dtype=weight.dtype)

    def run_node(self, n: fx.Node) -> Any:
        with self.mode:
            result = super().run_node(n)
        n.meta["shape"] = pytree.tree_map(lambda item: tuple(item.shape) if isinstance(item, Tensor) else item, result)
        return result


def shapes_of(program: Program) -> dict[Any, Any]:
    """The shape of each node's tensor, a structure of shapes where it has several, its value where it is a size.

    The batch size is `BATCH`. Weights keep their shapes, so what was found once stays in the nodes.
    """
    if "shape" not in program.graph.output_node().meta:
        mode = FakeTensorMode()
        floating = [weight.dtype for weight in program.weights.values() if weight.is_floating_point()]
        with mode:
            image = torch.empty(BATCH, *program.input.shape, dtype=floating[0] if floating else torch.float32)
        _Shapes(program, mode).run(image)
    return {node: node.meta["shape"] for node in program.graph.nodes}
