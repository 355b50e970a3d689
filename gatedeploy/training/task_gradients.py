"""The gradients of single tasks, compared and put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gatedeploy.training.balance import Backward

Gradients = list[Tensor | None]
"""Of one loss, by tensor; None where the loss does not reach it or it stands still."""


def gradients(loss: Tensor, tensors: Sequence[Tensor], backward: Backward, only: bool = False) -> Gradients:
    """What `loss` leaves in `.grad` of `tensors`, which are empty before and after; the graph is kept.

    Args:
        loss: a scalar.
        tensors: parameters, or tensors between them and the loss that retain their gradient.
        backward: Fabric's.
        only: no other tensor gets a gradient, and what lies behind these is not gone through.
    """
    if not loss.requires_grad:
        return [None] * len(tensors)
    if only:
        backward(loss, retain_graph=True, inputs=list(tensors))
    else:
        backward(loss, retain_graph=True)
    found = [tensor.grad for tensor in tensors]
    for tensor in tensors:
        tensor.grad = None
    return found


def length(of: Gradients) -> Tensor:
    """The norm of all of them together, of which there is at least one."""
    norms = torch.stack([torch.linalg.vector_norm(gradient) for gradient in of if gradient is not None])
    whole: Tensor = torch.linalg.vector_norm(norms)
    return whole


def task_weights(weighting: Callable[[Tensor], Tensor], of_tasks: Sequence[Gradients]) -> list[float]:
    """By task, what its gradient is to be multiplied by.

    Args:
        weighting: torchjd's; maps the gradients' inner products (tasks, tasks) to weights (tasks,).
        of_tasks: the gradients, by task.
    """
    products = _inner_products(of_tasks)
    if not products.isfinite().all():
        return [1.0] * len(of_tasks)  # a solver would raise; that a loss is no number is for the loop to tell
    # Weights do not depend on the gradients' scale, but CAGrad's takes gradients shorter than 0.01 for a place where
    # nothing more can be gained, and would let the network stand still there.
    scale = products.diagonal().mean()
    return [float(weight) for weight in weighting(products / scale if scale > 0 else products)]


def _inner_products(of_tasks: Sequence[Gradients]) -> Tensor:
    """(tasks, tasks) float64 on the CPU, where solvers of this size are fastest."""
    total = torch.zeros(len(of_tasks), len(of_tasks), dtype=torch.float64)
    for column in zip(*of_tasks, strict=True):
        known = next((gradient for gradient in column if gradient is not None), None)
        if known is not None:
            filled = [torch.zeros_like(known) if gradient is None else gradient for gradient in column]
            rows = torch.stack(filled).flatten(1)
            rows = rows.to(torch.promote_types(rows.dtype, torch.float32))  # what was computed in 16 bits
            total = total.to(rows.device) + rows @ rows.T
    return total.cpu()


def combined(column: Sequence[Tensor | None], weights: Sequence[float]) -> Tensor | None:
    """The weighted sum of the tasks' gradients at one tensor; None where no loss reaches it."""
    terms = [weight * found for weight, found in zip(weights, column, strict=True) if found is not None]
    return sum(terms[1:], terms[0]) if terms else None
