"""The channel graph: every channel of every value has an identity.

An identity is an integer that names one channel of one physical tensor. A gate with a constant mask copies
identities; a channelwise operator maps each channel's identity to a new one; a mixing operator (convolution, linear)
makes new ones from all of its input. Collapsing a network is arithmetic on identities: drop what no output reads,
unite what is equal.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gatedeploy.errors import InputError
from gatedeploy.shapes import depends_on_batch, entries
from gatedeploy.specs import InputSpec

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Value:
    """Which channels a tensor consists of.

    Args:
        ids: (channels,) the identity of each channel.
        axis: the dimension that carries them; None for a value that is taken as a whole (a scalar, a size, a list).
        block: how many neighbouring entries of `axis` make one channel: 1, or height × width behind a flatten.
        shape: the tensor's shape in the gated network, where `axis` may be longer; () for a size or a list.
    """

    ids: Ids
    axis: int | None
    block: int = 1
    shape: tuple[int, ...] = ()

    @property
    def ndim(self) -> int:
        """The tensor's dimensions."""
        return len(self.shape)

    @property
    def last(self) -> bool:
        """Whether channels lie last, behind positions."""
        return self.ndim > 2 and self.axis == self.ndim - 1

    @property
    def entries(self) -> int:
        """How many numbers one channel is, for one picture."""
        others = (size for dim, size in enumerate(self.shape) if dim != self.axis)
        return entries(others) * self.block


class Need(enum.Enum):
    """What one output channel needs of an operand."""

    ALIGNED = "the channel of the same position"
    WHOLE = "all channels, in this order"
    ANY_ORDER = "all channels, in any order: a weight's columns follow"
    RUN = "a run of channels: as many for each output channel, one run after the other"
    PART = "an entry of the channel of the same position"
    TOGETHER = "all channels, in the order of the output's"


BY_POSITION = (Need.ALIGNED, Need.RUN, Need.PART, Need.TOGETHER)
"""Needs of an operand whose identities follow the output's channels, one or several for each."""


@dataclass(frozen=True, eq=False)
class Operand:
    """A value that an operation reads, and how much of it each output channel needs.

    `columns` is the dimension of a weight that follows the order of the operation's `ANY_ORDER` operand.
    """

    value: Value
    need: Need
    columns: int | None = None


@dataclass(frozen=True)
class Slot:
    """Stands in an operation's arguments for its operand of this number."""

    operand: int


@dataclass(frozen=True)
class Count:
    """Stands in an operation's arguments for its number of output channels times `block`."""

    block: int = 1


@dataclass(eq=False)
class Operation:
    """One computation: `target(*args, **kwargs)` with operands for slots.

    Args:
        target: an ATen overload, `operator.getitem` of a list, or one of the compiler's own: `BLEND`, `VIEW`, `UNITE`,
            `DIVIDE`.
        operands: what it reads.
        output: the value it makes.
        name: where it comes from, for people.
        constants: per-output-channel numbers that a pass attached, each (…, channels).
    """

    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    operands: tuple[Operand, ...]
    output: Value
    name: str
    constants: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)

    @property
    def divisible(self) -> bool:
        """Whether each output channel can be computed without the others."""
        needs = {operand.need for operand in self.operands}
        return Need.TOGETHER not in needs and not needs.isdisjoint(BY_POSITION)

    def keep(self, positions: Ids) -> None:
        """Compute only these output channels, in this order; all of them where the operation is not divisible."""
        count = len(self.output.ids)
        self.operands = tuple(
            replace(operand, value=replace(operand.value, ids=operand.value.ids.reshape(count, -1)[positions].ravel()))
            if operand.need in BY_POSITION
            else operand
            for operand in self.operands
        )
        self.output = replace(self.output, ids=self.output.ids[positions])
        self.constants = {name: values[..., positions] for name, values in self.constants.items()}


BLEND = "blend"
"""Σ_t constants["share"][t] · operand t, channel by channel: a mix (InterroGate eq. 3) with constant weights."""

VIEW = "view"
"""The operand itself, its channels read along another axis."""

UNITE = "unite"
"""The operand itself, runs of its channels taken for one channel each: heads of attention, groups of a convolution."""

DIVIDE = "divide"
"""The operand itself, each entry of its channels taken for a channel; constants["entry"] says which, (1, channels)."""


@dataclass
class ChannelGraph:
    """A network channel by channel: operations in the order in which they run.

    Args:
        operations: what is computed.
        outputs: the output structure, `Value`s as leaves.
        weights: constants by name.
        trainable: the names of those that are parameters.
        input: the picture.
        image: the identities of the picture's channels.
        weight_of: for the identity of a weight's channel: (name, axis, block, position).
        created: how many identities exist.
        scales: (identities,) what each channel is computed times of; None for 1.
        barriers: names of operators that no rule knows in the form in which they are called, with how often each reads
            channels.
        passed: names of the passes that it has been through.
    """

    weights: dict[str, Tensor]
    trainable: frozenset[str]
    input: InputSpec
    operations: list[Operation] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)
    image: Value = field(default_factory=lambda: Value(np.zeros(0, np.int64), None))
    weight_of: dict[int, tuple[str, int | None, int, int]] = field(default_factory=dict)
    created: int = 0
    scales: npt.NDArray[np.float64] | None = None
    barriers: dict[str, int] = field(default_factory=dict)
    passed: list[str] = field(default_factory=list)
    _weight_values: dict[tuple[str, int | None, int], Value] = field(default_factory=dict)

    def new(self, count: int, axis: int | None, block: int = 1, shape: tuple[int, ...] = ()) -> Value:
        """A value of `count` channels that did not exist before."""
        ids = np.arange(self.created, self.created + count, dtype=np.int64)
        self.created += count
        return Value(ids, axis, block, shape)

    def opaque(self, shape: tuple[int, ...], axis: int = 1) -> Value:
        """A value that is made as a whole; it can be read channel by channel."""
        if len(shape) <= axis or shape[axis] == 0 or depends_on_batch(shape[axis]):
            return self.new(1, None, 1, shape)
        return self.new(shape[axis], axis, 1, shape)

    def count_barrier(self, name: str) -> None:
        """Note that an operator of this name reads channels and has no rule in the form in which it is called."""
        self.barriers[name] = self.barriers.get(name, 0) + 1

    def by_channel(
        self, target: Any, value: Value, *args: Any, axis: int, block: int = 1, shape: tuple[int, ...], name: str
    ) -> Value:
        """What `target(value, *args)` makes channel by channel."""
        made = self.new(len(value.ids), axis, block, shape)
        self.operations.append(Operation(target, (Slot(0), *args), {}, (Operand(value, Need.ALIGNED),), made, name))
        return made

    def unite(self, value: Value, block: int, name: str, shape: tuple[int, ...]) -> Value:
        """`value`, each run of `block` neighbouring channels one channel."""
        made = self.new(len(value.ids) // block, value.axis, block, shape)
        operand = Operand(value, Need.RUN)
        self.operations.append(Operation(UNITE, (Slot(0),), {}, (operand,), made, name))
        return made

    def divide(self, value: Value, name: str, shape: tuple[int, ...]) -> Value:
        """`value`, each of its channels' entries a channel."""
        made = self.new(len(value.ids) * value.block, value.axis, 1, shape)
        operand = Operand(replace(value, ids=np.repeat(value.ids, value.block)), Need.PART)
        entry = np.tile(np.arange(value.block, dtype=np.float64), len(value.ids))[None]
        self.operations.append(Operation(DIVIDE, (Slot(0),), {}, (operand,), made, name, {"entry": entry}))
        return made

    def weight(self, name: str, axis: int | None, block: int = 1) -> Value:
        """The weight `name` with channels along `axis`; asked twice, the same identities."""
        key = (name, axis, block)
        if key not in self._weight_values:
            tensor = self.weights[name]
            count = 1 if axis is None else tensor.shape[axis] // block
            value = self.new(count, axis, block, tuple(tensor.shape))
            self._weight_values[key] = value
            self.weight_of.update({int(id_): (name, axis, block, index) for index, id_ in enumerate(value.ids)})
        return self._weight_values[key]

    def constant(self, logits: Value, reader: str) -> str:
        """The name of the weight that holds a gate's logits; `InputError` where `reader` computes them."""
        known = self.weight_of.get(int(logits.ids[0]))
        if known is None:
            raise InputError(
                f"{reader}: this gate is computed from the picture; only gates whose logits are weights of the "
                "network become constant and can be collapsed"
            )
        return known[0]

    def weight_values(self) -> Iterator[Value]:
        """The weights that have been asked for as channels."""
        yield from self._weight_values.values()

    def numbers(self, value: Value) -> npt.NDArray[np.float64]:
        """(channels,) what the channels of weights of one number per channel are."""
        places = [self.weight_of[id_] for id_ in value.ids.tolist()]
        whole = {name: self.weights[name].detach().double().cpu().numpy() for name in {place[0] for place in places}}
        return np.array([whole[name][position] for name, _, _, position in places])

    def makers(self) -> dict[int, tuple[Operation, int]]:
        """Which operation makes an identity, and at which of its output channels."""
        return {
            id_: (operation, position)
            for operation in self.operations
            for position, id_ in enumerate(operation.output.ids.tolist())
        }

    def output_values(self) -> Iterator[Value]:
        """The leaves of the output structure."""
        yield from leaves(self.outputs)


def leaves(structure: Any) -> Iterator[Value]:
    """The values in a structure of dicts, lists and tuples."""
    if isinstance(structure, Value):
        yield structure
    elif isinstance(structure, dict):
        for part in structure.values():
            yield from leaves(part)
    elif isinstance(structure, (list, tuple)):
        for part in structure:
            yield from leaves(part)


def map_leaves(structure: Any, change: Any) -> Any:
    """The structure with `change` applied to each value in it."""
    if isinstance(structure, Value):
        return change(structure)
    if isinstance(structure, dict):
        return {key: map_leaves(part, change) for key, part in structure.items()}
    if isinstance(structure, (list, tuple)):
        return type(structure)(map_leaves(part, change) for part in structure)
    return structure
