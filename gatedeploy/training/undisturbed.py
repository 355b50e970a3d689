"""Trying something out and leaving no trace of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def put_back(tensors: Iterable[Tensor]) -> Iterator[dict[Tensor, Tensor]]:
    """Give tensors their numbers back at the end; yields copies of them, by tensor."""
    before = {tensor: tensor.detach().clone() for tensor in tensors}
    try:
        yield before
    finally:
        with torch.no_grad():
            for tensor, numbers in before.items():
                tensor.copy_(numbers)


@contextmanager
def same_draws(device: torch.device) -> Iterator[None]:
    """What is drawn inside is drawn again afterwards."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
