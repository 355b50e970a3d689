"""Compile a plain network to machine code with AOTInductor, for PyTorch in Python and C++."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from gatedeploy.errors import CheckError, InputError, first_line
from gatedeploy.exporters.manifest import Engine
from gatedeploy.modes import quiet
from gatedeploy.program import flat_predictions
from gatedeploy.runners.base import BATCH, TensorSpec, picture_of
from gatedeploy.specs import InputSpec


class Flat(nn.Module):
    """A network that returns its predictions one after the other; packages and programs know no names.

    Args:
        network: returns a dict of predictions.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Predictions in the order of the bundle's outputs; image: (batch, channels, height, width)."""
        return tuple(flat_predictions(self.network(image)).values())


def traced(
    network: nn.Module, input: InputSpec, batches: tuple[int, int], example: int
) -> torch.export.ExportedProgram:
    """The network through `torch.export`, with a batch size that is free within `batches`.

    Args:
        network: returns a dict of predictions.
        input: the picture.
        batches: the smallest and the largest batch size.
        example: the batch size that it is traced with.

    Raises:
        InputError: PyTorch cannot trace it.
    """
    smallest, largest = batches
    sizes = {} if smallest == largest else {0: torch.export.Dim(BATCH, min=smallest, max=largest)}
    try:
        with quiet(), torch.no_grad():
            image = torch.zeros(example, *input.shape)
            return torch.export.export(Flat(network).eval(), (image,), dynamic_shapes=(sizes,), strict=False)
    except Exception as error:  # PyTorch's own types, and whatever its tracing runs into
        raise InputError(f"cannot be traced for batches of {smallest} to {largest}: {first_line(error)}") from error


def build_aoti(
    network: nn.Module, path: Path, input: InputSpec, outputs: Sequence[TensorSpec], batches: tuple[int, int, int]
) -> Engine:
    """Write an AOTInductor package (`.pt2`) for processors like this machine's; it takes a C++ compiler.

    Args:
        network: plain, in float32, on the CPU.
        path: the package.
        input: the picture.
        outputs: what the network returns, in order.
        batches: the smallest, the usual and the largest batch size; it is traced with the usual one.

    Raises:
        InputError: PyTorch cannot trace the network.
        CheckError: it cannot be compiled here.
    """
    smallest, usual, largest = batches
    program = traced(network, input, (smallest, largest), min(max(usual, 2), largest))
    try:
        with quiet():
            torch._inductor.aoti_compile_and_package(program, package_path=str(path))
            said = torch._inductor.aoti_load_package(str(path)).get_metadata()
    except Exception as error:  # from tracing to the compiler's exit code
        raise CheckError(
            f"AOTInductor cannot compile the network here: {first_line(error)}; it needs a C++ compiler (g++)"
        ) from error
    targets = (said["AOTI_MACHINE"], *said["AOTI_CPU_ISA"].lower().split())
    return Engine("aoti", str(torch.__version__), targets, batches, (picture_of(input),), tuple(outputs))
