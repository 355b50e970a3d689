"""Make a traced graph free of in-place operators.

T+1 branches read one input and each other's features; an operator that writes in place would be run once per branch
and corrupt what the others read. So `x.add_(y)` becomes `x.add(y)`, and whoever read `x` after it reads the result.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from gatedeploy.errors import InputError

IN_PLACE_OPERATORS: dict[Callable[..., Any], Callable[..., Any]] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
    operator.ipow: operator.pow,
}

VIEWS = frozenset(
    "view reshape flatten transpose permute chunk split getitem squeeze unsqueeze expand narrow unbind select t "
    "swapaxes movedim view_as expand_as contiguous unflatten".split()
)
"""Names of operators whose result may share memory with their first argument."""


def with_entries(tensor: Tensor, index: Any, value: Any) -> Tensor:
    """What `tensor` is after `tensor[index] = value`."""
    written = tensor.clone()
    written[index] = value
    return written


def make_functional(graphs: Sequence[fx.Graph], root: nn.Module) -> None:
    """Rewrite `graphs` and the flags of `root`'s modules, and leave out what nothing reads.

    Raises:
        InputError: a view is written through.
    """
    in_place = {name for name, module in root.named_modules() if getattr(module, "inplace", False)}
    for graph in graphs:
        order = {node: position for position, node in enumerate(graph.nodes)}
        for node in list(graph.nodes):
            if not node.args or not isinstance(node.args[0], fx.Node):
                continue
            if _rewrite(node, in_place):
                _redirect_later_readers(node, node.args[0], order)
        drop_unread(graph)
        graph.lint()
    for name in in_place:
        root.get_submodule(name).inplace = False  # type: ignore[assignment]


def drop_unread(graph: fx.Graph) -> None:
    """Erase what nothing reads of a graph that does not write in place."""
    for node in reversed(list(graph.nodes)):
        if not node.users and node.op not in ("output", "placeholder"):
            graph.erase_node(node)


def _rewrite(node: fx.Node, in_place: set[str]) -> bool:
    """Whether `node` wrote into its first argument; it does not any more."""
    if node.op == "call_module":
        return str(node.target) in in_place
    if node.op == "call_method":
        return _method(node)
    return node.op == "call_function" and _function(node)


def _redirect_later_readers(node: fx.Node, written: fx.Node, order: dict[fx.Node, int]) -> None:
    _refuse_aliases(node, written, order)
    for user in list(written.users):
        if order[user] > order[node]:
            user.replace_input_with(written, node)


def _method(node: fx.Node) -> bool:
    name = str(node.target)
    plain = name.removesuffix("_")
    if plain == name or name.endswith("__") or not hasattr(Tensor, plain):
        return False
    node.target = plain
    return True


def _function(node: fx.Node) -> bool:
    function: Any = node.target
    if function is with_entries:
        return True
    if function in IN_PLACE_OPERATORS:
        node.target = IN_PLACE_OPERATORS[function]
        return True
    if node.kwargs.get("inplace"):
        node.kwargs = {key: value for key, value in node.kwargs.items() if key != "inplace"}
        return True
    name = getattr(function, "__name__", "")
    if name.endswith("_") and not name.startswith("_"):
        for home in (torch, torch.nn.functional):
            if hasattr(home, name) and hasattr(home, name[:-1]):
                node.target = getattr(home, name[:-1])
                return True
    return False


def _refuse_aliases(node: fx.Node, target: fx.Node, order: dict[fx.Node, int]) -> None:
    """Raise when another name of the memory that `node` wrote is read after it."""
    base = target
    while _is_view(base):
        base = base.args[0]  # type: ignore[assignment]
    family, queue = {base}, [base]
    while queue:
        member = queue.pop()
        for user in member.users:
            redirected = member is target and order[user] > order[node]  # it reads what was written
            if user not in family and _is_view(user) and not redirected:
                family.add(user)
                queue.append(user)
    for member in family - {target}:
        for user in member.users:
            if order[user] > order[node] and user is not node and user not in family:
                raise InputError(
                    f"the backbone writes in place into {target.name!r} (at {node.name!r}) while {user.name!r} later "
                    f"reads the same memory through {member.name!r}; replace the in-place operator by its plain form"
                )


def _is_view(node: fx.Node) -> bool:
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return node.op != "call_module" and name in VIEWS and bool(node.args) and isinstance(node.args[0], fx.Node)
