"""TensorRT and TensorRT for RTX: one programming interface, two libraries."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from gatedeploy.errors import MissingExtraError, check_known

LIBRARIES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""What a runtime's library is called when it is imported; the extras are called as the runtimes."""

Progress = Callable[[str, int, int], None]
"""Is told a phase, how many of its steps are done, and how many there are."""


def untold(phase: str, done: int, steps: int) -> None:
    """The progress of a build that nobody watches."""


def library(runtime: str | None) -> tuple[str, Any]:
    """The runtime that shall build engines, and its library.

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
    raise MissingExtraError("building an engine", LIBRARIES[wanted[0]], wanted[0])


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


def monitor_of(trt: Any, progress: Progress) -> Any:
    """What a build tells its progress to; once its `cancelled` is set, the build ends."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.cancelled = False
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            progress(phase_name, 0, num_steps)

        def phase_finish(self, phase_name: str) -> None:
            steps = self._steps.pop(phase_name, 0)
            progress(phase_name, steps, steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(phase_name, step + 1, self._steps.get(phase_name, step + 1))
            return not self.cancelled

    return Monitor()
