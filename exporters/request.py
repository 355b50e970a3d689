"""What an export is asked for, checked before any work is done."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from gatedeploy.errors import InputError, MissingExtraError, closest
from gatedeploy.exporters import engines
from gatedeploy.exporters.precision import REDUCED, PrecisionOptions
from gatedeploy.exporters.progress import Progress, untold
from gatedeploy.exporters.samples import Samples
from gatedeploy.exporters.to_tensorrt import EngineOptions
from gatedeploy.runners.tensorrt_library import library

FORMATS = ("onnx", *engines.FORMATS)
PRECISIONS = ("fp32", "tf32", *REDUCED)
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
        _check_known("format", self.formats, FORMATS)
        _check_known("precision", [self.precision], PRECISIONS)
        if self.precision == "tf32" and "trt" not in self.formats:
            raise InputError("tf32 is how GPUs multiply in an engine of TensorRT; ask for one (--trt), or for fp32")
        whole = [name for name in self.formats if name in engines.FLOAT32_ONLY]
        if self.reduced and whole:
            raise InputError(
                f"{' and '.join(whole)} are written in fp32 alone; ask for {self.precision} with other formats: "
                f"{', '.join(name for name in FORMATS if name not in engines.FLOAT32_ONLY)}"
            )
        if self.reduced and self.samples is None:
            raise InputError(
                f"{self.precision} is judged by the tasks' metrics on real pictures, and there are none: name the "
                "recipe whose data to take (--data; in Python, samples=)"
            )
        for name in self.formats:
            if name in LIBRARIES and importlib.util.find_spec(name) is None:
                raise MissingExtraError(f"the format {name}", name, name)

    @property
    def reduced(self) -> bool:
        """Whether the network will compute something else than it was trained to."""
        return self.precision in REDUCED

    @property
    def compiled(self) -> tuple[str, ...]:
        """The formats besides ONNX, each once."""
        return tuple(name for name in dict.fromkeys(self.formats) if name != "onnx")

    @property
    def engine_options(self) -> EngineOptions:
        """How engines shall be built, with the library that is there for TensorRT's."""
        if "trt" not in self.formats:
            return self.engine
        return replace(self.engine, runtime=library(self.engine.runtime)[0], tf32=self.precision == "tf32")


def _check_known(what: str, asked: Sequence[str], known: Sequence[str]) -> None:
    if isinstance(asked, str) or not asked:
        raise InputError(f"{what}s: expected a list such as {list(known)}, got {asked!r}")
    for name in asked:
        if name not in known:
            raise InputError(f"there is no {what} {name!r}; known are {', '.join(known)}{closest(name, tuple(known))}")
