"""Rules of what moves channels that lie along several dimensions (`spread.py`), and computes nothing."""

from __future__ import annotations

from typing import Any

import torch

from gatedeploy.graph.operators_shape import swapped
from gatedeploy.graph.rules import Call, spread_rule
from gatedeploy.graph.spread import Spread

aten = torch.ops.aten


@spread_rule(aten.clone, aten.contiguous, aten.alias, aten.detach, aten.lift_fresh_copy)
def same(call: Call) -> Any:
    """The view as it is."""
    return call["self"]


@spread_rule(aten.permute)
def permute(call: Call) -> Any:
    """Dimensions in another order."""
    return call["self"].permuted(call["dims"])


@spread_rule(aten.transpose, aten.swapaxes, aten.swapdims, aten.mT)
def transpose(call: Call) -> Any:
    """Two dimensions change places."""
    view: Spread = call["self"]
    first, second = swapped(call, view.ndim)
    order = list(range(view.ndim))
    order[first], order[second] = second, first
    return view.permuted(order)


@spread_rule(aten.select)
def select(call: Call) -> Any:
    """One entry of a dimension."""
    view: Spread = call["self"]
    return view.select(call["dim"] % view.ndim, call["index"])


@spread_rule(aten.unbind)
def unbind(call: Call) -> Any:
    """Every entry of a dimension."""
    view: Spread = call["self"]
    dim = call["dim"] % view.ndim
    parts = [view.select(dim, index) for index in range(view.shape[dim])]
    return None if None in parts else tuple(parts)


@spread_rule(aten.slice, aten.narrow)
def cut(call: Call) -> Any:
    """Some entries of a dimension."""
    view: Spread = call["self"]
    dim = call["dim"] % view.ndim
    start, step = call["start"] or 0, call.arguments.get("step", 1)
    if (start, step, call.shape[dim]) == (0, 1, view.shape[dim]):
        return view
    if not isinstance(start, int) or 0 in call.shape:  # it depends on the batch, or has no channels to follow
        return None
    first = start + view.shape[dim] if start < 0 else start
    return view.cut(dim, first, first + step * call.shape[dim], step)


@spread_rule(aten.split, aten.split_with_sizes, aten.chunk)
def split(call: Call) -> Any:
    """A dimension in parts."""
    view: Spread = call["self"]
    empty = any(0 in shape for shape in call.shape)  # it has no channels to follow
    if empty or view.grid_dim(dim := call["dim"] % view.ndim) is None:
        return None
    parts, start = [], 0
    for shape in call.shape:
        parts.append(view.cut(dim, start, start + shape[dim]))
        start += shape[dim]
    return tuple(parts)


@spread_rule(
    *(aten.view, aten.reshape, aten.flatten, aten._unsafe_view, aten.unflatten),
    *(aten.squeeze, aten.unsqueeze),
)
def reshape(call: Call) -> Any:
    """Dimensions become one, or several."""
    return call["self"].reshaped(call.graph, call.shape)
