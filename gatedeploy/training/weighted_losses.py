"""The ways of balancing that look at losses alone: one weighted sum and one backward pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gatedeploy.training.balance import Backward, Balance


class Sum(Balance):
    """The plain sum (InterroGate eq. 1); also what every other way is where there is one task."""

    def __init__(self, backward: Backward) -> None:
        self._backward = backward

    def backward(self, losses: Sequence[Tensor], penalty: Tensor) -> None:
        """See `Balance`."""
        self._backward(torch.stack([*losses, penalty]).sum())


class Scalarised(Balance):
    """A scalar that torchjd makes of the losses.

    `Random` draws the softmax of normal numbers (RLW, Lin et al. 2022, algorithm 2), so weights add up to 1. `UW`
    learns s_t = log σ_t² and takes Σ e^(−s_t) L_t / 2 + s_t / 2 (Kendall et al. 2018): the form for regressions, which
    later papers use for every task; Kendall's own has no 2 in the classifications' denominators.

    Args:
        scalariser: maps losses, (tasks,), to a scalar; on the network's device.
        backward: Fabric's.
    """

    def __init__(self, scalariser: nn.Module, backward: Backward) -> None:
        self._scalariser = scalariser
        self._backward = backward

    def backward(self, losses: Sequence[Tensor], penalty: Tensor) -> None:
        """See `Balance`."""
        self._backward(self._scalariser(torch.stack([*losses])) + penalty)

    def parameters(self) -> Iterable[nn.Parameter]:
        """The s_t of `UW`."""
        return self._scalariser.parameters()

    def state(self) -> dict[str, Any]:
        """The s_t of `UW`."""
        return {name: tensor.detach().clone() for name, tensor in self._scalariser.state_dict().items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Balance`."""
        self._scalariser.load_state_dict(state)


class DWA(Balance):
    """Dynamic weight average (Liu et al. 2019, eq. 7): weights are T · softmax(r / temperature).

    r_t is the mean loss of the last epoch over that of the one before; in the first two epochs all weights are 1. A
    loss that was 0 for an epoch, for want of labels, counts as one that stayed.

    torchjd's own keeps the epochs' losses where no checkpoint can read them.

    Args:
        tasks: how many.
        temperature: above 0.
        device: the network's.
        backward: Fabric's.
    """

    def __init__(self, tasks: int, temperature: float, device: torch.device, backward: Backward) -> None:
        self._temperature = temperature
        self._backward = backward
        self._sum = torch.zeros(tasks, device=device)
        self._steps = 0
        self._means: list[Tensor] = []  # of the last two epochs
        self._weights = torch.ones(tasks, device=device)

    def backward(self, losses: Sequence[Tensor], penalty: Tensor) -> None:
        """See `Balance`."""
        stacked = torch.stack([*losses])
        self._sum = self._sum + stacked.detach()
        self._steps += 1
        self._backward((self._weights * stacked).sum() + penalty)

    def end_epoch(self) -> None:
        """Weigh the next epoch's losses."""
        self._means = [*self._means, self._sum / self._steps][-2:]
        self._sum, self._steps = torch.zeros_like(self._sum), 0
        self._weigh()

    def state(self) -> dict[str, Any]:
        """The mean losses of the last two epochs."""
        return {"means": [mean.clone() for mean in self._means]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Balance`."""
        self._means = [mean.to(self._sum.device) for mean in state["means"]]
        self._weigh()

    def _weigh(self) -> None:
        if len(self._means) == 2:
            before, last = self._means
            ratios = torch.where(before > 0, last / before, 1.0)
            self._weights = len(ratios) * (ratios / self._temperature).softmax(0)
