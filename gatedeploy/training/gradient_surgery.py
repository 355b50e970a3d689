"""PCGrad, CAGrad and MGDA: the step is a weighted sum of the tasks' gradients, by what these are to each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from gatedeploy.training.balance import Backward, Balance
from gatedeploy.training.parameters import shared_parameters
from gatedeploy.training.task_gradients import combined, gradients, task_weights


class GradientSurgery(Balance):
    """A backward pass for each task, and of its gradients a weighted sum.

    The papers weigh gradients of what tasks share: of what more than one loss reaches. What belongs to one task (heads,
    private encoders, attention) would add to the lengths alone, and gates have a learning rate of their own: these get
    the plain sum.

    PCGrad (Yu et al. 2020) gives a sum and MGDA (Sener & Koltun 2018) a mean of the tasks' gradients, CAGrad (Liu et
    al. 2021) one that is (1 + c) means long at most; to Adam that is all the same. MGDA's gradients are not normalised:
    the paper's algorithm 2 does not do it, its code offers several ways.

    It takes the memory of the network's gradients once per task.

    Args:
        network: trained.
        weighting: torchjd's; maps the gradients' inner products (tasks, tasks) to weights (tasks,).
        backward: Fabric's.
    """

    def __init__(self, network: nn.Module, weighting: Callable[[Tensor], Tensor], backward: Backward) -> None:
        self._weighting = weighting
        self._backward = backward
        self._shared = shared_parameters(network)
        theirs = set(map(id, self._shared))
        self._others = [parameter for parameter in network.parameters() if id(parameter) not in theirs]

    def backward(self, losses: Sequence[Tensor], penalty: Tensor) -> None:
        """See `Balance`."""
        parameters = [*self._shared, *self._others]
        of_tasks = [gradients(loss, parameters, self._backward) for loss in losses]
        columns = list(zip(*of_tasks, strict=True))
        shared = {
            place
            for place, column in enumerate(columns[: len(self._shared)])
            if sum(found is not None for found in column) > 1
        }
        plain = [1.0] * len(losses)
        rows = [[found[place] for place in sorted(shared)] for found in of_tasks]
        weights = task_weights(self._weighting, rows) if shared else plain
        for place, (parameter, column) in enumerate(zip(parameters, columns, strict=True)):
            parameter.grad = combined(column, weights if place in shared else plain)
        if penalty.requires_grad:
            self._backward(penalty)
