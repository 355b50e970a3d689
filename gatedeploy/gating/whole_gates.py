"""Gates over whole tensors that blend, or that choose by chance while they are trained (Safe MTL)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gatedeploy.errors import InputError
from gatedeploy.gating.operators import blend, channel_axis, select

TINY = 1e-7
"""How near a uniform number may be to 0 and 1, of which there are no logarithms; float32 knows no nearer to 1."""

LEVEL = 1e-30
"""A logit that makes a probability of one half, above 0: at one half the task's own feature is chosen."""


class SoftGate(nn.Module):
    """Blends a task's own feature and the shared one, as a whole (Safe MTL eq. 1).

    The weight of the task's own, w, is kept in [0, 1] by `project` after each step of an optimiser, so that it can be
    exactly 0 or 1; where it is, collapsing folds the gate away. The paper counts the other way: its α is 1 − w.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), 0.5))

    def forward(self, specific: Tensor, shared: Tensor) -> Tensor:
        """Both inputs and the result: equal shapes, (batch, tokens, channels) or (batch, channels, …)."""
        blended: Tensor = blend(specific, shared, self.weight, channel_axis(specific.ndim))
        return blended

    def share(self) -> Tensor:
        """(1,) how much of the task's own there is, without gradient."""
        return self.weight.detach()

    @torch.no_grad()
    def project(self) -> None:
        """Bring w back to what it may be: the nearest number in [0, 1]."""
        self.weight.clamp_(0, 1)

    @property
    def public(self) -> float:
        """The paper's α, the weight of the shared feature."""
        return 1 - float(self.weight.detach())


class GumbelGate(nn.Module):
    """Chooses a task's own feature or the shared one, as a whole, by chance while it is trained (Safe MTL eq. 3, 4).

    The task's own is chosen with probability σ(`gate_logits`); a forward pass takes what was drawn, a backward pass the
    softmax of eq. 4 (whose denominator, in print, lacks the index k of p). In evaluation the likelier one is chosen, at
    exactly one half the task's own, which `project` sees to after each step of an optimiser. The paper counts the other
    way: its α is the probability of the shared feature.

    Attributes:
        drawn: whether chance decides in training; if not, the likelier one is chosen there too.

    Args:
        temperature: τ of eq. 4, above 0; the smaller, the nearer the softmax is to the choice.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise InputError(f"temperature must be a number above 0, got {temperature!r}")
        self.temperature = temperature
        self.drawn = True
        self.gate_logits = nn.Parameter(torch.full((1,), LEVEL))

    def forward(self, specific: Tensor, shared: Tensor) -> Tensor:
        """Both inputs and the result: equal shapes, (batch, tokens, channels) or (batch, channels, …)."""
        axis = channel_axis(specific.ndim)
        if not (self.training and self.drawn):
            chosen: Tensor = select(specific, shared, self.gate_logits, specific.shape[axis], axis)
            return chosen
        # The difference of two numbers of Gumbel's distribution is one of the logistic distribution.
        uniform = torch.rand_like(self.gate_logits).clamp(TINY, 1 - TINY)
        drawn = self.gate_logits + uniform.log() - (-uniform).log1p()
        soft = (drawn / self.temperature).sigmoid()
        hard = (drawn >= 0).to(soft.dtype)
        taken: Tensor = blend(specific, shared, hard + (soft - soft.detach()), axis)
        return taken

    def share(self) -> Tensor:
        """(1,) 1 where the task's own is chosen in evaluation, else 0."""
        return (self.gate_logits.detach() > 0).to(self.gate_logits.dtype)

    @torch.no_grad()
    def project(self) -> None:
        """Write a probability of exactly one half as a choice of the task's own."""
        self.gate_logits.masked_fill_(self.gate_logits == 0, LEVEL)

    @property
    def public(self) -> float:
        """The paper's α, the probability of the shared feature."""
        return float((-self.gate_logits.detach()).sigmoid())

    def extra_repr(self) -> str:
        """What `print(gate)` shows."""
        return f"temperature={self.temperature:g}"
