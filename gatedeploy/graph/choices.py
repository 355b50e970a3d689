"""How a network is laid out, layer by layer, and what that is predicted to cost: for people."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gatedeploy.graph.channels import ChannelGraph, Operand
from gatedeploy.graph.groups import Groups
from gatedeploy.graph.places import Places
from gatedeploy.graph.prices import Prices
from gatedeploy.graph.sums import Read, Sum

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


def choices(graph: ChannelGraph, prices: Prices) -> Choices:
    """How every sum of `graph` is computed; they must have been told by which kernels."""
    places = Places(graph)
    return [
        (_layers(graph, made), _tensor(graph, made, places, prices))
        for made in graph.operations
        if isinstance(made, Sum)
    ]


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
        term.kind.taps
        * len(term.rows)
        * len(np.unique(term.reads.ids))
        * term.kind.positions(made.output.entries, term.reads.entries)
        for made in graph.operations
        if isinstance(made, Sum)
        for term in made.terms
        if term.kind is not None
    )


def executed_macs(graph: ChannelGraph) -> int:
    """Multiply-adds of all sums by the kernels that were chosen for them."""
    return sum(
        read.kind.taps
        * len(made.output.ids)
        * len(read.value.ids)
        * read.kind.positions(made.output.entries, read.value.entries)
        for made in graph.operations
        if isinstance(made, Sum)
        for read in made.reads
        if read.kind is not None
    )


def _tensor(graph: ChannelGraph, made: Sum, places: Places, prices: Prices) -> TensorChoice:
    rows, positions = len(made.output.ids), made.output.entries
    copies = copied = turns = 0
    total = 0.0
    kernels = []
    sources: dict[int, int] = {}
    layered = any(read.kind is not None for read in made.reads)
    for read in made.reads:
        parts = places.by_tensor(read.value.ids)
        cut = [part for part in parts if len(part) < len(places.held[places.tensor[part[0]]])]
        tactic = _tactic(made, read, len(parts) > 1, bool(cut))
        kernels.append(Kernel(tactic, len(read.value.ids)))
        numbers = len(read.value.ids) * read.value.entries
        if tactic == GATHERED:
            turns += 1
            copies += 2  # besides the addition, it is put into order and multiplied
            copied += BYTES * numbers
            sources |= {int(places.tensor[part[0]]): len(places.held[places.tensor[part[0]]]) for part in parts}
            continue
        if tactic in (CUT, JOINED):
            copied += BYTES * numbers
            copies += len(cut) + (len(parts) > 1)
            total += len(cut) * prices.cut_launch_ms
            total += sum(prices.cut_ms * len(part) * read.value.entries for part in cut)
            total += (prices.copy_ms * numbers + prices.launch_ms) * (len(parts) > 1)
        if read.kind is not None:
            used = read.kind.positions(positions, read.value.entries)
            total += prices.layer(read.kind.taps, rows, len(read.value.ids), used) + prices.launch_ms
        elif not layered and len(made.reads) > 1:
            total += prices.add_ms * rows * positions
    if turns:
        total += prices.gathered(rows, positions, list(sources.values()), turns)
        copies += len(sources) > 1
    return TensorChoice(_rows(graph, made), tuple(kernels), copies, copied, total)


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
