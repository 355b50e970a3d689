"""How operators treat channels: the table of rules and the words in which rules are written.

A rule takes a `Call` and says what the call's channels are: identities of its inputs passed on, or an operation that
makes new ones. An operator without a rule is a barrier: its inputs are rebuilt whole, in their original order, and
its output's channels are all needed together. So every network collapses correctly; rules only make it better.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from torch import fx

from gatedeploy.errors import InputError
from gatedeploy.graph.channels import VIEW, ChannelGraph, Need, Operand, Operation, Slot, Value
from gatedeploy.program import arguments_of
from gatedeploy.randomness import draws

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


SPREAD_RULES: dict[Any, Rule] = {}
"""Likewise for what may read a `Spread`; a rule that returns None leaves the call to `RULES`."""


def spread_rule(*packets: Any) -> Callable[[Rule], Rule]:
    """Enter a function into that table."""

    def enter(function: Rule) -> Rule:
        SPREAD_RULES.update(dict.fromkeys(packets, function))
        return function

    return enter


class Call:
    """One captured call, with values where the graph has nodes.

    Args:
        graph: the channel graph under construction.
        node: the call.
        values: the values of the nodes before it.
        shapes: their shapes, see `shapes_of`.
    """

    def __init__(
        self, graph: ChannelGraph, node: fx.Node, values: Mapping[fx.Node, Any], shapes: Mapping[fx.Node, Any]
    ) -> None:
        self.graph = graph
        self.node = node
        self.target: Any = node.target
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
        return isinstance(value, Value) and value.axis is None and int(value.ids[0]) in self.graph.weight_of

    def reads_empty(self) -> bool:
        """Whether one of the tensors that it reads has no entries."""
        return any(isinstance(shape, tuple) and 0 in shape for shape in self._shapes.values())

    def along(self, value: Value, axis: int, block: int = 1) -> Value:
        """`value` with its channels along `axis`, in blocks of this size.

        Blocks are made of runs of channels or taken apart; where channels lie elsewhere, `value` is taken as a whole.
        """
        if (value.axis, value.block) == (axis, block):
            return value
        if self.is_weight(value):
            return self.graph.weight(self.graph.weight_of[int(value.ids[0])][0], axis, block)
        shape = self.shape_of(value)
        if value.axis == axis and value.block == 1:
            return self.graph.unite(value, block, self.node.name, shape)
        if value.axis == axis and block == 1:
            return self.graph.divide(value, self.node.name, shape)
        seen = self.graph.new(shape[axis] // block, axis, block, shape)
        whole = Operand(value, Need.WHOLE)
        self.graph.operations.append(Operation(VIEW, (Slot(0),), {}, (whole,), seen, self.node.name))
        return seen

    def become(self, target: Any, arguments: dict[str, Any]) -> None:
        """Be the call of another overload that computes the same."""
        self.target, self.arguments = target, arguments

    def make(self, output: Value, operands: Mapping[int, Operand], **changed: Any) -> Value:
        """Append the operation of this call, making `output`, and return it.

        Args:
            output: the value it makes.
            operands: what is read of each value, by `id`; values not mentioned are read whole.
            changed: arguments to replace, by name.
        """
        slots: list[Operand] = []

        def fill(item: Any) -> Any:
            if isinstance(item, Value):
                slots.append(operands.get(id(item), Operand(item, Need.WHOLE)))
                return Slot(len(slots) - 1)
            return [fill(part) for part in item] if isinstance(item, (list, tuple)) else item

        filled = {name: fill(changed.get(name, argument)) for name, argument in self.arguments.items()}
        schema = getattr(self.target, "_schema", None)
        by_name = {argument.name: argument for argument in schema.arguments if argument.kwarg_only} if schema else {}
        args = tuple(value for name, value in filled.items() if name not in by_name)
        # A `None` is left out where it is the default: dtype, device, layout, memory format.
        kwargs = {
            name: value
            for name, value in filled.items()
            if name in by_name and (value is not None or not by_name[name].has_default_value())
        }
        self.graph.operations.append(Operation(self.target, args, kwargs, tuple(slots), output, self.node.name))
        return output

    def channelwise(self, value: Value, axis: int, block: int = 1, **changed: Any) -> Value:
        """Output channel c is a function of `value`'s channel c alone; it lies along `axis`."""
        output = self.graph.new(len(value.ids), axis, block, self.shape)
        return self.make(output, {id(value): Operand(value, Need.ALIGNED)}, **changed)

    def barrier(self) -> Value:
        """The call as it stands: everything read whole, everything made together; a tuple for several results."""
        if draws(self.node.target, self.arguments):
            raise InputError(
                f"the network draws random numbers when it is evaluated ({self.node.name}: {self.node.target}); "
                "only deterministic networks can be collapsed"
            )
        sizes = isinstance(self.shape, int)  # of a tensor: it does not read channels
        if not sizes and any(value.axis is not None for value in self.tensors()):  # else it holds none back
            self.graph.count_barrier(str(getattr(self.node.target, "overloadpacket", self.node.target)))
        if not isinstance(self.shape, (list, tuple)) or not any(isinstance(part, tuple) for part in self.shape):
            return self.make(self._opaque(self.shape), {})
        together = self.make(self.graph.new(1, None), {})
        parts = tuple(self._opaque(shape) for shape in self.shape)
        for position, part in enumerate(parts):
            whole = Operand(together, Need.WHOLE)
            getitem = Operation(operator.getitem, (Slot(0), position), {}, (whole,), part, self.node.name)
            self.graph.operations.append(getitem)
        return cast(Value, parts)

    def _opaque(self, shape: Any) -> Value:
        """A result whose channels lie where those of an operand of its shape do, else along axis 1."""
        if not isinstance(shape, tuple):
            return self.graph.new(1, None)
        alike = (value.axis for value in self.tensors() if value.axis is not None and self.shape_of(value) == shape)
        return self.graph.opaque(shape, next(alike, 1))


def _named(node: fx.Node, values: Mapping[fx.Node, Any]) -> dict[str, Any]:
    return {name: _replace(argument, values) for name, argument in arguments_of(node).items()}


def _replace(item: Any, values: Mapping[fx.Node, Any]) -> Any:
    if isinstance(item, fx.Node):
        return values[item]
    if isinstance(item, dict):
        return {key: _replace(part, values) for key, part in item.items()}
    if isinstance(item, (list, tuple)):
        return [_replace(part, values) for part in item]
    return item
