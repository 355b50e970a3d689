"""Pass 1: make every gate a choice that has been made."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from gatedeploy.errors import InputError
from gatedeploy.gating.operators import BLEND as SOFT
from gatedeploy.gating.operators import MIX, SELECT, per_channel
from gatedeploy.graph.channels import BLEND, ChannelGraph, Need, Operation, Slot
from gatedeploy.graph.sums import Numbers
from gatedeploy.passes.base import Pass, Renaming


class ResolveGates(Pass):
    """Replace gates by the channels they choose, and mixes by sums with constant weights.

    1. A select computes nothing: its channel c *is* the specific feature's channel c where α > 0, else the shared
       feature's (InterroGate eq. 2). The operation goes, its output's identities become those of its inputs.
    2. A mix becomes a `BLEND` with the constant shares softmax(β) (eq. 3).
    3. A soft gate becomes a `BLEND` of the specific feature, with w, and the shared one, with 1 − w (Safe MTL eq. 1);
       where w is 1 or 0 its channel *is* that of the one or the other.

    Legal when α, β and w are weights of the network; gates that are computed from the picture are refused.
    """

    def run(self, graph: ChannelGraph) -> None:
        """See the class."""
        renaming = Renaming(graph)
        kept: list[Operation] = []
        for operation in graph.operations:
            renaming.read_by(operation)
            if operation.target is SELECT:
                specific, shared, logits = operation.operands
                chosen = _chosen(graph.weights[graph.constant(logits.value, operation.name)], operation)
                new = np.where(chosen, specific.value.ids, shared.value.ids)
                renaming.rename(operation.output.ids, new)
                continue
            if operation.target is MIX:
                _blend(graph, operation)
            if operation.target is SOFT:
                own = _own(graph, operation)
                specific, shared, _ = operation.operands
                operation.target = BLEND
                operation.args, operation.operands = (Slot(0), Slot(1)), (specific, shared)
                operation.constants["share"] = np.stack([own, 1 - own])
                for chosen, feature in ((own == 1, specific), (own == 0, shared)):
                    renaming.rename(operation.output.ids[chosen], feature.value.ids[chosen])
            kept.append(operation)
        graph.operations = kept
        renaming.finish()

    def ensures(self, graph: ChannelGraph) -> bool:
        """No gate and no mix is left."""
        return all(operation.target not in (SELECT, SOFT, MIX) for operation in graph.operations)


def _chosen(gate_logits: Tensor, operation: Operation) -> np.ndarray:
    group, channels = operation.args[3], len(operation.output.ids)
    _check_width(operation, gate_logits, (math.ceil(channels / group),), channels)
    return per_channel(gate_logits > 0, group, channels).cpu().numpy()


def _own(graph: ChannelGraph, operation: Operation) -> Numbers:
    """(channels,) the specific feature's weights."""
    weight = graph.weights[graph.constant(operation.operands[2].value, operation.name)].double()
    if not bool(((weight >= 0) & (weight <= 1)).all()):
        raise InputError(
            f"{operation.name}: a soft gate's weights lie between 0 and 1; these go from {float(weight.min()):g} to "
            f"{float(weight.max()):g}"
        )
    channels = len(operation.output.ids)
    if len(weight) not in (1, channels):
        _check_width(operation, weight, (channels,), channels)
    return weight.expand(channels).cpu().numpy()


def _blend(graph: ChannelGraph, operation: Operation) -> None:
    features = [operand for operand in operation.operands if operand.need is Need.ALIGNED]
    (logits,) = (operand for operand in operation.operands if operand.need is Need.WHOLE)
    mix_logits = graph.weights[graph.constant(logits.value, operation.name)]
    channels = len(operation.output.ids)
    _check_width(operation, mix_logits, (len(features), channels), channels)
    operation.target = BLEND
    operation.args = tuple(Slot(position) for position in range(len(features)))
    operation.operands = tuple(features)
    operation.constants["share"] = mix_logits.double().softmax(0).cpu().numpy()


def _check_width(operation: Operation, logits: Tensor, expected: tuple[int, ...], channels: int) -> None:
    if tuple(logits.shape) != expected:
        raise InputError(
            f"{operation.name}: its logits have shape {tuple(logits.shape)}; features of {channels} channels need "
            f"{expected}. Make the gate or mix for as many channels as the features have"
        )
