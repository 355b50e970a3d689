"""The weights of the emitted network, cut from those of the gated one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gatedeploy.gating.operators import along
from gatedeploy.graph.channels import ChannelGraph, Ids, Operand, Operation, Value
from gatedeploy.graph.sums import Kind, Numbers, Read, Sum, Term, factors
from gatedeploy.program import weight_name


class Constants:
    """Makes each distinct piece of a weight once, in float64, and names it after where it comes from.

    Attributes:
        weights: what was made, by name.
        trainable: the names of those cut from parameters.
    """

    def __init__(self, graph: ChannelGraph) -> None:
        self.graph = graph
        self.weights: dict[str, Tensor] = {}
        self.trainable: set[str] = set()
        self._made: dict[object, str] = {}
        self._taken: set[str] = set()

    def rows(self, value: Value) -> str:
        """The channels of `value`, all of which are channels of weights."""
        key = (value.ids.tobytes(), value.axis)
        if key not in self._made:
            name, positions = self._origin(value)
            piece = self._take(name, value.axis, value.block, positions)
            kept = self._unique(name.removeprefix("branches."))
            self._made[key] = self._keep(
                kept, piece.double() if piece.is_floating_point() else piece, name in self.graph.trainable
            )
        return self._made[key]

    def layer(
        self, weight: Operand, bias: Operand | None, data: Value, order: Ids, affine: tuple[Numbers, Numbers] | None
    ) -> tuple[str, str | None]:
        """Weight and bias of a convolution or linear layer; layers that had a weight in common still have.

        Args:
            weight: the rows that are wanted, and where its columns are, if it has any that follow the input.
            bias: its bias, if it has one.
            data: what the layer reads, as the gated network had it.
            order: the channels that it reads now; columns that read one and the same channel are added up.
            affine: scale and shift per row, of a norm that the layer does the work of.
        """
        scale, shift = affine or (None, None)
        to = None if weight.columns is None else _columns(data.ids, order)
        matrix = self._matrix(weight, to, len(order), data.block, scale)
        if bias is None and shift is None:
            return matrix, None
        offset = self._take(*self._origin_of(bias)).double() if bias else torch.zeros(1, dtype=torch.float64)
        if scale is not None and shift is not None:
            offset = offset * torch.from_numpy(scale.copy()) + torch.from_numpy(shift.copy())
        return matrix, self._beside(matrix, offset)

    def _matrix(self, weight: Operand, to: Ids | None, columns: int, block: int, scale: Numbers | None) -> str:
        """These rows of a layer's weight, its column c as column `to[c]` of `columns`, as it is where `to` is None."""
        rows = weight.value
        key = ("matrix", rows.ids.tobytes(), weight.columns, _bytes(to), columns, block, _bytes(scale))
        if key not in self._made:
            source, positions = self._origin(rows)
            matrix = self._take(source, rows.axis, rows.block, positions).double()
            if to is not None:
                matrix = _reorder(matrix, weight.columns or 0, to, columns, block)
            if scale is not None:
                matrix = matrix * along(torch.from_numpy(scale.copy()), rows.axis or 0, matrix.ndim)
            name = f"{self._unique_layer(source)}.weight"
            self._made[key] = self._keep(name, matrix, source in self.graph.trainable)
        return self._made[key]

    def matrix(self, made: Sum, read: Read) -> str:
        """The weight of one layer of a sum."""
        kind, order = read.kind, read.value.ids
        assert kind is not None
        parts = [_Part.of(self.graph, made, made.terms[number], order) for number in read.terms]
        key = (kind, len(made.output.ids), len(order), *(part.key for part in parts))
        if key not in self._made:
            shape = list(kind.kernel)
            for axis, size in sorted([(kind.rows, len(made.output.ids)), (kind.columns, len(order) * kind.block)]):
                shape.insert(axis, size)
            matrix = torch.zeros(shape, dtype=torch.float64)
            for part in parts:
                self._add(matrix, part, kind)
            sources = [self._origin(part.term.weight.value)[0] for part in parts if part.term.weight is not None]
            name = self._unique_layer(sources[0] if sources else f"{made.name}.weight")
            trainable = not sources or any(source in self.graph.trainable for source in sources)
            self._made[key] = self._keep(f"{name}.weight", matrix, trainable)
        return self._made[key]

    def _add(self, matrix: Tensor, part: _Part, kind: Kind) -> None:
        term = part.term
        if term.weight is None:
            # A 1×1 layer: one number per row, at the column of the channel that it adds.
            flat = matrix.view(matrix.shape[0], matrix.shape[1])
            rows, columns = torch.from_numpy(term.rows[part.used]), torch.from_numpy(part.to[part.used])
            flat.index_put_((rows, columns), torch.from_numpy(part.factor[part.used]), accumulate=True)
            return
        value = term.weight.value
        source, positions = self._origin(value)
        piece = self._take(source, value.axis, value.block, positions)
        piece = piece.index_select(kind.columns, _entries(part.used, kind.block)).double()
        divisor = torch.from_numpy(np.repeat(part.divisor[part.used], kind.block))
        piece *= along(torch.from_numpy(part.factor), kind.rows, piece.ndim)
        piece /= along(divisor, kind.columns, piece.ndim)
        dims = (kind.rows, kind.columns)
        target, addend = matrix.movedim(dims, (0, 1)), piece.movedim(dims, (0, 1))
        columns = _entries(part.to[part.used], kind.block)
        if len(columns) > len(set(columns.tolist())):  # a channel that is read twice
            addend = addend.new_zeros(len(addend), *target.shape[1:]).index_add_(1, columns, addend)
            columns = torch.arange(target.shape[1])
        target[torch.from_numpy(term.rows)[:, None], columns] += addend

    def offset(self, made: Sum, matrix: str) -> str | None:
        """The bias of a sum, beside the layer that adds it."""
        if made.offset is None:
            return None
        numbers = made.offset if self.graph.scales is None else made.offset * self.graph.scales[made.output.ids]
        return self._beside(matrix, torch.from_numpy(numbers.copy()))

    def _beside(self, matrix: str, offset: Tensor) -> str:
        """The bias of the layer that has the weight `matrix`."""
        key = ("offset", matrix, offset.numpy().tobytes())
        if key not in self._made:
            name = self._unique(f"{matrix.removesuffix('.weight')}.bias")
            self._made[key] = self._keep(name, offset, matrix in self.trainable)
        return self._made[key]

    def share(self, operation: Operation, share: Numbers) -> str:
        """The shares of one task in a mix, shaped to multiply its feature."""
        made = along(torch.from_numpy(share.copy()), operation.output.axis or 0, operation.output.ndim)
        return self._keep(self._unique(f"{operation.name}.share"), made, trainable=True)

    def index(self, entries: Ids) -> str:
        """The numbers of the entries that a gather takes."""
        key = ("index", entries.tobytes())
        if key not in self._made:
            self._made[key] = self._keep(
                self._unique("index.entries"), torch.from_numpy(entries.copy()), trainable=False
            )
        return self._made[key]

    def _origin(self, value: Value) -> tuple[str, Ids]:
        """The weight that `value`'s channels are of, and which they are."""
        places = [self.graph.weight_of[id_] for id_ in value.ids.tolist()]
        (name,) = {name for name, _, _, _ in places}
        return name, np.array([position for _, _, _, position in places], dtype=np.int64)

    def _origin_of(self, operand: Operand) -> tuple[str, int | None, int, Ids]:
        name, positions = self._origin(operand.value)
        return name, operand.value.axis, operand.value.block, positions

    def _take(self, name: str, axis: int | None, block: int, positions: Ids) -> Tensor:
        tensor = self.graph.weights[name].detach().cpu()
        return tensor.clone() if axis is None else tensor.index_select(axis, _entries(positions, block))

    def _keep(self, name: str, tensor: Tensor, trainable: bool) -> str:
        self.weights[name] = tensor.contiguous()
        self._taken.update(name[:end] for end, letter in enumerate(name) if letter == ".")
        self._taken.add(name)
        if trainable:
            self.trainable.add(name)
        return name

    def _unique_layer(self, source: str) -> str:
        """A free name for the layer whose weight is cut from `source`; its bias must be free with it."""
        home = weight_name(source.removeprefix("branches.").removesuffix(".weight"))
        number, candidate = 1, home
        while not (self._free(f"{candidate}.weight") and self._free(f"{candidate}.bias")):
            number += 1
            candidate = f"{home}_{number}"
        return candidate

    def _unique(self, name: str) -> str:
        """A name that is free for a weight: `layer.mean`, then `layer_2.mean` and so on."""
        home, dot, leaf = weight_name(name).rpartition(".")
        number, candidate = 1, f"{home}{dot}{leaf}"
        while not self._free(candidate):
            number += 1
            candidate = f"{home}_{number}.{leaf}" if dot else f"{leaf}_{number}"
        return candidate

    def _free(self, name: str) -> bool:
        """Whether nothing has this name, hangs below it, or has the name of what it would hang below."""
        return name not in self._taken and name.rpartition(".")[0] not in self.weights


@dataclass(frozen=True, eq=False)
class _Part:
    """How one term enters the weight of a layer that reads the channels `order`.

    Args:
        term: the term.
        to: per channel that the term reads, its column, -1 where the layer does not read it.
        used: positions of the channels that it does.
        factor: per row, what it is multiplied by; of a term without a layer, scales included.
        divisor: per channel that the term reads, what its column is divided by.
    """

    term: Term
    to: Ids
    used: Ids
    factor: Numbers
    divisor: Numbers

    @staticmethod
    def of(graph: ChannelGraph, made: Sum, term: Term, order: Ids) -> _Part:
        to = _columns(term.reads.ids, order)
        used, plain = np.flatnonzero(to >= 0), np.ones(len(to))
        if term.weight is None:
            return _Part(term, to, used, factors(graph.scales, made, term), plain)
        if graph.scales is None:
            return _Part(term, to, used, term.factor, plain)
        factor = term.factor * graph.scales[made.output.ids[term.rows]]
        return _Part(term, to, used, factor, graph.scales[term.reads.ids])

    @property
    def key(self) -> object:
        weight = None if self.term.weight is None else self.term.weight.value.ids.tobytes()
        numbers = (self.term.rows, self.to, self.factor, self.divisor)
        return (weight, *(part.tobytes() for part in numbers))


def _bytes(numbers: npt.NDArray[Any] | None) -> bytes | None:
    return None if numbers is None else numbers.tobytes()


def _columns(ids: Ids, order: Ids) -> Ids:
    """For each channel, which of the channels `order` it is; -1 for one that is none of them."""
    column_of = {id_: column for column, id_ in enumerate(order.tolist())}
    return np.array([column_of.get(id_, -1) for id_ in ids.tolist()], dtype=np.int64)


def _reorder(tensor: Tensor, axis: int, to: Ids, columns: int, block: int) -> Tensor:
    """Column c of `tensor` as column `to[c]`; those that come to lie on each other are added."""
    if len(to) == columns and (np.diff(to) == 1).all():
        return tensor
    if len(to) == columns:
        return tensor.index_select(axis, _entries(np.argsort(to), block))
    shape = list(tensor.shape)
    shape[axis] = columns * block
    return tensor.new_zeros(shape).index_add_(axis, _entries(to, block), tensor)


def _entries(positions: Ids, block: int) -> Tensor:
    """Where along their axis the entries of these channels lie."""
    return torch.from_numpy((positions[:, None] * block + np.arange(block)).reshape(-1))
