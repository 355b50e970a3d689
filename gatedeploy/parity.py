"""Do two networks compute the same?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from gatedeploy.errors import CheckError

FLOAT64 = 1e-9
"""Largest difference, relative to the output's scale, that float64 arithmetic in another order may make."""

FLOAT32 = 1e-4
"""The same for float32: some 1e-7 an operation, grown over the depth of a network."""


@dataclass(frozen=True)
class Parity:
    """How far one network's predictions are from another's.

    Args:
        error: per task, the largest absolute difference divided by the largest finite absolute value expected; what is
            infinite must be so in both, and what is undefined (NaN) equals nothing: the error is infinite then.
        tolerance: what was allowed.
    """

    error: dict[str, float]
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether every task is within the tolerance; a NaN is not."""
        return all(error <= self.tolerance for error in self.error.values())

    def check(self, what: str) -> None:
        """Raise `CheckError`, naming the worst task, unless parity holds."""
        if not self.holds:
            worst = max(self.error, key=lambda task: (self.error[task] != self.error[task], self.error[task]))
            raise CheckError(
                f"{what} differs in task {worst!r} by {self.error[worst]:.2e} of the output's scale; "
                f"at most {self.tolerance:.0e} is rounding"
            )


def compare(expected: Mapping[str, Any], got: Mapping[str, Any], tolerance: float) -> Parity:
    """Compare predictions task by task.

    Args:
        expected: predictions by task, tensors or structures of tensors.
        got: the same from the other network.
        tolerance: see `Parity`.

    Raises:
        CheckError: the two differ in tasks or shapes.
    """
    if list(expected) != list(got):
        raise CheckError(f"expected predictions for {', '.join(expected)}; got {', '.join(got)}")
    return Parity({task: _error(task, expected[task], got[task]) for task in expected}, tolerance)


def _error(task: str, expected: Any, got: Any) -> float:
    worst = 0.0
    ours, theirs = pytree.tree_leaves(expected), pytree.tree_leaves(got)
    if len(ours) != len(theirs):
        raise CheckError(f"task {task!r}: expected a prediction of {len(ours)} tensors, got {len(theirs)}")
    for one, other in zip(ours, theirs, strict=True):
        one, other = torch.as_tensor(one), torch.as_tensor(other)
        if one.shape != other.shape:
            raise CheckError(
                f"task {task!r}: expected a prediction of shape {tuple(one.shape)}, got {tuple(other.shape)}"
            )
        worst = max(worst, _relative_to_scale(one.double(), other.double()))
    return worst


def _relative_to_scale(expected: Tensor, got: Tensor) -> float:
    """0 where both are the same infinity, infinite where only one is or anything is NaN."""
    if expected.numel() == 0:
        return 0.0
    # Infinities of one sign differ by NaN, hence the mask; no NaN is equal to any, and Python's `max` would drop one.
    apart = (expected - got).abs().masked_fill(expected == got, 0)
    difference = float(apart.nan_to_num(nan=torch.inf, posinf=torch.inf).max())
    scale = float(expected.abs().nan_to_num(nan=0, posinf=0).max())
    return difference / scale if scale > 0 else difference
