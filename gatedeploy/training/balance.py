"""What a way to make one step of several losses has to do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from gatedeploy.training.batches import Batch

Backward = Callable[..., None]
"""Fabric's `backward`: takes a scalar and the keywords of `Tensor.backward`.

All gradients are asked for through it: in mixed precision Fabric lets nobody else differentiate its network."""


class Balance(ABC):
    """How the losses of several tasks become one step of the weights; made by `make_balance`.

    Every step calls `look_ahead`, if `needs_other_batch`, and then `backward`; both find all `.grad` empty, as
    `zero_grad(set_to_none=True)` leaves them. What is drawn comes from PyTorch's own generators.

    Attributes:
        needs_other_batch: whether it has to be shown a second batch before each step.
    """

    needs_other_batch = False

    def look_ahead(self, losses_of: Callable[[Batch], Tensor], batch: Batch, other: Batch, rate: float) -> None:  # noqa: B027
        """Learn, before a step, from what the step would do.

        Args:
            losses_of: the losses of a batch, (tasks,), each already multiplied by its ω_t.
            batch: what the step is about to be taken on.
            other: pictures of the same kind.
            rate: the learning rate of the step.
        """

    @abstractmethod
    def backward(self, losses: Sequence[Tensor], penalty: Tensor) -> None:
        """Leave in `.grad` of the network's parameters what the optimisers shall step along.

        Args:
            losses: a scalar per task, each already multiplied by its ω_t. They are not stacked: through a stack each
                would seem to depend on the others' heads, which would be gone through in vain.
            penalty: a scalar whose gradient is added as it is; 0 without a gradient where there is none.
        """

    def end_epoch(self) -> None:  # noqa: B027
        """Take notice that an epoch is over; comes before `state`."""

    def parameters(self) -> Iterable[nn.Parameter]:
        """What the optimiser of the weights has to learn along with them."""
        return ()

    def state(self) -> dict[str, Any]:
        """Tensors and plain containers from which `restore` goes on with the same bits."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Go on from what `state` returned."""
