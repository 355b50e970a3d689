"""The weights of the emitted network, cut from those of the gated one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx, nn

from gatedeploy.gating.operators import along
from gatedeploy.graph.channels import ChannelGraph, Ids, Operand, Operation, Value

Numbers = npt.NDArray[np.float64]

RESERVED = frozenset(dir(fx.GraphModule(nn.Module(), fx.Graph())))
"""What no weight may be called, because a network has an attribute of that name already."""


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
        """Weight and bias of a convolution or linear layer.

        Args:
            weight: the rows that are wanted, and where its columns are.
            bias: its bias, if it has one.
            data: what the layer reads, as the gated network had it.
            order: the channels that it reads now; columns that read one and the same channel are added up.
            affine: scale and shift per row, of a norm that the layer does the work of.
        """
        value, columns = weight.value, weight.columns
        parts = [value.ids, data.ids, order, *(affine or ()), *([bias.value.ids] if bias else [])]
        key = ("layer", *(part.tobytes() for part in parts), affine is None)
        if key in self._made:
            return self._made_layer(self._made[key])
        source, positions = self._origin(value)
        home = self._made[key] = self._unique_layer(source)
        matrix = _reorder(self._take(source, value.axis, value.block, positions), columns or 0, data, order)
        offset = self._take(*self._origin_of(bias)).double() if bias else None
        if affine:
            scale, shift = (torch.from_numpy(numbers.copy()) for numbers in affine)
            matrix = matrix * along(scale, value.axis or 0, matrix.ndim)
            offset = shift if offset is None else offset * scale + shift
        self._keep(f"{home}.weight", matrix, source in self.graph.trainable)
        if offset is not None:
            self._keep(f"{home}.bias", offset, source in self.graph.trainable)
        return self._made_layer(home)

    def _made_layer(self, home: str) -> tuple[str, str | None]:
        bias = f"{home}.bias"
        return f"{home}.weight", bias if bias in self.weights else None

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
        home = source.removeprefix("branches.").removesuffix(".weight")
        number, candidate = 1, self._allowed(home)
        while not (self._free(f"{candidate}.weight") and self._free(f"{candidate}.bias")):
            number += 1
            candidate = f"{self._allowed(home)}_{number}"
        return candidate

    def _unique(self, name: str) -> str:
        """A name that is free for a weight: `layer.mean`, then `layer_2.mean` and so on."""
        home, dot, leaf = self._allowed(name).rpartition(".")
        number, candidate = 1, f"{home}{dot}{leaf}"
        while not self._free(candidate):
            number += 1
            candidate = f"{home}_{number}.{leaf}" if dot else f"{leaf}_{number}"
        return candidate

    def _free(self, name: str) -> bool:
        """Whether nothing has this name, hangs below it, or has the name of what it would hang below."""
        return name not in self._taken and name.rpartition(".")[0] not in self.weights

    @staticmethod
    def _allowed(name: str) -> str:
        """`name`, unless it begins with an attribute that every network has, such as `graph` or `code`."""
        first, dot, rest = name.partition(".")
        return f"{first}_{dot}{rest}" if first in RESERVED else name


def _reorder(tensor: Tensor, columns: int, data: Value, order: Ids) -> Tensor:
    """Columns that read channels `data.ids`, for channels `order`, in float64; those that read the same are added."""
    column_of = {id_: column for column, id_ in enumerate(order.tolist())}
    to = np.array([column_of[id_] for id_ in data.ids.tolist()])
    if len(to) == len(order) and (np.diff(to) == 1).all():
        return tensor.double()
    if len(to) == len(order):
        return tensor.index_select(columns, _entries(np.argsort(to), data.block)).double()
    shape = list(tensor.shape)
    shape[columns] = len(order) * data.block
    joined = torch.zeros(shape, dtype=torch.float64)
    return joined.index_add_(columns, _entries(to, data.block), tensor.double())


def _entries(positions: Ids, block: int) -> Tensor:
    """Where along their axis the entries of these channels lie."""
    return torch.from_numpy((positions[:, None] * block + np.arange(block)).reshape(-1))
