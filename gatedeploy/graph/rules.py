"""How operators treat channels: the table of rules and the words in which rules are written.

A rule takes a `Call` and says what the call's channels are: identities of its inputs passed on, or an operation that
makes new ones. An operator without a rule is a barrier: its inputs are rebuilt whole, in their original order, and
its output's channels are all needed together. So every network collapses correctly; rules only make it better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import fx

from gatedeploy.errors import InputError
from gatedeploy.graph.channels import VIEW, ChannelGraph, Need, Operand, Operation, Slot, Value
from gatedeploy.graph.shapes import BATCH

Shape = tuple[int, ...]
Rule = Callable[["Call"], Any]
RULES: dict[Any, Rule] = {}
"""The table: overload packets, e.g. `torch.ops.aten.relu`, to rules."""


def rule(*packets: Any) -> Callable[[Rule], Rule]:
    """Enter a function into the table for these overload packets."""

    def enter(function: Rule) -> Rule:
        for packet in packets:
            RULES[packet] = function
        return function

    return enter


class Call:
    """One captured call, with values where the graph has nodes.

    Args:
        graph: the channel graph under construction.
        node: the call.
        values: the values of the nodes before it.
        shapes: their shapes, with `BATCH` for the batch.
    """

    def __init__(
        self, graph: ChannelGraph, node: fx.Node, values: Mapping[fx.Node, Any], shapes: Mapping[fx.Node, Any]
    ) -> None:
        self.graph = graph
        self.node = node
        self.shape: Any = shapes[node]
        self._shapes = {id(values[other]): shapes[other] for other in node.all_input_nodes}
        self.arguments = _named(node, values)

    def __getitem__(self, name: str) -> Any:
        """The argument of this name in the operator's schema, its default when the call leaves it out."""
        return self.arguments[name]

    def shape_of(self, value: Value) -> Shape:
        """The shape of a value among the arguments."""
        shape: Shape = self._shapes[id(value)]
        return shape

    def tensors(self) -> Iterator[Value]:
        """The values among the arguments, those in lists too."""
        for argument in self.arguments.values():
            for item in argument if isinstance(argument, (list, tuple)) else (argument,):
                if isinstance(item, Value):
                    yield item

    def is_weight(self, value: Any) -> bool:
        """Whether `value` is a whole constant of the network."""
        return isinstance(value, Value) and len(value.ids) == 1 and int(value.ids[0]) in self.graph.weight_of

    def along(self, value: Value, axis: int, block: int = 1) -> Value:
        """`value` with its channels along `axis`, by a view that takes it as a whole where they lie elsewhere."""
        if (value.axis, value.block) == (axis, block):
            return value
        if self.is_weight(value):
            return self.graph.weight(self.graph.weight_of[int(value.ids[0])][0], axis, block)
        seen = self.graph.new(self.shape_of(value)[axis] // block, axis, block, value.ndim)
        whole = Operand(value, Need.WHOLE)
        self.graph.operations.append(Operation(VIEW, (Slot(0),), {}, (whole,), (seen,), self.node.name))
        return seen

    def make(self, output: Value, operands: Mapping[int, Operand], *, target: Any = None, **changed: Any) -> Value:
        """Append the operation of this call, making `output`, and return it.

        Args:
            output: the value it makes.
            operands: what is read of each value, by `id`; values not mentioned are read whole.
            target: the overload to call instead of the captured one, of an equal schema.
            changed: arguments to replace, by name.
        """
        self._append(target or self.node.target, operands, (output,), changed)
        return output

    def channelwise(self, value: Value, axis: int, block: int = 1, *, target: Any = None, **changed: Any) -> Value:
        """Output channel c is a function of `value`'s channel c alone; it lies along `axis`."""
        output = self.graph.new(len(value.ids), axis, block, len(self.shape))
        return self.make(output, {id(value): Operand(value, Need.ALIGNED)}, target=target, **changed)

    def barrier(self) -> Value:
        """The call as it stands: everything read whole, everything made together; a tuple for several results."""
        _refuse_random(self.node, self.arguments)
        several = isinstance(self.shape, (list, tuple)) and any(isinstance(part, tuple) for part in self.shape)
        outputs = tuple(self._opaque(shape) for shape in (self.shape if several else [self.shape]))
        self._append(self.node.target, {}, outputs, {})
        return cast(Value, outputs) if several else outputs[0]

    def _append(
        self, target: Any, operands: Mapping[int, Operand], outputs: tuple[Value, ...], changed: Mapping[str, Any]
    ) -> None:
        slots: list[Operand] = []

        def fill(item: Any) -> Any:
            if isinstance(item, Value):
                slots.append(operands.get(id(item), Operand(item, Need.WHOLE)))
                return Slot(len(slots) - 1)
            return [fill(part) for part in item] if isinstance(item, (list, tuple)) else item

        filled = {name: fill(changed.get(name, argument)) for name, argument in self.arguments.items()}
        schema = getattr(self.node.target, "_schema", None)
        by_name = {argument.name for argument in schema.arguments if argument.kwarg_only} if schema else set()
        args = tuple(value for name, value in filled.items() if name not in by_name)
        # `None` is the default of every such argument: dtype, device, layout, memory format.
        kwargs = {name: value for name, value in filled.items() if name in by_name and value is not None}
        self.graph.operations.append(Operation(target, args, kwargs, tuple(slots), outputs, self.node.name))

    def _opaque(self, shape: Any) -> Value:
        if not isinstance(shape, tuple):
            return self.graph.new(1, None)
        if len(shape) < 2 or shape[1] % BATCH == 0:
            return self.graph.new(1, None, 1, len(shape))
        return self.graph.new(shape[1], 1, 1, len(shape))


def _named(node: fx.Node, values: Mapping[fx.Node, Any]) -> dict[str, Any]:
    """Arguments by the schema's names, defaults filled in; by position for functions without one."""
    args, kwargs = _replace((node.args, node.kwargs), values)
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {str(position): argument for position, argument in enumerate(args)}
    named = {argument.name: argument.default_value for argument in schema.arguments}
    named.update(zip(named, args, strict=False))
    named.update(kwargs)
    return named


def _replace(item: Any, values: Mapping[fx.Node, Any]) -> Any:
    if isinstance(item, fx.Node):
        return values[item]
    if isinstance(item, dict):
        return {key: _replace(part, values) for key, part in item.items()}
    if isinstance(item, (list, tuple)):
        return [_replace(part, values) for part in item]
    return item


def _refuse_random(node: fx.Node, arguments: Mapping[str, Any]) -> None:
    """Operators that may draw random numbers do not when they are told to drop out nothing, or not to train."""
    tags = getattr(node.target, "tags", [])
    told_not_to = arguments.get("dropout_p") == 0 or arguments.get("training") is False
    if torch.Tag.nondeterministic_seeded in tags and not told_not_to:
        raise InputError(
            f"the network draws random numbers when it is evaluated ({node.name}: {node.target}); "
            "only deterministic networks can be collapsed"
        )
