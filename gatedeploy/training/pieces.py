"""Which piece of which weight a weight of a pruned network is: read off a network whose weights are numbered."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gatedeploy.errors import GatedeployError
from gatedeploy.gating.operators import MIX, SELECT
from gatedeploy.program import Program

MARK = 1 << 46
"""Where the numbers of weights' entries begin. A sum of two lies above twice it; float64 tells all of them apart."""


class NotLiveError(GatedeployError):
    """Why a network cannot be trained in part."""


@dataclass(frozen=True)
class Piece:
    """A weight of the pruned network as a piece of one of the gated network's.

    Args:
        name: of the gated network's weight.
        along: by axis its entries, `(entries,)` int64; None where they are all, in their order.
    """

    name: str
    along: tuple[Tensor | None, ...]

    def of(self, weight: Tensor) -> Tensor:
        """The piece; gradients reach the weight."""
        for axis, entries in enumerate(self.along):
            if entries is not None:
                weight = weight.index_select(axis, entries)
        return weight

    def put_back(self, weight: Tensor, piece: Tensor) -> None:
        """Let `weight` have what `piece`, made by `of`, has become; of one axis, as the statistics of norms are."""
        (entries,) = self.along
        if entries is not None:
            weight.index_copy_(0, entries, piece)


class Numbered:
    """A program with the number of each entry in the place of its weights, but those of gates and mixes."""

    def __init__(self, program: Program) -> None:
        gates = [node for node in program.graph.nodes if node.target in (SELECT, MIX)]
        kept = {str(node.target) for gate in gates for node in gate.all_input_nodes if node.op == "get_attr"}
        self.names: list[str] = []
        self.starts: list[int] = []
        self.end = MARK
        weights = dict(program.weights)
        for name, weight in program.weights.items():
            if name not in kept and weight.is_floating_point():
                self.names.append(name)
                self.starts.append(self.end)
                self.end += weight.numel()
                weights[name] = torch.arange(self.starts[-1], self.end, dtype=torch.float64).view(weight.shape)
        self.program = replace(program, weights=weights)

    def piece(self, name: str, weight: Tensor) -> Piece | None:
        """Which piece this weight of the pruned network is; None of one in which there are no such numbers."""
        numbers = weight.numpy()
        if not weight.is_floating_point() or not (numbers >= MARK).any():
            return None
        if not ((numbers >= MARK) & (numbers < self.end) & (numbers % 1 == 0)).all():
            raise NotLiveError(f"{name} is computed from several numbers")
        source = int(np.searchsorted(self.starts, numbers.flat[0], side="right")) - 1
        along = _along(numbers.astype(np.int64) - self.starts[source], self.program.weights[self.names[source]].shape)
        if along is None:
            raise NotLiveError(f"{name} is no piece of one weight")
        return Piece(self.names[source], along)


def _along(entries: npt.NDArray[np.int64], shape: tuple[int, ...]) -> tuple[Tensor | None, ...] | None:
    """By axis, which entries of a tensor of `shape` have these flat numbers; None if they are no piece of it."""
    if entries.ndim != len(shape) or entries.min() < 0 or entries.max() >= np.prod(shape, dtype=np.int64):
        return None
    corner = [np.moveaxis(entries, axis, 0).reshape(size, -1)[:, 0] for axis, size in enumerate(entries.shape)]
    along = [np.unravel_index(flat, shape)[axis] for axis, flat in enumerate(corner)]
    if not np.array_equal(np.ravel_multi_index(np.ix_(*along), shape) if along else entries, entries):
        return None
    whole = [np.array_equal(found, np.arange(size)) for found, size in zip(along, shape, strict=True)]
    return tuple(None if all_ else torch.from_numpy(found) for all_, found in zip(whole, along, strict=True))
