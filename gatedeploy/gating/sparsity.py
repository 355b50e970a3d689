"""The penalty that makes tasks share (InterroGate eq. 4)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from gatedeploy.errors import InputError
from gatedeploy.gating.network import GatedNetwork

PenaltyForm = Literal["hinge", "l1"]


def sparsity_penalty(network: GatedNetwork, form: PenaltyForm = "hinge", scale: float | None = None) -> Tensor:
    """Mean over tasks of max(0, mean over sites of mean over channels of σ(α) − τ_t); `l1` has no max and no τ.

    The value is eq. 4's. Its gradient, taken literally, hardly moves a gate (a channel's is 1/(4·T·L·C)), so it is
    multiplied per site by `scale`.

    Args:
        network: whose gates to penalise; a gate tied over several sites counts once at each.
        form: "hinge" (eq. 4) or "l1".
        scale: factor on the gradient; None takes each site's number of channels.

    Returns:
        A scalar, to be multiplied by λ_s.
    """
    if not isinstance(network, GatedNetwork):
        raise InputError(f"expected a gated network, as gatedeploy.gate makes it, got a {type(network).__name__}")
    if form not in ("hinge", "l1"):
        raise InputError(f"no such sparsity form {form!r}; there are hinge and l1")
    terms = []
    for task in network.tasks:
        means = []
        for site in network.sites:
            mean = network.gate(site, task.name).openness().mean()
            factor = site.channels if scale is None else scale
            means.append(mean.detach() + factor * (mean - mean.detach()))
        openness = torch.stack(means).mean()
        terms.append(openness if form == "l1" else (openness - task.sparsity_target).clamp_min(0))
    return torch.stack(terms).mean()
