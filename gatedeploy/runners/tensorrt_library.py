"""TensorRT and TensorRT for RTX: one programming interface, two libraries."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from functools import cache
from typing import Any

import torch

from gatedeploy.errors import MissingExtraError, check_known
from gatedeploy.runners.base import TensorSpec, with_free_sizes

LIBRARIES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""What a runtime's library is called when it is imported; the extras are called as the runtimes."""


def library(runtime: str | None) -> tuple[str, Any]:
    """The runtime that shall build or run engines, and its library.

    Args:
        runtime: "tensorrt" or "tensorrt-rtx". None: what is installed; of both, the one that needs no GPU to build
            where there is none.

    Raises:
        InputError: no such runtime.
        MissingExtraError: it is not installed.
    """
    if runtime is not None:
        check_known("the TensorRT runtime", runtime, LIBRARIES)
    wanted = [runtime] if runtime else sorted(LIBRARIES, reverse=not torch.cuda.is_available())
    for name in wanted:
        try:
            return name, importlib.import_module(LIBRARIES[name])
        except ImportError:
            continue
    raise MissingExtraError("a TensorRT engine", LIBRARIES[wanted[0]], wanted[0])


@cache
def messages_of(trt: Any) -> Any:
    """The one logger that a process may give to this library; `lines` collects what goes wrong."""

    class Messages(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.lines.append(message)

    return Messages()


def said_by(trt: Any, otherwise: str = "") -> str:
    """What the library's logger has collected, for it raises nothing."""
    lines = messages_of(trt).lines
    return "; ".join(line.strip() for line in lines) or otherwise or "it does not say why"


def port(name: str, sizes: Iterable[int], dtype: Any) -> TensorSpec:
    """What goes into a network of the library's or comes out of it."""
    return TensorSpec(name, with_free_sizes(sizes), type_name(dtype))


def type_name(dtype: Any) -> str:
    """Numpy's name of one of the library's types; `float8` and `bfloat16`, for which numpy has none."""
    names = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "FP8": "float8"}
    return names.get(dtype.name, str(dtype.name).lower())
