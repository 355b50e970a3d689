"""Read a network as a `Program`, through `torch.export`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import ExportGraphSignature, InputKind, OutputKind
from torch.utils import _pytree as pytree

from gatedeploy.artifact import info_of
from gatedeploy.errors import InputError, first_line, located
from gatedeploy.graph.writes import needs_rewriting, plain, refuse_lost_writes, writes
from gatedeploy.modes import evaluating
from gatedeploy.program import IMAGE, Program, weight_name
from gatedeploy.shapes import check_pictures, shapes_of
from gatedeploy.specs import InputSpec

aten = torch.ops.aten
CHECKS = (
    *(aten._assert_tensor_metadata.default, aten._assert_scalar.default, aten.sym_constrain_range_for_size.default),
    torch.sym_not,
)
"""What export inserts to guard its assumptions; a program states them in its input spec instead."""


def capture(module: nn.Module, example_input: Tensor, spec: InputSpec | None = None) -> Program:
    """The evaluation-mode program of `module`, with a free batch size.

    Args:
        module: takes one picture and returns a dict of predictions.
        example_input: (batch, channels, height, width); any batch size.
        spec: what the picture is; when None, what the network knows of it, of the example's size.

    Raises:
        InputError: the network cannot be exported, fixes its batch size, does not return a dict of tensors, or decides
            by what the picture shows what to compute.
    """
    if not isinstance(module, nn.Module):
        raise InputError(f"expected a network, a torch.nn.Module; got a {type(module).__name__}")
    name = type(module).__name__
    check_pictures("example input", example_input)
    if spec is not None and spec.shape != tuple(example_input.shape[1:]):
        raise InputError(f"the example is {tuple(example_input.shape)}, the description says {spec}")
    exported = _export(module, example_input, name)
    with located(name):
        program = _Writer(exported, spec or _spec(module, example_input)).program()
        shapes_of(program)
    return program


def _spec(module: nn.Module, example_input: Tensor) -> InputSpec:
    channels, height, width = example_input.shape[1:]
    known = info_of(module)
    if known is None or known.input.channels != channels:
        return InputSpec(channels, height, width)
    return replace(known.input, height=height, width=width)


def _export(module: nn.Module, example_input: Tensor, name: str) -> torch.export.ExportedProgram:
    # A batch of 1 would be taken for a constant.
    example = torch.cat([example_input, example_input]) if len(example_input) == 1 else example_input
    try:
        with evaluating(module):
            exported = torch.export.export(
                module, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},), strict=False
            )
        if needs_rewriting(exported.graph):
            refuse_lost_writes(exported.graph)
            exported = exported.run_decompositions({})
    except InputError:
        raise
    except Exception as error:  # the user's own code runs in here
        raise InputError(f"{name} cannot be exported with a free batch size: {first_line(error)}") from error
    return exported


class _Writer:
    """Writes an exported graph down as a program: weights by their names, one batch size, plain operators."""

    def __init__(self, exported: torch.export.ExportedProgram, spec: InputSpec) -> None:
        self.exported = exported
        self.signature: ExportGraphSignature = exported.graph_signature
        self.spec = spec
        self.graph = fx.Graph()
        self.values: dict[fx.Node, fx.Node] = {}
        self.source_of: dict[str, str] = {}
        self.batch: Any = None
        self.symbol: Any = None

    def program(self) -> Program:
        arguments = {item.arg.name: item for item in self.signature.input_specs}
        for node in self.exported.graph.nodes:
            if node.op == "placeholder":
                self._argument(node, arguments[node.name])
            elif node.op == "output":
                self.graph.output(self._predictions(node.args[0]))
            elif node.target not in CHECKS:
                self._value(node)
        _erase_unread(self.graph)
        self.graph.lint()
        read = {str(node.target) for node in self.graph.nodes if node.op == "get_attr"}
        sources = {name: source for name, source in self.source_of.items() if name in read}
        self._refuse_memory(sources.values())
        state = {**self.exported.state_dict, **self.exported.constants}
        # What is done with a program is done on the CPU, where this copies nothing.
        weights = {name: state[source].detach().cpu() for name, source in sources.items()}
        parameters = set(self.signature.parameters)
        trainable = frozenset(name for name, source in sources.items() if source in parameters)
        return Program(self.graph, weights, trainable, self.spec)

    def _argument(self, node: fx.Node, item: Any) -> None:
        if item.kind == InputKind.USER_INPUT:
            self.values[node] = self.graph.placeholder(IMAGE)
            self.batch = self.graph.call_function(aten.sym_size.int, (self.values[node], 0))
            self.symbol = node.meta["val"].shape[0].node.expr
        elif node.users:
            name = weight_name(item.target, self.source_of)
            self.source_of[name] = item.target
            self.values[node] = self.graph.get_attr(name)

    def _value(self, node: fx.Node) -> None:
        value = node.meta.get("val")
        if isinstance(value, torch.SymInt) and value.node.expr == self.symbol:
            self.values[node] = self.batch  # whatever tensor it was read from
            return
        if node.op != "call_function" or isinstance(node.target, torch._ops.HigherOrderOperator):
            kind = next(iter(node.users)).target if node.op == "get_attr" else node.target
            raise InputError(
                f"it has graphs within its graph ({kind}), such as branches that are chosen at run time; only networks "
                "that call the same operators for every picture can be captured"
            )
        target: Any = plain(node) if writes(node) else node.target
        args, kwargs = fx.map_arg((node.args, node.kwargs), self.values.__getitem__)
        # Where a tensor lies is for whoever runs the program to decide.
        kwargs = {key: value for key, value in kwargs.items() if key not in ("device", "pin_memory", "layout")}
        if target is aten.to.device:
            target, args = aten.to.dtype, (args[0], *args[2:])
        self.values[node] = self.graph.create_node("call_function", target, args, kwargs, name=node.name)

    def _predictions(self, results: Sequence[Any]) -> dict[str, Any]:
        specs = self.signature.output_specs
        leaves = [leaf for leaf, item in zip(results, specs, strict=True) if item.kind == OutputKind.USER_OUTPUT]
        structure = pytree.tree_unflatten(leaves, self.exported.call_spec.out_spec)
        if not isinstance(structure, dict):
            kind = "Tensor" if isinstance(structure, fx.Node) else type(structure).__name__
            raise InputError(f"it returns a {kind}; expected a dict of predictions by task")
        for name, prediction in structure.items():
            for leaf in pytree.tree_leaves(prediction):
                if not isinstance(leaf, fx.Node):
                    raise InputError(
                        f"its prediction {name!r} holds {leaf!r}; expected tensors, alone or in lists, tuples and "
                        "dicts: leave out what is none"
                    )
        return {name: self._plain(prediction) for name, prediction in structure.items()}

    def _plain(self, structure: Any) -> Any:
        """The structure in dicts, lists and tuples proper; what a file holds knows no others."""
        if isinstance(structure, dict):
            return {key: self._plain(part) for key, part in structure.items()}
        if isinstance(structure, (list, tuple)):
            parts = [self._plain(part) for part in structure]
            return parts if isinstance(structure, list) else tuple(parts)
        return self.values[structure]

    def _refuse_memory(self, sources: Iterable[str]) -> None:
        """A buffer that is written and read would make a picture's predictions depend on those before it."""
        written = {item.target for item in self.signature.output_specs if item.kind == OutputKind.BUFFER_MUTATION}
        for source in sources:
            if source in written:
                raise InputError(
                    f"it remembers: what it writes into {source!r} changes its next predictions; only networks that "
                    "treat every picture alike can be captured"
                )


def _erase_unread(graph: fx.Graph) -> None:
    for node in reversed(list(graph.nodes)):
        if not node.users and node.op in ("call_function", "get_attr"):
            graph.erase_node(node)
