"""Channels that a reshape laid along several dimensions: the q, k and v of attention, its heads, shuffled groups.

(batch, tokens, 3 · heads · depth) seen as (batch, tokens, 3, heads, depth) has channels along three dimensions, and a
dimension may hold more than channels, as (batch · heads, tokens, depth). As long as such a tensor is only permuted, cut
and reshaped, nothing is computed: its channels are identities in another order, and the tensors that hold them need not
be touched. When something else reads it, each entry of the first of these dimensions becomes one channel: a head, with
its depth inside.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from gatedeploy.graph.channels import ChannelGraph, Count, Ids, Need, Operand, Operation, Slot, Value
from gatedeploy.shapes import depends_on_batch

aten = torch.ops.aten
_RESHAPE = aten.reshape.default


@dataclass(frozen=True, eq=False)
class Spread:
    """A view of a tensor whose channels lie along several dimensions.

    Args:
        grid: the identities; one dimension for each *part* of the view's dimensions that carries channels.
        source: what it is a view of; its `ids` are all that the reshape was given, whatever was cut away since.
        dims: for each dimension of the view, the parts that it is made of, outermost first: each is one of the source's
            dimensions, or `source.ndim` + one of the grid's.
        name: of the reshape, for people.
    """

    grid: Ids
    source: Value
    dims: tuple[tuple[int, ...], ...]
    name: str

    @property
    def ndim(self) -> int:
        """The view's dimensions."""
        return len(self.dims)

    @property
    def shape(self) -> tuple[int, ...]:
        """The view's shape."""
        return tuple(math.prod(map(self._size, parts)) for parts in self.dims)

    @property
    def axis(self) -> int:
        """The source's dimension that carries channels."""
        assert self.source.axis is not None
        return self.source.axis

    @property
    def parts(self) -> list[int]:
        """What all dimensions are made of."""
        return [part for parts in self.dims for part in parts]

    def grid_dim(self, dim: int) -> int | None:
        """Which dimension of the grid the view's `dim` is, if it is one."""
        parts = self.dims[dim]
        return parts[0] - self.source.ndim if len(parts) == 1 and parts[0] >= self.source.ndim else None

    def permuted(self, order: Sequence[int]) -> Spread:
        """The view with its dimensions in another order."""
        return replace(self, dims=tuple(self.dims[dim % self.ndim] for dim in order))

    def cut(self, dim: int, start: int, stop: int, step: int = 1) -> Spread | None:
        """Some entries of a dimension; None where it does not carry channels alone."""
        at = self.grid_dim(dim)
        return None if at is None else replace(self, grid=np.take(self.grid, range(start, stop, step), axis=at))

    def select(self, dim: int, index: int) -> Spread | None:
        """One entry of a dimension, which goes away; None where it does not carry channels alone, or is the last."""
        at = self.grid_dim(dim)
        if at is None or self.grid.ndim == 1:
            return None
        (gone,) = self.dims[dim]
        dims = tuple(
            tuple(part - (part > gone) for part in parts) for other, parts in enumerate(self.dims) if other != dim
        )
        return replace(self, grid=np.take(self.grid, [index], axis=at).squeeze(at), dims=dims)

    def reshaped(self, graph: ChannelGraph, out: Sequence[int]) -> Spread | None:
        """The view's entries in another shape; None where that would tear something else than whole parts apart."""
        before, ndim, axis = self.parts, self.source.ndim, self.axis
        found = _common_parts([self._size(part) for part in before], out)
        if found is None or self.grid.size < 2:
            return None
        sizes, counts = dict(zip(before, found[0], strict=True)), found[1]
        of_source = [sizes.get(dim, (self.grid.size,)) for dim in range(ndim)]  # the channels' dimension is no part
        of_grid = [sizes[part] for part in range(ndim, ndim + self.grid.ndim)]
        source, grid = self.source, self.grid
        if any(of_source[dim] != (source.shape[dim],) for dim in range(ndim) if dim != axis):
            source, grid = self._divided(graph, of_source)
        number = itertools.count()
        pieces = [[next(number) for _ in part] for part in (*of_source, *of_grid)]
        after = iter([piece for part in before for piece in pieces[part]])
        dims = tuple(tuple(itertools.islice(after, count)) for count in counts)
        return Spread(grid.reshape(list(itertools.chain(*of_grid))), source, dims, self.name)

    def settled(self, graph: ChannelGraph) -> Value:
        """The view as a value: each entry of its first part that carries channels is one, and holds the others."""
        view = self._joined()
        return view._apart(graph) if all(len(parts) == 1 for parts in view.dims) else view._merged(graph)

    def _size(self, part: int) -> int:
        ndim = self.source.ndim
        return self.source.shape[part] if part < ndim else self.grid.shape[part - ndim]

    def _divided(self, graph: ChannelGraph, sizes: Sequence[Sequence[int]]) -> tuple[Value, Ids]:
        """The source with each dimension in pieces of these sizes, and the grid of its channels."""
        axis = sum(map(len, sizes[: self.axis]))
        shape = tuple(itertools.chain(*sizes))
        value = replace(self.source, ids=self.grid.ravel(), shape=_with(self.source, self.grid.size))
        made = graph.by_channel(_RESHAPE, value, _asked(shape, axis), axis=axis, shape=shape, name=self.name)
        return made, made.ids.reshape(self.grid.shape)

    def _joined(self) -> Spread:
        """The view with all channels along one part, where they make one dimension alone."""
        ndim = self.source.ndim
        for dim, parts in enumerate(self.dims):
            if len(parts) == self.grid.ndim and min(parts) >= ndim:
                grid = self.grid.transpose([part - ndim for part in parts]).ravel()
                return replace(self, grid=grid, dims=(*self.dims[:dim], (ndim,), *self.dims[dim + 1 :]))
        return self

    def _apart(self, graph: ChannelGraph) -> Value:
        """A value of one dimension for each part, in order."""
        ndim, axis = self.source.ndim, self.axis
        unit, *inside = [part - ndim for part in self.parts if part >= ndim]
        order = [unit, *sorted(inside)]
        sizes = [self.grid.shape[dim] for dim in order]
        shape = _with(self.source, math.prod(sizes))
        value = replace(self.source, ids=self.grid.transpose(order).ravel(), shape=shape)
        # In memory the units come where the source's channels were, and what lies inside them right behind.
        laid = [*range(axis), *(ndim + dim for dim in order), *range(axis + 1, ndim)]
        if inside:
            value = graph.unite(value, math.prod(sizes[1:]), self.name, shape)
            shape = tuple(map(self._size, laid))
            value = graph.by_channel(_RESHAPE, value, _asked(shape, axis), axis=axis, shape=shape, name=self.name)
        dims = [laid.index(part) for part in self.parts]
        if dims == sorted(dims):
            return value
        shape = tuple(value.shape[dim] for dim in dims)
        return graph.by_channel(aten.permute.default, value, dims, axis=dims.index(axis), shape=shape, name=self.name)

    def _merged(self, graph: ChannelGraph) -> Value:
        """The view as it is; where entries of other parts lie before its channels, each of these is a channel."""
        unit = next(part for part in self.parts if part >= self.source.ndim)
        home = next(dim for dim, parts in enumerate(self.dims) if unit in parts)
        order = sorted(self.dims[home], key=lambda part: part != unit)
        sizes = [self._size(part) for part in order]
        block, name = math.prod(sizes[1:]), self.name
        if depends_on_batch(block):
            return self._whole(graph)
        first = replace(self, dims=(*self.dims[:home], tuple(order), *self.dims[home + 1 :]))
        asked, shape = _asked(self.shape, home, block), self.shape
        value = graph.by_channel(_RESHAPE, first._apart(graph), asked, axis=home, block=block, shape=shape, name=name)
        if first.dims == self.dims:
            return value
        entries = graph.divide(value, name, shape)
        places = [order.index(part) for part in self.dims[home]]
        return replace(entries, ids=entries.ids.reshape(sizes).transpose(places).ravel())

    def _whole(self, graph: ChannelGraph) -> Value:
        read, made = Operand(self._apart(graph), Need.WHOLE), graph.opaque(self.shape)
        graph.operations.append(Operation(_RESHAPE, (Slot(0), _asked(self.shape)), {}, (read,), made, self.name))
        graph.count_barrier("aten.reshape")
        return made


def spread(graph: ChannelGraph, value: Value, out: Sequence[int], name: str) -> Spread | None:
    """`value` reshaped to `out`; None where that tears apart what belongs together.

    Legal when at most one of its dimensions depends on the batch, so that a reshape can leave it open.
    """
    if value.axis is None or value.block != 1:
        return None
    if sum(depends_on_batch(size) for dim, size in enumerate(value.shape) if dim != value.axis) > 1:
        return None
    dims = tuple((value.ndim if dim == value.axis else dim,) for dim in range(value.ndim))
    return Spread(value.ids, value, dims, name).reshaped(graph, out)


def _common_parts(sizes: Sequence[int], out: Sequence[int]) -> tuple[list[tuple[int, ...]], list[int]] | None:
    """Into which parts each of `sizes` falls, so that each of `out` is made of whole ones, and of how many."""
    if 0 in out:
        return None
    pieces: list[list[int]] = [[] for _ in sizes]
    counts, at, left = [], 0, sizes[0]
    for want in out:
        counts.append(0)
        while want > 1:
            while left == 1:
                at += 1
                left = sizes[at]
            step = min(want, left)
            if want % step or left % step:
                return None
            pieces[at].append(step)
            want, left = want // step, left // step
            counts[-1] += 1
    return [tuple(part) for part in pieces], counts


def _asked(shape: Sequence[int], axis: int | None = None, block: int = 1) -> list[Any]:
    """What a reshape to `shape` is asked for, with as many channels along `axis` as there will be."""
    sizes: list[Any] = [-1 if depends_on_batch(size) else size for size in shape]
    if axis is not None:
        sizes[axis] = Count(block)
    return sizes


def _with(value: Value, channels: int) -> tuple[int, ...]:
    return tuple(channels if dim == value.axis else size for dim, size in enumerate(value.shape))
