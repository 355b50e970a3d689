"""A training step as machine code: what `torch.compile` needs to know of ours."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch._functorch import config

from gatedeploy.errors import InputError

BACKEND = "inductor"

_COMPILERS = ("g++", "clang++", "cl")


def compiled(function: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """A function or module that does the same on `device`, compiled when it is first called, for inputs of one size.

    Raises:
        InputError: there is no C++ compiler.
    """
    if BACKEND == "inductor" and not any(shutil.which(name) for name in (os.environ.get("CXX", ""), *_COMPILERS)):
        raise InputError(
            f"train.compile: torch.compile needs a C++ compiler, and here is neither {' nor '.join(_COMPILERS)}; "
            "install one, or leave train.compile out"
        )
    config.donated_buffer = False  # of several losses each may go backward by itself through what they share
    # Inductor would choose channels last, in which oneDNN writes past its workspace: backward through 1×1 convolutions
    # with strides and fewer than 16 input channels (https://github.com/uxlfoundation/oneDNN/issues/6035).
    keeps_layout = BACKEND == "inductor" and device.type == "cpu"
    options: dict[str, Any] | None = {"layout_optimization": False} if keeps_layout else None
    made: Callable[..., Any] = torch.compile(function, backend=BACKEND, dynamic=False, options=options)
    return made
