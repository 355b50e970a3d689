"""How compiled forms of a network are to be built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gatedeploy.errors import InputError, check_known, check_type
from gatedeploy.runners.tensorrt_library import LIBRARIES, library
from gatedeploy.specs import InputSpec

SHAPES = ("--min-shapes", "--opt-shapes", "--max-shapes")

LEVELS = range(6)
"""Optimisation levels; the library's own choice is 3."""


@dataclass(frozen=True)
class EngineOptions:
    """How an engine shall be built.

    Args:
        runtime: "tensorrt" or "tensorrt-rtx"; None takes what is installed.
        shapes: the smallest, the usual and the largest input that it shall take, for the usual one of which it is
            fastest: batch sizes, (8,), or whole shapes, (8, 3, 128, 128), of which only the batch is free.
        compute_capabilities: of the GPUs that it shall run on, e.g. (86, 89). Empty: what the library chooses, which is
            every GPU it knows (TensorRT for RTX) or the one of this machine (TensorRT).
        optimization_level: 0 builds fastest, 5 searches longest; None leaves it to the library.
        workspace_bytes: what the engine's kernels may use besides; None: all of the GPU's memory.
        tf32: whether products of float32 may be rounded to TensorFloat-32.
    """

    runtime: str | None = None
    shapes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] = ((1,), (8,), (32,))
    compute_capabilities: tuple[int, ...] = ()
    optimization_level: int | None = None
    workspace_bytes: int | None = None
    tf32: bool = False

    @property
    def batches(self) -> tuple[int, int, int]:
        """The smallest, the usual and the largest batch size."""
        smallest, usual, largest = (shape[0] for shape in self.shapes)
        return smallest, usual, largest

    def __post_init__(self) -> None:
        if self.runtime is not None:
            check_known("the TensorRT library", self.runtime, LIBRARIES)
        if not isinstance(self.shapes, Sequence) or len(self.shapes) != len(SHAPES):
            raise InputError(f"shapes {self.shapes}: expected three, the smallest, the usual and the largest")
        for option, shape in zip(SHAPES, self.shapes, strict=True):
            _check_numbers(option, shape, at_least=1)
        _check_numbers("--sm", self.compute_capabilities, at_least=0)
        check_type("workspace_bytes", self.workspace_bytes, int, type(None))
        smallest, usual, largest = self.batches
        if not 1 <= smallest <= usual <= largest:
            raise InputError(
                f"batch sizes {smallest}, {usual}, {largest}: expected the smallest (--min-shapes), at least 1, the "
                "usual (--opt-shapes) and the largest (--max-shapes), in this order"
            )
        if self.optimization_level is not None and self.optimization_level not in LEVELS:
            raise InputError(f"optimization level {self.optimization_level}: expected 0 to {LEVELS[-1]}")
        if self.workspace_bytes is not None and self.workspace_bytes < 1:
            raise InputError(f"a workspace of {self.workspace_bytes} bytes: expected at least 1; --workspace is in MiB")

    def check_picture(self, input: InputSpec) -> None:
        """Raise `InputError` for a shape that is not of this picture."""
        for option, shape in zip(SHAPES, self.shapes, strict=True):
            if shape[1:] not in ((), input.shape):
                sizes, picture = ("x".join(map(str, each)) for each in (shape, (shape[0], *input.shape)))
                raise InputError(
                    f"{option} {sizes}: the network takes {picture}, where the batch alone is free; say {picture} or "
                    f"{shape[0]}"
                )


def _check_numbers(option: str, values: object, at_least: int) -> None:
    if not isinstance(values, tuple) or len(values) < at_least or not all(type(value) is int for value in values):
        raise InputError(f"{option} {values}: expected whole numbers")


def check_capabilities(options: EngineOptions) -> tuple[str, ...]:
    """The library's names of the GPUs that an engine is asked for.

    Raises:
        InputError: it does not build for one of them.
        MissingExtraError: it is not installed.
    """
    runtime, trt = library(options.runtime)
    names = tuple(f"SM{number}" for number in options.compute_capabilities)
    if names and not hasattr(trt.IBuilderConfig, "set_compute_capability"):
        raise InputError(f"--sm: {runtime} builds for the GPU of this machine alone; leave it out")
    known = [name for name in trt.ComputeCapability.__members__ if name.startswith("SM")] if names else []
    for name in names:
        if name not in known:
            have = ", ".join(sorted((each[2:] for each in known), key=int))
            raise InputError(f"--sm {name[2:]}: {runtime} {trt.__version__} does not build for it; it does for {have}")
    return names
