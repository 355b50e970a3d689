"""Shapes of every value of a program, without computing any."""

from __future__ import annotations

import logging
import math
import operator
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils import _pytree as pytree

from gatedeploy.errors import InputError, first_line
from gatedeploy.program import Program

BATCH = 1_000_003
"""The batch size that stands for "any" while shapes are worked out: a prime, and larger than any other dimension, so
that a size which depends on the batch can be told by looking at it."""

LARGEST = 2**63 - 1
"""The largest size that PyTorch takes."""


class _Shapes(fx.Interpreter):
    """Runs a program on fake tensors, which have shapes and no data; notes each node's shape and dtype in `meta`."""

    def __init__(self, program: Program, mode: FakeTensorMode) -> None:
        super().__init__(torch.nn.Module(), graph=program.graph)
        self.extra_traceback = False
        self.weights = program.weights
        self.mode = mode

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Tensor:
        weight = self.weights[target]
        return torch.empty(weight.shape, dtype=weight.dtype)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        arithmetic = getattr(target, "__module__", "") == operator.add.__module__ and target is not operator.getitem
        if arithmetic and not all(isinstance(number, (int, float)) for number in args):
            raise TypeError("arithmetic on sizes takes numbers")  # of lists it would make endless ones
        result = super().call_function(target, args, kwargs)
        if isinstance(result, int) and abs(result) > LARGEST:
            raise OverflowError("a size of more than 64 bits")
        return result

    def run_node(self, n: fx.Node) -> Any:
        try:
            with self.mode:
                result = super().run_node(n)
        except Exception as error:  # whatever the operators say of arguments that do not fit
            raise InputError(f"{n.name} = {n.target}(…) cannot be computed: {_reason(error)}") from error
        n.meta["dtype"] = result.dtype if isinstance(result, Tensor) else None
        n.meta["shape"] = pytree.tree_map(lambda item: tuple(item.shape) if isinstance(item, Tensor) else item, result)
        return result


def check_pictures(what: str, pictures: object) -> None:
    """Raise `InputError` unless it is a tensor of four dimensions."""
    if not isinstance(pictures, Tensor) or pictures.ndim != 4:
        got = tuple(pictures.shape) if isinstance(pictures, Tensor) else f"a {type(pictures).__name__}"
        raise InputError(f"{what}: expected a tensor (batch, channels, height, width), got {got}")


def depends_on_batch(size: int) -> bool:
    """Whether a size is made of the batch size: a multiple of it, one more than it, or half of it."""
    return size >= BATCH // 2


def entries(shape: Iterable[int]) -> int:
    """How many numbers one picture's part of a tensor of this shape holds."""
    numbers = math.prod(shape)
    return numbers // BATCH if numbers % BATCH == 0 else numbers


def shapes_of(program: Program) -> dict[Any, Any]:
    """The shape of each node's tensor, a structure of shapes where it has several, its value where it is a size.

    The batch size is `BATCH`. Weights keep their shapes, so what was found once stays in the nodes.

    Raises:
        InputError: a call's arguments do not fit it or each other, or what it returns has no shape that one can know
            before the picture is seen.
    """
    if any("shape" not in node.meta for node in program.graph.nodes):
        mode = FakeTensorMode()
        try:
            with mode:
                image = torch.empty(BATCH, *program.input.shape, dtype=program.dtype)
        except (RuntimeError, TypeError) as error:  # a number that is too large
            raise InputError(f"no picture can be of shape {program.input.shape}: {_reason(error)}") from None
        with silent():
            _Shapes(program, mode).run(image)
    return {node: node.meta["shape"] for node in program.graph.nodes}


@contextmanager
def silent() -> Iterator[None]:
    """Keep PyTorch from printing tracebacks of what fake tensors do not fit, which is told in a sentence."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    before = log.disabled
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = before


def _reason(error: Exception) -> str:
    if isinstance(error, (DataDependentOutputException, DynamicOutputShapeException)):
        return "it reads a number or a size out of a tensor, which nobody knows before the network runs"
    return first_line(error)
