"""Pass 5: fold batch norms into the layers before them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gatedeploy.graph.channels import ChannelGraph, Operation, Slot
from gatedeploy.graph.operators_mixing import is_layer
from gatedeploy.passes.base import Pass, Renaming
from gatedeploy.passes.share_duplicates import ShareDuplicates
from gatedeploy.passes.unite_channelwise import UniteChannelwise

BATCH_NORM = torch.ops.aten.batch_norm.default


class FoldNorms(Pass):
    """Let a convolution or linear layer do the work of the evaluation-mode batch norm behind it.

    y = γ·(Wx + b − μ)/√(σ² + ε) + β  becomes  W' = s·W,  b' = s·b + (β − s·μ)  with  s = γ/√(σ² + ε).

    Legal, channel by channel, when
    1. the norm's constants are weights of the network,
    2. the channel is made from a row of a convolution, dense or depthwise, or of a linear layer,
    3. and nothing but the norm reads it.

    The scale and shift stay beside the layer as float64 numbers until the network is emitted, so that nothing is
    rounded twice and no weight is copied.
    """

    requires = (ShareDuplicates, UniteChannelwise)

    def run(self, graph: ChannelGraph) -> None:
        """See the class."""
        renaming = Renaming(graph)
        readers = count_readers(graph)
        made = graph.makers()
        kept: list[Operation] = []
        for operation in graph.operations:
            renaming.read_by(operation)
            if operation.target is not BATCH_NORM or not _constant(graph, operation):  # 1
                kept.append(operation)
                continue
            scale, shift = _affine(graph, operation)
            ids = operation.operands[0].value.ids
            stay = []
            for position, id_ in enumerate(ids.tolist()):
                layer, row = made.get(id_, (None, -1))
                if layer is None or not is_layer(layer) or readers[id_] != 1:  # 2, 3
                    stay.append(position)
                    continue
                _scale_row(layer, row, scale[position], shift[position])
                renaming.rename(operation.output.ids[position : position + 1], ids[position : position + 1])
                readers[id_] = readers[int(operation.output.ids[position])]
            if stay:
                operation.keep(np.array(stay))
                kept.append(operation)
        graph.operations = kept
        renaming.finish()

    def ensures(self, graph: ChannelGraph) -> bool:
        """Every batch norm of constants that is left reads what others read too, or what no layer made."""
        readers, made = count_readers(graph), graph.makers()
        for operation in graph.operations:
            if operation.target is BATCH_NORM and _constant(graph, operation):
                for id_ in operation.operands[0].value.ids.tolist():
                    layer = made.get(id_, (None,))[0]
                    if layer is not None and is_layer(layer) and readers[id_] == 1:
                        return False
        return True


def count_readers(graph: ChannelGraph) -> np.ndarray:
    """(identities,) how often each is read, by operations and by the network's outputs."""
    readers = np.zeros(graph.created, dtype=np.int64)
    for operation in graph.operations:
        for operand in operation.operands:
            np.add.at(readers, operand.value.ids, 1)
    for value in graph.output_values():
        np.add.at(readers, value.ids, 1)
    return readers


def _constant(graph: ChannelGraph, norm: Operation) -> bool:
    return all(id_ in graph.weight_of for operand in norm.operands[1:] for id_ in operand.value.ids.tolist())


def _affine(graph: ChannelGraph, norm: Operation) -> tuple[np.ndarray, np.ndarray]:
    """The norm as y = scale·x + shift, per channel that it computes."""
    weight, bias, mean, variance, _, _, epsilon, _ = norm.args[1:9]
    std = torch.sqrt(_numbers(graph, norm, variance, 1.0) + epsilon)
    scale = _numbers(graph, norm, weight, 1.0) / std
    shift = _numbers(graph, norm, bias, 0.0) - scale * _numbers(graph, norm, mean, 0.0)
    return scale.numpy(), shift.numpy()


def _numbers(graph: ChannelGraph, norm: Operation, slot: Slot | None, default: float) -> Tensor:
    if slot is None:
        return torch.full((len(norm.output.ids),), default, dtype=torch.float64)
    return torch.from_numpy(graph.numbers(norm.operands[slot.operand].value))


def _scale_row(layer: Operation, row: int, scale: float, shift: float) -> None:
    constants, rows = layer.constants, len(layer.output.ids)
    if "scale" not in constants:
        constants["scale"], constants["shift"] = np.ones(rows), np.zeros(rows)
    constants["scale"][row] *= scale
    constants["shift"][row] = constants["shift"][row] * scale + shift
