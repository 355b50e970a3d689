"""What a collapsed network may contain, worked out from the definition and from nothing of the compiler.

Every channel of every tensor is a *term*: the operator, its weights' row and the terms that it reads, all written
down as a tuple. A gate picks one of two terms; a mix of equal terms is that term. Two channels with the same term
are the same number, so a network without anything superfluous computes each term that the outputs are made of
exactly once. The oracle runs on the modules that a `GatedNetwork` calls; it has no liveness, no passes and no layout.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

import gatedeploy as gd

Terms = list[int]


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (gd.ChannelGate, gd.Mix)) or super().is_leaf_module(m, module_qualified_name)


@dataclass
class Table:
    """Numbers for terms, so that a term can be part of another without growing."""

    numbers: dict[tuple[Any, ...], int]
    terms: list[tuple[Any, ...]]

    def number(self, *term: Any) -> int:
        if term not in self.numbers:
            self.numbers[term] = len(self.terms)
            self.terms.append(term)
        return self.numbers[term]

    def reachable(self, roots: Terms) -> set[int]:
        """`roots` and all that they are made of."""
        seen, queue = set(roots), list(roots)
        while queue:
            for part in self.terms[queue.pop()][-1]:
                if part not in seen:
                    seen.add(part)
                    queue.append(part)
        return seen


ELEMENTWISE = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Tanh, nn.ELU, nn.GELU, nn.MaxPool2d, nn.AvgPool2d)
ELEMENTWISE_NAMES = {
    "relu",
    "relu_",
    "silu",
    "sigmoid",
    "hardtanh",
    "interpolate",
    "max_pool2d",
    "mean",
    "clamp",
    "mul",
}


def expected_layers(network: gd.GatedNetwork) -> dict[str, tuple[int, int]]:
    """Rows and columns of each convolution and linear layer that the outputs need, by the layer's name."""
    graph = _Tracer().trace(network)
    table = Table({}, [])
    values: dict[fx.Node, Terms] = {}
    outputs: Terms = []
    for node in graph.nodes:
        if node.op == "placeholder":
            values[node] = [table.number("picture", c, ()) for c in range(3)]
        elif node.op == "output":
            outputs = [term for leaf in node.all_input_nodes for term in values[leaf]]
        else:
            values[node] = _terms(network, node, values, table)
    rows: dict[str, set[int]] = {}
    columns: dict[str, set[int]] = {}
    for number in table.reachable(outputs):
        kind, *rest = table.terms[number]
        if kind == "layer":
            name, _, reads = rest
            # One layer called on two inputs stands for two layers in a plain network.
            call = f"{name}@{reads}"
            rows.setdefault(call, set()).add(number)
            columns.setdefault(call, set()).update(reads)
    return {call: (len(rows[call]), len(columns[call])) for call in rows}


def _terms(network: gd.GatedNetwork, node: fx.Node, values: dict[fx.Node, Terms], table: Table) -> Terms:
    reads = [values[argument] for argument in node.all_input_nodes]
    if node.op == "call_module":
        return _module(str(node.target), network.get_submodule(str(node.target)), reads, table)
    function: Any = node.target
    name = function if isinstance(function, str) else function.__name__
    if function is torch.cat:
        return [term for read in reads for term in read]
    if function in (operator.add, torch.add, operator.mul) and len(reads) == 2:
        return [table.number("both", name, pair) for pair in zip(*reads, strict=True)]
    if name in ELEMENTWISE_NAMES and len(reads) == 1:
        settings = f"{name}{node.args[1:]}{dict(node.kwargs)}"
        return [table.number("each", settings, (term,)) for term in reads[0]]
    raise NotImplementedError(f"the oracle does not know {node.format_node()}")


def _module(name: str, module: nn.Module, reads: list[Terms], table: Table) -> Terms:
    if isinstance(module, gd.ChannelGate):
        specific, shared = reads
        chosen = module.chosen().tolist()
        return [own if own_chosen else other for own, other, own_chosen in zip(specific, shared, chosen, strict=True)]
    if isinstance(module, gd.Mix):
        return [
            parts[0] if len(set(parts)) == 1 else table.number("mix", name, c, parts)
            for c, parts in enumerate(zip(*reads, strict=True))
        ]
    (read,) = reads
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            return [table.number("own", name, c, (term,)) for c, term in enumerate(read)]
        return [table.number("layer", name, row, tuple(read)) for row in range(module.weight.shape[0])]
    if isinstance(module, nn.ConvTranspose2d):
        return [table.number("layer", name, row, tuple(read)) for row in range(module.out_channels)]
    if isinstance(module, (nn.BatchNorm2d, nn.PReLU)):
        return [table.number("own", name, c, (term,)) for c, term in enumerate(read)]
    if isinstance(module, nn.Identity):
        return read
    if isinstance(module, ELEMENTWISE):
        return [table.number("each", str(module), (term,)) for term in read]
    raise NotImplementedError(f"the oracle does not know {name}: {type(module).__name__}")


def kept_layers(thin: gd.Collapsed) -> Iterator[tuple[int, int]]:
    """Rows and columns of each convolution and linear layer of a collapsed network, depthwise ones left out."""
    for name, module in thin.network.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)) and "depthwise" not in name:
            yield module.weight.shape[0], module.weight.shape[1]
    for node in thin.network.graph.nodes:
        if node.target is torch.ops.aten.conv_transpose2d.input:
            weight: Tensor = thin.network.get_parameter(node.args[1].target)
            yield weight.shape[1], weight.shape[0]
