"""What an export is asked for, checked before any work is done."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from gatedeploy.errors import InputError, MissingExtraError, check_type, closest
from gatedeploy.exporters import engines
from gatedeploy.exporters.engine_options import EngineOptions, check_capabilities
from gatedeploy.exporters.precision.reduction import PrecisionOptions
from gatedeploy.exporters.precision.samples import Samples
from gatedeploy.exporters.precision.table import PRECISIONS
from gatedeploy.exporters.progress import Progress, untold
from gatedeploy.runners.tensorrt_library import library

FORMATS = ("onnx", *engines.FORMATS)
LIBRARIES = ("openvino", "executorch")
"""Formats that are called as the library that writes them, and as the extra that brings it."""


@dataclass(frozen=True)
class Request:
    """What an export shall make of a network.

    Args:
        formats: of `FORMATS`; ONNX is always made, for it is what the others are verified by.
        precision: of weights and arithmetic, of `PRECISIONS`. tf32 is float32 whose products TensorRT rounds.
        engine: how compiled forms shall be built.
        reduction: how far reduced precision may go.
        samples: what it is calibrated and judged by; None where it is not asked for.
        progress: is told how far long work is.

    Raises:
        InputError: there is no such format or precision, or they do not go together.
        MissingExtraError: what writes a format is not installed.
    """

    formats: Sequence[str] = ("onnx",)
    precision: str = "fp32"
    engine: EngineOptions = field(default_factory=EngineOptions)
    reduction: PrecisionOptions = field(default_factory=PrecisionOptions)
    samples: Samples | None = None
    progress: Progress = untold

    def __post_init__(self) -> None:
        check_formats(self.formats, self.precision)
        check_type("samples", self.samples, Samples, type(None))
        if self.reduced and self.samples is None:
            raise InputError(
                f"{self.precision} is judged by the tasks' metrics on real pictures, and there are none: name the "
                "recipe whose data to take (--data; in Python, samples=)"
            )

    @property
    def reduced(self) -> bool:
        """Whether the network will compute something else than it was trained to."""
        return PRECISIONS[self.precision].reduced

    @property
    def compiled(self) -> tuple[str, ...]:
        """The formats besides ONNX, each once."""
        return tuple(name for name in dict.fromkeys(self.formats) if name != "onnx")

    @property
    def engine_options(self) -> EngineOptions:
        """How engines shall be built, with the library that is there for TensorRT's.

        Raises:
            InputError: that does not build for one of the GPUs.
            MissingExtraError: there is none.
        """
        if "trt" not in self.formats:
            return self.engine
        options = replace(self.engine, runtime=library(self.engine.runtime)[0], tf32=self.precision == "tf32")
        check_capabilities(options)
        return options


def check_formats(formats: Sequence[str], precision: str) -> None:
    """Raise `InputError` unless formats and precision are known and go together, and what writes them is installed."""
    _check_known("format", formats, FORMATS)
    _check_known("precision", [precision], tuple(PRECISIONS))
    if precision == "tf32" and "trt" not in formats:
        raise InputError("tf32 is how GPUs multiply in an engine of TensorRT; ask for one (--trt), or for fp32")
    whole = [name for name in formats if name in engines.FLOAT32_ONLY]
    if PRECISIONS[precision].reduced and whole:
        raise InputError(
            f"{' and '.join(whole)} are written in fp32 alone; ask for {precision} with other formats: "
            f"{', '.join(name for name in FORMATS if name not in engines.FLOAT32_ONLY)}"
        )
    for name in formats:
        if name in LIBRARIES and importlib.util.find_spec(name) is None:
            raise MissingExtraError(f"the format {name}", name, name)


def _check_known(what: str, asked: Collection[str], known: tuple[str, ...]) -> None:
    if isinstance(asked, str) or not isinstance(asked, Collection) or not asked:
        raise InputError(f"{what}s: expected a list such as {list(known)}, got {asked!r}")
    for name in asked:
        if name not in known:  # a tuple, in which values that cannot be hashed are looked up, too
            raise InputError(f"there is no {what} {name!r}; known are {', '.join(known)}{closest(name, known)}")
