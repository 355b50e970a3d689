"""Write a plain network as an ExecuTorch program, for phones and small boards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from gatedeploy.errors import CheckError, MissingExtraError, first_line
from gatedeploy.exporters.manifest import Engine
from gatedeploy.exporters.to_aoti import traced
from gatedeploy.modes import quiet
from gatedeploy.runners.base import TensorSpec, picture_of
from gatedeploy.specs import InputSpec

THRESHOLD = 16
"""PyTorch chooses convolutions by whether there are this many pictures. A program traced below it takes no more than
15, one traced at it no other batch: so those that shall take more are traced above it."""


def build_executorch(
    network: nn.Module, path: Path, input: InputSpec, outputs: Sequence[TensorSpec], batches: tuple[int, int, int]
) -> Engine:
    """Write an ExecuTorch program (`.pte`) whose layers XNNPACK computes where it can.

    Args:
        network: plain, in float32, on the CPU.
        path: the program.
        input: the picture.
        outputs: what the network returns, in order.
        batches: the smallest, the usual and the largest batch size.

    Raises:
        MissingExtraError: executorch is not installed.
        InputError: PyTorch cannot trace the network.
        CheckError: ExecuTorch does not take it.
    """
    try:
        with quiet():  # its libraries tell of parts of theirs that are for GPUs
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower
            from executorch.version import __version__
    except ImportError:
        raise MissingExtraError("the format executorch", "executorch", "executorch") from None
    smallest, _, largest = batches
    largest = largest if largest < THRESHOLD else max(largest, THRESHOLD + 1)
    program = traced(network, input, (smallest, largest), max(smallest, 2) if largest < THRESHOLD else largest)
    try:
        with quiet():
            lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
    except Exception as error:  # of any of the library's stages
        raise CheckError(f"ExecuTorch cannot take the network: {first_line(error)}") from error
    path.write_bytes(lowered.buffer)
    return Engine("executorch", __version__, (), batches, (picture_of(input),), tuple(outputs))
