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


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function or module that does the same, compiled when it is first called, for inputs of one size.

    Raises:
        InputError: there is no C++ compiler.
    """
    if BACKEND == "inductor" and not any(shutil.which(name) for name in (os.environ.get("CXX", ""), *_COMPILERS)):
        raise InputError(
            f"train.compile: torch.compile needs a C++ compiler, and here is neither {' nor '.join(_COMPILERS)}; "
            "install one, or leave train.compile out"
        )
    config.donated_buffer = False  # of several losses each may go backward by itself through what they share
    # Channels last would be Inductor's choice, in which oneDNN writes past its workspace: backward through convolutions
    # of 1×1 with strides and less than 16 input channels (https://github.com/uxlfoundation/oneDNN/issues/6035).
    options: dict[str, Any] | None = {"layout_optimization": False} if BACKEND == "inductor" else None
    made: Callable[..., Any] = torch.compile(function, backend=BACKEND, dynamic=False, options=options)
    return made
