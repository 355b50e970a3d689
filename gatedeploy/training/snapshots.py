"""A training's state on the disk: the network as others read it, and all it takes to go on."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gatedeploy.artifact import ModelInfo, read_checkpoint, write_checkpoint
from gatedeploy.errors import InputError, located
from gatedeploy.graph.capture import capture
from gatedeploy.program import Program
from gatedeploy.specs import InputSpec

FILE = "checkpoint.pt"


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint says of a training.

    Args:
        info: what travels with the network.
        epochs: how many are done.
        network: the state dict, more than the program holds: what only training reads is in it too.
        optimisers: their state dicts, by name.
        scaler: of 16-bit training; empty without it.
    """

    info: ModelInfo
    epochs: int
    network: dict[str, Tensor]
    optimisers: dict[str, Any]
    scaler: dict[str, Any]


class Skeleton:
    """A network's evaluation program, whose graph training does not change.

    Args:
        network: where it was made, not on another device yet.
        spec: the picture it takes.
    """

    def __init__(self, network: nn.Module, spec: InputSpec) -> None:
        self.program = capture(network, torch.zeros(2, *spec.shape), spec)
        # A program may give a weight a name that a file can hold; that both are the same memory tells which it was.
        names = {_place(tensor): name for name, tensor in network.state_dict().items()}
        weights = {name: _place(tensor) for name, tensor in self.program.weights.items()}
        self.source_of = {name: names[place] for name, place in weights.items() if place in names}

    def filled(self, state: Mapping[str, Tensor]) -> Program:
        """The program with the weights of a state dict of the network."""
        weights = {name: state[source] for name, source in self.source_of.items()}
        return replace(self.program, weights={**self.program.weights, **weights})


def _place(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.data_ptr(), tensor.shape, tensor.stride()


def write_snapshot(path: Path, skeleton: Skeleton, snapshot: Snapshot) -> None:
    """Write a checkpoint that `read_snapshot` reads back and that `prune` takes as it is.

    Args:
        path: the file; what stood there stays until the new one is whole.
        skeleton: of the network.
        snapshot: of now.
    """
    network = {name: tensor.detach().cpu() for name, tensor in snapshot.network.items()}
    training = {
        "epochs": snapshot.epochs,
        "network": network,
        "optimisers": snapshot.optimisers,
        "scaler": snapshot.scaler,
    }
    write_checkpoint(path, skeleton.filled(network), snapshot.info, training)


def read_snapshot(path: Path) -> Snapshot:
    """Read what `write_snapshot` wrote.

    Raises:
        InputError: no checkpoint, a damaged one, or one without the state of a training.
    """
    checkpoint = read_checkpoint(path)
    training = checkpoint.training or {}
    fields = ("epochs", "network", "optimisers", "scaler")
    kinds = (int, dict, dict, dict)
    with located(str(path)):
        if not all(isinstance(training.get(name), kind) for name, kind in zip(fields, kinds, strict=True)):
            raise InputError("holds a network but no training that could go on; train without --resume")
        return Snapshot(checkpoint.info, *(training[name] for name in fields))


def load_network(network: nn.Module, state: Mapping[str, Tensor], where: Path) -> None:
    """Put saved weights into a network.

    Raises:
        InputError: they are those of another network.
    """
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"{where}: holds the weights of another network: {reason}") from None


def said_nothing_of(stage: str) -> tuple[str, ...]:
    """The keys of a recipe that say nothing of a network of this stage, so that another value there is no matter.

    What becomes of unreadable pictures says nothing of those that were read: a run that stopped may go on without them.
    Compiled or not, a step does the same, but for rounding.
    """
    of_none = ("train.rivals", "train.unreadable", "train.compile")
    if stage == "gated":
        return of_none
    of_gates = ("gates", "sparsity", "budget", "tasks.*.sparsity_target", *of_none)
    if stage not in ("start", "single", "shared"):  # another method's network
        return of_gates
    of_the_network = (*of_gates, "method", "train.hold_out", "train.balance")
    return (*of_the_network, "train.epochs") if stage == "start" else of_the_network


def first_difference(saved: Mapping[str, Any], now: Mapping[str, Any], ignored: Collection[str] = ()) -> str | None:
    """The dotted key of the first value in which two recipes differ, with both values; None if they are equal.

    Args:
        saved: plain values of the one.
        now: and of the other.
        ignored: dotted keys that may differ; `*` stands for one part.
    """
    for key, before, after in _differences(saved, now, ()):
        if not is_ignored(key, ignored):
            return f"{'.'.join(key)} was {before!r} and is now {after!r}"
    return None


def is_ignored(key: tuple[str, ...], ignored: Collection[str]) -> bool:
    """Whether a key, part by part, or what it stands in is among these dotted keys; `*` stands for one part."""
    starts = [".".join(key[:length]) for length in range(1, len(key) + 1)]
    return any(fnmatchcase(start, pattern) for start in starts for pattern in ignored)


def _differences(saved: Any, now: Any, key: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    if isinstance(saved, Mapping) and isinstance(now, Mapping):
        for part in [*now, *(part for part in saved if part not in now)]:
            yield from _differences(saved.get(part), now.get(part), (*key, str(part)))
    elif saved != now:
        yield key, saved, now


def all_finite(network: nn.Module) -> bool:
    """Whether every weight and statistic is a number."""
    return all(
        bool(torch.isfinite(tensor).all()) for tensor in network.state_dict().values() if tensor.is_floating_point()
    )
