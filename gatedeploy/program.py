"""A network as data: a graph of ATen calls over named weights.

This is the form in which networks are captured, compiled, saved and verified; it needs none of the source code that
defined them.
"""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from gatedeploy.errors import InputError, closest
from gatedeploy.specs import InputSpec

IMAGE = "image"
"""What every program calls its picture; how others call it, `InputSpec.name`, is no name in generated code."""

MODULE_ATTRIBUTES = frozenset(dir(nn.Module()))
NETWORK_ATTRIBUTES = frozenset(dir(fx.GraphModule(nn.Module(), fx.Graph())))
"""What no weight and no module may be called, in a module and at the top of a network: there is such an attribute."""

MAX_DEPTH = 40
"""How many modules deep a weight may lie."""


@dataclass(frozen=True, eq=False)
class Program:
    """One network: `graph` calls functions on the input, on weights and on each other's results.

    Args:
        graph: an fx graph of one placeholder (the picture), `get_attr` nodes (weights, by name), `call_function` nodes
            (ATen overloads, gatedeploy's two operators, arithmetic on sizes), arguments by position where the schema
            allows it, and an output that is a `dict[str, …]` of predictions.
        weights: parameters and buffers by name; the names are such that `is_weight_name` holds.
        trainable: the names of those that are parameters.
        input: the picture; its batch size is free.
    """

    graph: fx.Graph
    weights: dict[str, Tensor]
    trainable: frozenset[str]
    input: InputSpec

    @property
    def outputs(self) -> dict[str, Any]:
        """The output structure: predictions by task, graph nodes as leaves."""
        structure: dict[str, Any] = self.graph.output_node().args[0]  # type: ignore[assignment]
        return structure

    @property
    def dtype(self) -> torch.dtype:
        """The precision in which it computes: that of its parameters, without any that of its buffers."""
        names = sorted(self.weights, key=lambda name: name not in self.trainable)
        kinds = (self.weights[name].dtype for name in names)
        return next((kind for kind in kinds if kind.is_floating_point), torch.float32)

    def example(self, batch: int = 2) -> Tensor:
        """A picture of zeros of the right shape, for tools that only look at shapes."""
        return torch.zeros(batch, *self.input.shape)


def arguments_of(node: fx.Node) -> dict[str, Any]:
    """The arguments of a call by its schema's names, defaults filled in; by position for functions without a schema."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {str(position): argument for position, argument in enumerate(node.args)}
    named = {argument.name: argument.default_value for argument in schema.arguments}
    return {**named, **dict(zip(named, node.args, strict=False)), **node.kwargs}


def is_weight_name(name: str) -> bool:
    """Whether a weight may have this name: its dotted parts become attributes that generated code reads.

    Of an identifier the code says `self.part`, and Python would read another spelling of the same letters; of any
    other part, such as `0` or `fc-1`, it says `getattr(self, "part")`.
    """
    parts = name.split(".")
    return len(parts) <= MAX_DEPTH and all(_is_free(part, top=place == 0) for place, part in enumerate(parts))


def weight_name(name: str, taken: Iterable[str] = ()) -> str:
    """The name nearest to `name` that a weight may have and that is not among `taken`."""
    parts = (
        part if _is_free(part, top=place == 0) else re.sub(r"\W", "_", unicodedata.normalize("NFKC", part)) + "_"
        for place, part in enumerate(name.split("."))
    )
    made = ".".join(parts)
    while made in taken:
        made += "_"
    return made


def _is_free(part: str, top: bool) -> bool:
    if part.isidentifier():
        taken = keyword.iskeyword(part) or part in (NETWORK_ATTRIBUTES if top else MODULE_ATTRIBUTES)
        return not taken and unicodedata.normalize("NFKC", part) == part
    return part != "" and part.isprintable() and not set(part) & set('"\\')


class Evaluation(fx.Interpreter):
    """Runs a program node by node in one precision, converting each weight only while it is needed."""

    def __init__(self, program: Program, dtype: torch.dtype) -> None:
        super().__init__(torch.nn.Module(), graph=program.graph)
        self.weights = program.weights
        self.dtype = dtype

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Tensor:
        """The weight."""
        return self._converted(self.weights[target].detach())

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """What the operator makes."""
        # A cast that the network writes down must not cost the precision asked for, nor numbers that it makes.
        args, kwargs = fx.node.map_aggregate((args, kwargs), self._asked_for)
        return pytree.tree_map_only(Tensor, self._converted, super().call_function(target, args, kwargs))

    def _asked_for(self, value: Any) -> Any:
        return self.dtype if isinstance(value, torch.dtype) and value.is_floating_point else value

    def _converted(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor


@torch.no_grad()
def evaluate(program: Program, image: Tensor, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    """Run `program` on `image` (batch, channels, height, width) in `dtype`, whatever its weights are stored in.

    Only one weight at a time is held in `dtype`, so that verifying a network in float64 does not triple its memory.
    """
    result: dict[str, Any] = Evaluation(program, dtype).run(image.to(dtype))
    return result


def flat_predictions(predictions: Any) -> dict[str, Any]:
    """Predictions by output name: a task's own name, or `task_0`, `task_1`, … where it predicts a structure of tensors.

    Raises:
        InputError: it is no dict, a task predicts nothing, or two outputs get one name.
    """
    if not isinstance(predictions, Mapping):
        raise InputError(f"the network returns a {type(predictions).__name__}; expected a dict of predictions by task")
    flat: dict[str, Any] = {}
    for task, prediction in predictions.items():
        leaves = pytree.tree_leaves(prediction)
        if not leaves:
            raise InputError(f"task {task!r} predicts nothing; expected a tensor, or tensors in a tuple or dict")
        alone = len(leaves) == 1 and leaves[0] is prediction
        for position, leaf in enumerate(leaves):
            name = str(task) if alone else f"{task}_{position}"
            if name in flat:
                raise InputError(f"two outputs would be called {name!r}; rename a task")
            flat[name] = leaf
    return flat


def with_tasks(program: Program, tasks: Sequence[str]) -> Program:
    """The program with these outputs alone; passes drop what only the others needed.

    Raises:
        InputError: a task does not exist, or none was asked for.
    """
    known = list(program.outputs)
    if isinstance(tasks, str):
        raise InputError(f"tasks: expected a list of names, got the text {tasks!r}")
    if not all(isinstance(task, str) for task in tasks):
        raise InputError(f"tasks: expected names, as `task.name` has them, got {tasks!r}")
    for task in tasks:
        if task not in known:
            raise InputError(f"no task {task!r} in this network; it has {', '.join(known)}{closest(task, known)}")
    if not tasks:
        raise InputError("no task was chosen; name at least one")
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    graph.graph_copy(program.graph, copied)
    graph.output(fx.map_arg({task: program.outputs[task] for task in tasks}, copied.__getitem__))
    return replace(program, graph=graph)
