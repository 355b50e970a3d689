"""What holds while a block runs and is put back behind it: a network predicts, libraries keep quiet."""

from __future__ import annotations

import logging
import os
import sys
import warnings
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


@contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings and log messages of PyTorch's exporters and compilers to themselves."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(max(before, logging.ERROR))
        try:
            yield
        finally:
            logging.disable(before)


@contextmanager
def mute() -> Iterator[None]:
    """Keep to itself what libraries write to the process's standard error past Python, its other threads' included."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
