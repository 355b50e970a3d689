"""A transformer's block whose MLP is a mixture of experts, chosen per token and task (M³ViT, see `routing`).

The plain MLP has H hidden channels, four times the tokens'. Here E experts have H / k each and every token takes k of
them, so that it costs what the plain MLP costs. With g_e the router's weight:

    x ← x + attention(norm1(x));   x ← x + Σ_{e chosen} g_e · (fc2_e(GELU(fc1_e(norm2(x)))))

In training and deployed, each expert computes the tokens that chose it, and no others. In evaluation all compute all,
as two wide linear layers between which those not chosen are multiplied by 0: E / k times the work, but a graph that
does not depend on the picture.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gatedeploy.models.routing import Experts, check_top_k
from gatedeploy.models.vit import Block


class TokenExperts(Experts):
    """A transformer's block with experts for its MLP.

    Args:
        plain: the block it replaces; norms and attention are taken from it.
        experts: E.
        top_k: k, which must divide the hidden channels of the plain MLP.
        tasks: how many tasks may ask.

    Raises:
        InputError: k does not fit.
    """

    def __init__(self, plain: Block, experts: int, top_k: int, tasks: int) -> None:
        hidden, width = plain.mlp.fc1.weight.shape
        check_top_k(experts, top_k, hidden)
        super().__init__(width, experts, top_k, tasks)
        self.norm1, self.attn, self.norm2 = plain.norm1, plain.attn, plain.norm2
        self.weight1 = nn.Parameter(torch.empty(experts, hidden // top_k, width))
        self.bias1 = nn.Parameter(torch.zeros(experts, hidden // top_k))
        self.weight2 = nn.Parameter(torch.empty(width, experts, hidden // top_k))
        self.bias2 = nn.Parameter(torch.zeros(experts, width))
        self.dispatches = False
        for weight in (self.weight1, self.weight2):
            nn.init.trunc_normal_(weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, tokens, width)` to the same."""
        x = self.for_all(x + self.attn(self.norm1(x)))
        tokens = self.norm2(x).flatten(0, 1)
        routing = self.router(tokens, self.task)
        if self.training:
            self.routing = routing
        compute = self._dispatched if self.training or self.dispatches else self._all
        return x + compute(tokens, routing.of_all()).reshape(x.shape)

    def _dispatched(self, tokens: Tensor, weights: Tensor) -> Tensor:
        out = torch.zeros_like(tokens)
        for expert, own in enumerate(weights.unbind(1)):
            rows = own.nonzero().squeeze(1)
            hidden = F.gelu(F.linear(tokens.index_select(0, rows), self.weight1[expert], self.bias1[expert]))
            made = F.linear(hidden, self.weight2[:, expert], self.bias2[expert])
            out = out.index_put((rows,), made * own.index_select(0, rows)[:, None], accumulate=True)
        return out

    def _all(self, tokens: Tensor, weights: Tensor) -> Tensor:
        hidden = F.gelu(F.linear(tokens, self.weight1.flatten(0, 1), self.bias1.flatten()))
        hidden = (hidden.reshape(-1, *self.bias1.shape) * weights[..., None]).flatten(1)
        return F.linear(hidden, self.weight2.flatten(1)) + weights @ self.bias2

    def deployed(self) -> Experts:
        """A copy that sends tokens to the experts they chose, in evaluation too."""
        made = copy.deepcopy(self).eval()
        made.dispatches = True
        return made
