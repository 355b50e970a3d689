"""Read a backbone as an fx graph, once in training mode and once in evaluation mode.

Both are needed: fx bakes `self.training` into functional calls, so a graph traced in training mode would drop
out for ever, and one traced in evaluation mode never.
"""

from __future__ import annotations

import copy
import inspect
import traceback
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from gatedeploy.errors import InputError, first_line
from gatedeploy.gating.functional import make_functional


@dataclass(frozen=True)
class Template:
    """One backbone, traced: the modules and the two graphs that call them.

    Every node of `evaluation` carries the shape of its value in `meta["shape"]`, None where it is no tensor.
    """

    root: nn.Module
    training: fx.Graph
    evaluation: fx.Graph


def trace(backbone: nn.Module, example_input: Tensor) -> Template:
    """Trace a deep copy of `backbone`, make it functional, and note every value's shape.

    Raises:
        InputError: fx cannot trace the backbone, it writes in place into a view, or the example does not fit it.
    """
    root = copy.deepcopy(backbone)
    graphs = []
    for mode in (True, False):
        root.train(mode)
        graphs.append(_trace_once(root))
    make_functional(graphs, root)
    _note_shapes(graphs[1], root, example_input)
    return Template(root, *graphs)


def _trace_once(root: nn.Module) -> fx.Graph:
    """One graph with one placeholder: further parameters of `forward` take their defaults."""
    parameters = list(inspect.signature(root.forward).parameters.values())
    defaults = {p.name: p.default for p in parameters[1:] if p.default is not inspect.Parameter.empty}
    try:
        graph = fx.Tracer().trace(root, concrete_args=defaults or None)
    except Exception as error:  # tracing runs the user's own code, which may raise anything
        raise InputError(
            f"torch.fx cannot trace the backbone {type(root).__name__} ({_where(error)}): {error}. "
            "Move what depends on values into a module of torch.nn, or rewrite it without Python control flow."
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
