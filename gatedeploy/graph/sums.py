"""Sums: what layers, additions and mixes have in common.

Output row r of a sum is Σ over its terms. A term of a layer adds a weighted sum of channels that it reads, by the row
of a weight; a term without a layer adds one channel, times a factor. What can be computed by matrices in so many ways
is written down here once, without saying how; the passes behind decide it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gatedeploy.graph.channels import Ids, Need, Operand, Operation, Value

Numbers = npt.NDArray[np.float64]
aten = torch.ops.aten
ROUNDING = 1e-13
"""A scale that was chosen so that a product with it is 1 misses it by a few units in the last place."""
SELECTIONS = {3: aten.conv1d.default, 4: aten.conv2d.default, 5: aten.conv3d.default}


@dataclass(frozen=True)
class Kind:
    """A layer without its weight, `target(x, weight, bias, *settings)`; layers of one kind can be one layer.

    Args:
        target: an ATen overload.
        settings: stride, padding and so on.
        rows: the dimension of its weight that makes channels.
        columns: the dimension of its weight that reads channels.
        kernel: the weight's other dimensions.
        block: how many neighbouring entries make one channel that it reads.
    """

    target: Any
    settings: tuple[Any, ...]
    rows: int
    columns: int
    kernel: tuple[int, ...]
    block: int = 1

    @property
    def taps(self) -> int:
        """How many weights a row has per channel that it reads."""
        return math.prod(self.kernel) * self.block

    def positions(self, made: int, read: int) -> int:
        """How often each weight is used, for channels of `made` and of `read` numbers."""
        transposed = self.columns == 0  # each number that is read meets the weight once, not each that is made
        return read if transposed else made


@dataclass(frozen=True, eq=False)
class Term:
    """What is added to some rows of a sum.

    Args:
        rows: (n,) positions in the sum's output.
        reads: the channels that it reads: of a layer in the order of the weight's columns, where one may come twice;
            else one per row.
        factor: (n,) what each row is multiplied by.
        kind: the layer's kind; None for channels that are added as they are.
        weight: the rows of the layer's weight.
    """

    rows: Ids
    reads: Value
    factor: Numbers
    kind: Kind | None = None
    weight: Operand | None = None

    def keep(self, positions: Ids, count: int) -> Term | None:
        """The term for these of the sum's `count` rows, in their order; None when it has nothing to do with them."""
        place = np.full(count, -1, dtype=np.int64)
        place[positions] = np.arange(len(positions))
        left = np.flatnonzero(place[self.rows] >= 0)
        if len(left) == 0:
            return None
        rows, factor = place[self.rows[left]], self.factor[left]
        if self.weight is None:
            return Term(rows, replace(self.reads, ids=self.reads.ids[left]), factor)
        value = replace(self.weight.value, ids=self.weight.value.ids[left])
        return replace(self, rows=rows, factor=factor, weight=replace(self.weight, value=value))


@dataclass(frozen=True, eq=False)
class Read:
    """One kernel of a sum: a layer over `value`, or the addition of `value`, row for row.

    Args:
        value: what it reads, in this order.
        kind: the layer's kind; None for an addition.
        terms: of a layer, the numbers of the terms that it serves, as far as they read channels of `value`.
        factor: of an addition, (rows,) what each row is multiplied by.
        ms: predicted, with what it takes to put `value` together.
    """

    value: Value
    kind: Kind | None = None
    terms: tuple[int, ...] = ()
    factor: Numbers | None = None
    ms: float = 0.0


@dataclass(eq=False)
class Sum(Operation):
    """Σ over `terms`, plus `offset`: (rows,) or None.

    `reads` says by which kernels it is computed, once that has been chosen.
    """

    terms: tuple[Term, ...] = ()
    offset: Numbers | None = None
    reads: tuple[Read, ...] = ()

    @staticmethod
    def of(name: str, output: Value, terms: Iterator[Term] | list[Term], offset: Numbers | None) -> Sum:
        """A sum that has not been told how to be computed."""
        made = Sum("sum", (), {}, (), output, name, terms=tuple(terms), offset=offset)
        made.tell_operands()
        return made

    def tell_operands(self) -> None:
        """Let the operands be what the terms read."""
        self.operands = tuple(
            Operand(term.reads, Need.ALIGNED if term.kind is None else Need.ANY_ORDER) for term in self.terms
        )

    @property
    def divisible(self) -> bool:
        """Each row can be computed without the others."""
        return True

    def keep(self, positions: Ids) -> None:
        """Compute only these rows, in this order."""
        count = len(self.output.ids)
        kept = (term.keep(positions, count) for term in self.terms)
        self.terms = tuple(term for term in kept if term is not None)
        self.output = replace(self.output, ids=self.output.ids[positions])
        self.offset = None if self.offset is None else self.offset[positions]
        self.tell_operands()


def factors(scales: Numbers | None, made: Sum, term: Term) -> Numbers:
    """(rows of the term,) what each channel that is added is multiplied by, scales included; 1 within rounding is 1."""
    if scales is None:
        return term.factor
    found: Numbers = term.factor * scales[made.output.ids[term.rows]] / scales[term.reads.ids]
    return np.where(np.abs(found - 1) < ROUNDING, 1.0, found)


def selection(output: Value) -> Kind | None:
    """The kind of layer that puts together rows like `output` from channels of the same shape, or None.

    A 1×1 convolution, or a linear layer where channels lie along the last axis.
    """
    if output.block != 1 or output.axis is None:
        return None
    if output.axis == 1 and output.ndim in SELECTIONS:
        spatial = output.ndim - 2
        ones, zeros = (1,) * spatial, (0,) * spatial
        return Kind(SELECTIONS[output.ndim], (ones, zeros, ones, 1), 0, 1, ones)
    if output.axis == output.ndim - 1:
        return Kind(aten.linear.default, (), 0, 1, ())
    return None
