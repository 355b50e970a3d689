"""Ways to set the gates of a network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Pattern = Callable[[dict[str, Tensor], torch.Generator], None]


def logits_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: parameter for name, parameter in network.named_parameters() if name.endswith("gate_logits")}


def _task(name: str) -> str:
    """The task of a gate: `gates.<site>.<task>.gate_logits`, or for gates by hand whatever tells them apart."""
    return name.split(".")[-2]


def _random(share: float) -> Pattern:
    def fill(logits: dict[str, Tensor], generator: torch.Generator) -> None:
        for tensor in logits.values():
            tensor.copy_(torch.where(torch.rand(tensor.shape, generator=generator) < share, 0.1, -0.1))

    return fill


def _constant(value: float) -> Pattern:
    def fill(logits: dict[str, Tensor], generator: torch.Generator) -> None:
        for tensor in logits.values():
            tensor.fill_(value)

    return fill


def _all_tasks_equal(logits: dict[str, Tensor], generator: torch.Generator) -> None:
    by_site: dict[str, Tensor] = {}
    for name, tensor in logits.items():
        site = name.rsplit(".", 2)[0]
        drawn = torch.where(torch.rand(tensor.shape, generator=generator) < 0.5, 0.1, -0.1)
        same = by_site.setdefault(site, drawn)
        tensor.copy_(same if same.shape == tensor.shape else drawn)


def _one_task_alone(specific: bool) -> Pattern:
    """The first task is all specific (or all shared: a dead branch), the others the opposite."""

    def fill(logits: dict[str, Tensor], generator: torch.Generator) -> None:
        first = _task(next(iter(logits)))
        for name, tensor in logits.items():
            tensor.fill_(0.1 if (_task(name) == first) == specific else -0.1)

    return fill


def _alternating(logits: dict[str, Tensor], generator: torch.Generator) -> None:
    for position, tensor in enumerate(logits.values()):
        tensor.copy_(torch.where((torch.arange(len(tensor)) + position) % 2 == 0, 0.1, -0.1))


def _one_site(last: bool) -> Pattern:
    """Only the first or only the last site is specific."""

    def fill(logits: dict[str, Tensor], generator: torch.Generator) -> None:
        sites = list(dict.fromkeys(name.rsplit(".", 2)[0] for name in logits))
        chosen = sites[-1] if last else sites[0]
        for name, tensor in logits.items():
            tensor.fill_(0.1 if name.rsplit(".", 2)[0] == chosen else -0.1)

    return fill


PATTERNS: dict[str, Pattern] = {
    "all shared": _constant(-0.1),
    "exactly at the threshold": _constant(0.0),
    "all specific": _constant(0.1),
    "random, few specific": _random(0.15),
    "random, half": _random(0.5),
    "random, most specific": _random(0.85),
    "all tasks equal": _all_tasks_equal,
    "one task all specific": _one_task_alone(True),
    "one branch dead": _one_task_alone(False),
    "alternating": _alternating,
    "first site only": _one_site(False),
    "last site only": _one_site(True),
}


def set_gates(network: nn.Module, pattern: str, seed: int = 0) -> None:
    """Set every gate of `network` by the pattern of this name."""
    with torch.no_grad():
        PATTERNS[pattern](logits_of(network), torch.Generator().manual_seed(seed))
