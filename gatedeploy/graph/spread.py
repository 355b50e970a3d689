"""Channels that a reshape laid along several dimensions: the q, k and v of attention, its heads, shuffled groups.

(batch, tokens, 3 · heads · depth) seen as (batch, tokens, 3, heads, depth) has channels along three dimensions. As long
as such a tensor is only permuted, cut and reshaped back, nothing is computed: its channels are identities in another
order, and the tensors that hold them need not be touched. When something else reads it, each entry of the first of
these dimensions becomes one channel: a head, with its depth inside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from gatedeploy.graph.channels import ChannelGraph, Count, Ids, Value
from gatedeploy.shapes import depends_on_batch

aten = torch.ops.aten


@dataclass(frozen=True, eq=False)
class Spread:
    """A view of a tensor whose channels lie along several dimensions.

    Args:
        grid: the identities; one dimension for each of the view's that carry channels, in the order in which a reshape
            of the source gives them.
        source: what it is a view of; its `ids` are all that the reshape was given, whatever was cut away since.
        dims: for each dimension of the view, the source's dimension that it is, or `source.ndim` + that of the grid.
        name: of the reshape, for people.
    """

    grid: Ids
    source: Value
    dims: tuple[int, ...]
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The view's shape."""
        ndim = self.source.ndim
        return tuple(self.source.shape[dim] if dim < ndim else self.grid.shape[dim - ndim] for dim in self.dims)

    @property
    def ndim(self) -> int:
        """The view's dimensions."""
        return len(self.dims)

    @property
    def axis(self) -> int:
        """The source's dimension that carries channels."""
        assert self.source.axis is not None
        return self.source.axis

    def grid_dim(self, dim: int) -> int | None:
        """Which dimension of the grid the view's `dim` is, if any."""
        found = self.dims[dim] - self.source.ndim
        return found if found >= 0 else None

    def permuted(self, order: Sequence[int]) -> Spread:
        """The view with its dimensions in another order."""
        return replace(self, dims=tuple(self.dims[dim % self.ndim] for dim in order))

    def cut(self, dim: int, start: int, stop: int, step: int = 1) -> Spread | None:
        """Some entries of a dimension; None where it carries no channels."""
        at = self.grid_dim(dim)
        return None if at is None else replace(self, grid=np.take(self.grid, range(start, stop, step), axis=at))

    def select(self, dim: int, index: int) -> Spread | None:
        """One entry of a dimension, which goes away; None where it carries no channels, or is the last that does."""
        at = self.grid_dim(dim)
        if at is None or self.grid.ndim == 1:
            return None
        gone = self.dims[dim]
        dims = tuple(other - (other > gone) for other in self.dims if other != gone)
        return replace(self, grid=np.take(self.grid, [index], axis=at).squeeze(at), dims=dims)

    def flat(self, graph: ChannelGraph) -> Value | None:
        """The view with the dimensions that carry channels made one; None unless they are neighbours."""
        places = [place for place in range(self.ndim) if self.grid_dim(place) is not None]
        if places != list(range(places[0], places[-1] + 1)):
            return None
        order = [self.dims[place] - self.source.ndim for place in places]
        value = replace(self.source, ids=self.grid.transpose(order).ravel())
        dims = [*self.dims[: places[0]], self.axis, *self.dims[places[-1] + 1 :]]
        return value if dims == sorted(dims) else _permuted(graph, value, dims, self.name)

    def settled(self, graph: ChannelGraph) -> Value:
        """The view as a value: each entry of its first dimension that carries channels is one, and holds the others."""
        if self.grid.ndim == 1 and (alone := self.flat(graph)) is not None:
            return alone
        ndim, axis = self.source.ndim, self.axis
        unit, *inside = [self.dims[place] - ndim for place in range(self.ndim) if self.grid_dim(place) is not None]
        order = [unit, *sorted(inside)]
        sizes = [self.grid.shape[dim] for dim in order]
        value = replace(self.source, ids=self.grid.transpose(order).ravel())
        united = graph.unite(value, math.prod(sizes[1:]), self.name, _with(self.source, math.prod(sizes)))
        # In memory the units come where the source's channels were, and what lies inside them right behind.
        laid = [*range(axis), *(ndim + dim for dim in order), *range(axis + 1, ndim)]
        shape = tuple(self.source.shape[dim] if dim < ndim else self.grid.shape[dim - ndim] for dim in laid)
        asked: list[Any] = [-1 if depends_on_batch(size) else size for size in shape]
        asked[axis] = Count()
        made = graph.by_channel(aten.reshape.default, united, asked, axis=axis, shape=shape, name=self.name)
        dims = [laid.index(dim) for dim in self.dims]
        return made if dims == sorted(dims) else _permuted(graph, made, dims, self.name)


def spread(value: Value, out: Sequence[int], name: str) -> Spread | None:
    """What a reshape of `value` to `out` makes where it lays the channels along several dimensions; else None.

    Legal when the dimensions before and behind the channels stay as they are, and at most one of them depends on the
    batch, so that a reshape can leave it open.
    """
    if value.axis is None or value.block != 1:
        return None
    if sum(depends_on_batch(size) for dim, size in enumerate(value.shape) if dim != value.axis) > 1:
        return None
    behind = value.ndim - value.axis - 1
    first, last = value.axis, len(out) - behind
    sizes = tuple(out[first:last])
    same = tuple(out[:first]) == value.shape[:first] and tuple(out[last:]) == value.shape[value.axis + 1 :]
    if len(sizes) < 2 or not same or math.prod(sizes) != len(value.ids):
        return None
    dims = [*range(first), *(value.ndim + dim for dim in range(len(sizes))), *range(value.axis + 1, value.ndim)]
    return Spread(value.ids.reshape(sizes), value, tuple(dims), name)


def _permuted(graph: ChannelGraph, value: Value, order: list[Any], name: str) -> Value:
    axis, shape = order.index(value.axis), tuple(value.shape[dim] for dim in order)
    return graph.by_channel(aten.permute.default, value, order, axis=axis, shape=shape, name=name)


def _with(value: Value, channels: int) -> tuple[int, ...]:
    return tuple(channels if dim == value.axis else size for dim, size in enumerate(value.shape))
