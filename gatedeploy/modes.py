"""Looking at a network as it predicts, and leaving it as it was found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(network: nn.Module) -> Iterator[nn.Module]:
    """`network` in evaluation mode; behind the block every part of it is in the mode that it was in before."""
    modes = [(part, part.training) for part in network.modules()]
    try:
        network.eval()  # returns nothing where the user's own `train` does not
        yield network
    finally:
        for part, mode in modes:
            part.training = mode
