"""Read a backbone as an fx graph, once in training mode and once in evaluation mode.

Both are needed: fx bakes `self.training` into functional calls, so a graph traced in training mode would drop
out for ever, and one traced in evaluation mode never.
"""

from __future__ import annotations

import copy
import inspect
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from gatedeploy.errors import InputError, closest, first_line
from gatedeploy.gating.functional import make_functional


@dataclass(frozen=True)
class Template:
    """One backbone, traced: the modules and the two graphs that call them.

    Every node of `evaluation` carries the shape of its value in `meta["shape"]`, None where it is no tensor.
    """

    root: nn.Module
    training: fx.Graph
    evaluation: fx.Graph


def trace(backbone: nn.Module, example_input: Tensor, leaves: Sequence[str | type[nn.Module]] = ()) -> Template:
    """Trace a deep copy of `backbone`, make it functional, and note every value's shape.

    Args:
        backbone: the network.
        example_input: (batch, channels, height, width), used for shapes only.
        leaves: modules that are not looked into, by name or class.

    Raises:
        InputError: fx cannot trace the backbone, it writes in place into a view, the example does not fit it, or a leaf
            does not exist.
    """
    root = copy.deepcopy(backbone)
    _check_leaves(root, leaves)
    graphs = []
    for mode in (True, False):
        root.train(mode)
        graphs.append(_trace_once(root, leaves))
    make_functional(graphs, root)
    _note_shapes(graphs[1], root, example_input)
    return Template(root, *graphs)


class _Tracer(fx.Tracer):
    """Remembers in which module it is, and does not look into some."""

    def __init__(self, leaves: Sequence[str | type[nn.Module]]) -> None:
        super().__init__()
        self.leaves = leaves
        self.inside: list[str] = []

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        for leaf in self.leaves:
            if leaf == module_qualified_name or (isinstance(leaf, type) and isinstance(m, leaf)):
                return True
        return super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        self.inside.append(self.path_of_module(m))
        result = super().call_module(m, forward, args, kwargs)
        self.inside.pop()  # not reached after an error: what is left tells where it was
        return result


def _check_leaves(root: nn.Module, leaves: Sequence[str | type[nn.Module]]) -> None:
    names = [name for name, _ in root.named_modules() if name]
    for leaf in leaves:
        if isinstance(leaf, str) and leaf not in names:
            raise InputError(f"leaf_modules: the backbone has no module {leaf!r}{closest(leaf, names)}")
        if isinstance(leaf, type) and not any(isinstance(module, leaf) for module in root.modules()):
            raise InputError(f"leaf_modules: the backbone has no module of class {leaf.__name__}")


def _trace_once(root: nn.Module, leaves: Sequence[str | type[nn.Module]]) -> fx.Graph:
    """One graph with one placeholder: further parameters of `forward` take their defaults."""
    parameters = list(inspect.signature(root.forward).parameters.values())
    defaults = {p.name: p.default for p in parameters[1:] if p.default is not inspect.Parameter.empty}
    tracer = _Tracer(leaves)
    try:
        graph = tracer.trace(root, concrete_args=defaults or None)
    except Exception as error:  # tracing runs the user's own code, which may raise anything
        module = f", in its module {tracer.inside[-1]}" if tracer.inside else ""
        leaf = f"leaf_modules=[{tracer.inside[-1]!r}]" if tracer.inside else "a module of its own and leaf_modules"
        raise InputError(
            f"torch.fx cannot trace the backbone {type(root).__name__}{module} ({_where(error)}): {error}. "
            f"Rewrite it without Python control flow that depends on values, or gate around it with {leaf}."
        ) from error
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target is torch._assert:
            graph.erase_node(node)
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    for node in reversed(placeholders[1:]):
        if node.users:
            raise InputError(f"the backbone {type(root).__name__} reads a second input {node.name!r}; one is supported")
        graph.erase_node(node)
    return graph


def _where(error: Exception) -> str:
    """File and line of the user's code that stopped the tracer."""
    library = torch.__path__[0]
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(library)]
    last = frames[-1]
    return f"{last.filename}:{last.lineno}, in {last.name}"


class _ShapeNotes(fx.Interpreter):
    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        n.meta["shape"] = tuple(result.shape) if isinstance(result, Tensor) else None
        return result


def _note_shapes(graph: fx.Graph, root: nn.Module, example_input: Tensor) -> None:
    root.eval()
    try:
        # Fake tensors have shapes and no data: a large backbone is not computed just to look at it.
        with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True) as mode:
            _ShapeNotes(root, graph=graph).run(mode.from_tensor(example_input))
    except Exception as error:  # the user's own network runs here
        raise InputError(
            f"the backbone does not take an input of shape {tuple(example_input.shape)}: {first_line(error)}"
        ) from error
