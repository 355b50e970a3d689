"""Which experts compute what: task-conditioned routing, as in M³ViT.

Liang et al., "M³ViT: Mixture-of-Experts Vision Transformer for Efficient Multi-task Learning with Model-Accelerator
Co-design", NeurIPS 2022.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gatedeploy.errors import InputError


@dataclass(frozen=True)
class Routing:
    """Where a router sent what: n pictures, or n tokens.

    Attributes:
        probabilities: (n, experts), softmax over the experts.
        chosen: (n, k) int64, the experts taken.
        weights: (n, k), g_e of the experts taken.
    """

    probabilities: Tensor
    chosen: Tensor
    weights: Tensor

    def of_all(self) -> Tensor:
        """(n, experts): g_e of the experts taken, and 0 for all others."""
        return torch.zeros_like(self.probabilities).scatter(1, self.chosen, self.weights)


class Router(nn.Module):
    """Chooses k of E experts from what is seen and asked (M³ViT's task-conditioned router).

    p = softmax(W · (what is seen + embedding of the task) + b). M³ViT concatenates the two, which for a linear W is the
    same family. The k largest p are kept and divided by their sum (Shazeer et al., "Outrageously Large Neural
    Networks", ICLR 2017). For k = 1 the quotient would be the constant 1 and teach the router nothing, so p itself is
    the weight (Switch Transformers, Fedus et al. 2022, eq. 2). Neither adds M³ViT's noise.
    """

    def __init__(self, channels: int, experts: int, top_k: int, tasks: int) -> None:
        super().__init__()
        self.top_k = top_k
        self.embedding = nn.Embedding(tasks, channels)
        self.score = nn.Linear(channels, experts)

    def forward(self, seen: Tensor, task: int | None) -> Routing:
        """Route `seen: (n, channels)` for one task; for None, an equal part of it for each task in turn."""
        words = self.embedding.weight
        asked = words.repeat_interleave(seen.shape[0] // len(words), 0) if task is None else words[task]
        probabilities = self.score(seen + asked).softmax(1)
        weights, chosen = probabilities.topk(self.top_k, dim=1)
        if self.top_k > 1:
            weights = weights / weights.sum(1, keepdim=True)
        return Routing(probabilities, chosen, weights)


class Experts(nn.Module, ABC):
    """Abstract: a block of a trunk whose inside is a mixture of experts.

    A trunk hands on nothing but features, so the question stands in the block, put there before a pass.

    Args:
        channels: that the router sees.
        experts: E.
        top_k: k, how many of them each picture or token takes.
        tasks: how many tasks may ask.

    Attributes:
        task: who asks; None for all: the batch is as many times as long as the pictures, task after task.
        first: whether no other such block comes before, so that all tasks' features are still one.
        routing: of the last pass in training.
    """

    def __init__(self, channels: int, experts: int, top_k: int, tasks: int) -> None:
        super().__init__()
        self.router = Router(channels, experts, top_k, tasks)
        self.tasks = tasks
        self.task: int | None = None
        self.first = False
        self.routing: Routing | None = None

    def for_all(self, x: Tensor) -> Tensor:
        """`(batch, …)` as many times as there are tasks, where all ask and this is where they part."""
        return x.repeat(self.tasks, *[1] * (x.ndim - 1)) if self.first and self.task is None else x

    def __getstate__(self) -> dict[str, Any]:
        """What a copy has: not the routing, whose graph cannot be copied."""
        return {**self.__dict__, "routing": None}

    @abstractmethod
    def deployed(self) -> Experts:
        """A copy for evaluation that computes the chosen experts alone."""


def check_top_k(experts: int, top_k: int, channels: int) -> None:
    """Raise `InputError` unless k of E experts can have as many hidden channels as the plain block."""
    if top_k > experts:
        raise InputError(f"top_k {top_k} is more than the {experts} experts there are")
    if channels % top_k:
        raise InputError(f"top_k {top_k} does not divide the {channels} hidden channels of a block")


def balance_loss(routing: Routing) -> Tensor:
    """E · Σ_e f_e · P_e: 1 when all experts are used alike, E when one does all.

    f_e is the share of choices that fell on expert e and P_e its mean probability, through which the gradient flows
    (Switch Transformers, Fedus et al. 2022, eq. 4 to 6; the idea is the importance loss of Shazeer et al. 2017, eq. 6).
    """
    experts = routing.probabilities.shape[1]
    shares = torch.bincount(routing.chosen.flatten(), minlength=experts) / routing.chosen.numel()
    return experts * (shares * routing.probabilities.mean(0)).sum()
