"""What `torch.fx` does not see while it traces: chance, automatic precision, and backward passes of one's own."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.fx.proxy import TraceError
from torch.utils import _pytree as pytree


class Surroundings:
    """Notices what a trace would lose: numbers that are drawn while it runs would be the same for ever."""

    def __init__(self) -> None:
        self._chance = _chance()
        self._precision = _precision()

    def check(self) -> None:
        """Raise `TraceError` if anything was drawn, or another precision is in force than in the beginning."""
        if _precision() != self._precision:
            raise TraceError("it switches torch.autocast, which torch.fx does not see; switch it around the network")
        for source, state in _chance().items():
            if state != self._chance[source]:
                raise TraceError(
                    f"here or in the lines before, it draws random numbers from {source}, which would be drawn once, "
                    "for ever; draw them by a function of the picture, such as torch.rand_like, torch.rand(x.shape[0]) "
                    "or F.dropout"
                )


def _chance() -> dict[str, bytes]:
    """The states of what random numbers are drawn from."""
    return {
        "PyTorch": torch.get_rng_state().numpy().tobytes(),
        "NumPy": pickle.dumps(np.random.get_state()),
        "Python": pickle.dumps(random.getstate()),
    }


def _precision() -> tuple[bool, bool]:
    return torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")


@contextmanager
def functions_recorded(tracer: fx.Tracer) -> Iterator[None]:
    """Record calls of a `torch.autograd.Function` as such: what is in its forward has another backward on its own."""
    given = torch.autograd.Function.__dict__["apply"]

    def apply(cls: type[torch.autograd.Function], *args: Any, **kwargs: Any) -> Any:
        if any(isinstance(part, fx.Proxy) for part in pytree.tree_leaves((args, kwargs))):
            return tracer.create_proxy("call_function", _call_of(cls), args, kwargs)
        return given.__func__(cls, *args, **kwargs)

    torch.autograd.Function.apply = classmethod(apply)  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        torch.autograd.Function.apply = given  # type: ignore[method-assign]


@cache
def _call_of(cls: type[torch.autograd.Function]) -> Any:
    """A function that stands for the class in a graph, always the same."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return cls.apply(*args, **kwargs)  # type: ignore[no-untyped-call]

    call.__name__ = call.__qualname__ = cls.__name__
    return call
