"""How a network is laid out, layer by layer, and what that is predicted to cost: for people."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gatedeploy.graph.channels import ChannelGraph, Operand, Value
from gatedeploy.graph.groups import Groups
from gatedeploy.graph.places import Places
from gatedeploy.graph.sums import Kind, Read, Sum

BYTES = 4
"""Of a float32 number."""
WHOLE, CUT, JOINED = "whole", "cut", "joined"
SELECTED, GATHERED, ADDED = "selected", "gathered", "added"


@dataclass(frozen=True)
class Kernel:
    """One kernel of a sum.

    Args:
        tactic: what it does; `whole`: a layer that reads one tensor as it lies. `cut`: one that reads channels which
            were cut out of it. `joined`: one that reads several tensors, or parts of them, joined into one. `selected`:
            a 1×1 layer that puts rows together. `gathered`: channels put into order, multiplied and added. `added`: a
            tensor added as it is.
        channels: how many it reads.
    """

    tactic: str
    channels: int


@dataclass(frozen=True)
class TensorChoice:
    """How one tensor is computed.

    Args:
        rows: its channels, by the branch whose layers make them; `""` in networks that were not made by `gate`, and
            for what no layer makes.
        kernels: by which it is computed.
        copies: how many kernels more cut and join what they read.
        copied_bytes: of one picture in float32.
        ms: predicted.
    """

    rows: dict[str, int]
    kernels: tuple[Kernel, ...]
    copies: int
    copied_bytes: int
    ms: float


@dataclass(frozen=True)
class SiteChoice:
    """How one layer of the backbone or a head, in all branches, is laid out; likewise an addition or a mix.

    Args:
        layers: its name; several where layers of one input became one.
        tensors: what it makes.
        plain_ms: predicted for one tensor per branch, its input cut and joined or not, whichever is cheaper.
    """

    layers: tuple[str, ...]
    tensors: tuple[TensorChoice, ...]
    plain_ms: float

    @property
    def ms(self) -> float:
        """Predicted."""
        return sum(tensor.ms for tensor in self.tensors)

    @property
    def kernels(self) -> int:
        """How many run, copies included."""
        return sum(len(tensor.kernels) + tensor.copies for tensor in self.tensors)

    @property
    def copied_bytes(self) -> int:
        """Of one picture in float32."""
        return sum(tensor.copied_bytes for tensor in self.tensors)

    @property
    def tactics(self) -> dict[str, int]:
        """How many kernels do what."""
        return dict(Counter(kernel.tactic for tensor in self.tensors for kernel in tensor.kernels))


Choices = list[tuple[tuple[str, ...], TensorChoice]]
"""Layers and what they make, in the order in which it runs."""


def choices(graph: ChannelGraph) -> Choices:
    """How every sum of `graph` is computed; they must have been told by which kernels."""
    places = Places(graph)
    return [(_layers(graph, made), _tensor(graph, made, places)) for made in _sums(graph)]


def sites(plain: Choices, chosen: Choices) -> tuple[SiteChoice, ...]:
    """Site by site, what was chosen beside what a plain layout would cost."""
    names = list(dict.fromkeys(name for layers, _ in (*chosen, *plain) for name in layers))
    number = {name: place for place, name in enumerate(names)}
    together = Groups(len(names))
    for layers, _ in (*chosen, *plain):
        for name in layers:
            together.unite(number[layers[0]], number[name])
    found: dict[int, list[TensorChoice]] = defaultdict(list)
    before: dict[int, float] = defaultdict(float)
    for layers, tensor in chosen:
        found[together.of(number[layers[0]])].append(tensor)
    for layers, tensor in plain:
        before[together.of(number[layers[0]])] += tensor.ms
    return tuple(
        SiteChoice(tuple(name for name in names if together.of(number[name]) == site), tuple(tensors), before[site])
        for site, tensors in found.items()
    )


def fewest_macs(graph: ChannelGraph) -> int:
    """Multiply-adds of all sums if no layer reads a channel that it does not need."""
    return sum(
        _macs(made, term.kind, len(term.rows), term.reads)
        for made in _sums(graph)
        for term in made.terms
        if term.kind is not None
    )


def executed_macs(graph: ChannelGraph) -> int:
    """Multiply-adds of all sums by the kernels that were chosen for them."""
    return sum(
        _macs(made, read.kind, len(made.output.ids), read.value)
        for made in _sums(graph)
        for read in made.reads
        if read.kind is not None
    )


def _sums(graph: ChannelGraph) -> list[Sum]:
    return [operation for operation in graph.operations if isinstance(operation, Sum)]


def _macs(made: Sum, kind: Kind, rows: int, reads: Value) -> int:
    columns = len(np.unique(reads.ids))
    return kind.taps * rows * columns * kind.positions(made.output.entries, reads.entries)


def _tensor(graph: ChannelGraph, made: Sum, places: Places) -> TensorChoice:
    copies = copied = 0
    kernels = []
    for read in made.reads:
        parts = places.by_tensor(read.value.ids)
        cut = sum(len(part) < len(places.held[places.tensor[part[0]]]) for part in parts)
        joined = len(parts) > 1
        tactic = _tactic(made, read, joined, cut > 0)
        kernels.append(Kernel(tactic, len(read.value.ids)))
        if tactic == GATHERED:
            copies += 2 + joined  # besides the addition, it is put into order and multiplied
        if tactic in (CUT, JOINED):
            copies += cut + joined
        if tactic in (GATHERED, CUT, JOINED):
            copied += BYTES * len(read.value.ids) * read.value.entries
    return TensorChoice(_rows(graph, made), tuple(kernels), copies, copied, sum(read.ms for read in made.reads))


def _tactic(made: Sum, read: Read, several: bool, cut: bool) -> str:
    if read.kind is None:
        return GATHERED if several or cut or read.factor is not None else ADDED
    if all(made.terms[number].kind is None for number in read.terms):
        return SELECTED
    return JOINED if several else CUT if cut else WHOLE


def _rows(graph: ChannelGraph, made: Sum) -> dict[str, int]:
    """How many rows the layers of each branch make; of a sum without layers, how many it has."""
    branches: dict[int, str] = {}
    for term in made.terms:
        if term.weight is not None:
            for row, (branch, _) in zip(term.rows.tolist(), _origins(graph, term.weight), strict=True):
                branches[row] = branch
    return dict(Counter(branches.get(row, "") for row in range(len(made.output.ids))))


def _layers(graph: ChannelGraph, made: Sum) -> tuple[str, ...]:
    weights = [term.weight for term in made.terms if term.weight is not None]
    names = dict.fromkeys(layer for weight in weights for _, layer in _origins(graph, weight))
    return tuple(names) or (made.name,)


def _origins(graph: ChannelGraph, weight: Operand) -> Iterator[tuple[str, str]]:
    """Branch and layer of each row of a weight; `gate` calls weights `branches.<branch>.<layer>.weight`."""
    for id_ in weight.value.ids.tolist():
        name = graph.weight_of[id_][0].removesuffix(".weight")
        first, _, rest = name.partition(".")
        branch, _, layer = rest.partition(".")
        yield (branch, layer) if first == "branches" and layer else ("", name)
