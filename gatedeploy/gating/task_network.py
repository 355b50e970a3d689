"""What every network that is trained for several tasks can be asked: a picture in, one prediction per task out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from gatedeploy.artifact import ModelInfo
from gatedeploy.errors import InputError
from gatedeploy.specs import InputSpec, Task


class TaskNetwork(nn.Module):
    """Abstract: whoever derives from it has a forward.

    Attributes:
        tasks: what it predicts.
        input: the picture it takes.
        heads: the tasks' heads, by task.
    """

    def __init__(self, tasks: tuple[Task, ...], input: InputSpec, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.tasks = tasks
        self.input = input
        self.heads = container(heads)

    def check(self, image: Tensor) -> None:
        """Raise `InputError` unless it is a batch of pictures with as many channels as expected."""
        known = isinstance(image, Tensor)  # torch.fx asks with something that has no shape
        if known and (image.ndim != 4 or image.shape[1] != self.input.channels):
            raise InputError(
                f"expected a batch of pictures (batch, {self.input.channels}, height, width), got {tuple(image.shape)}"
            )

    @property
    def info(self) -> ModelInfo:
        """What travels with it."""
        return ModelInfo(self.tasks, self.input)

    def gate_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters that have an optimiser of their own; none, unless the network has gates."""
        yield from ()

    def weight_parameters(self) -> Iterator[nn.Parameter]:
        """Everything else."""
        yield from self.parameters()

    def at(self, share: float) -> None:
        """Before a step of a training of which this share is done, in [0, 1); most networks do not change with it."""

    def penalty(self) -> Tensor:
        """What the method adds to the tasks' losses: a scalar, without gradient where it is nothing."""
        return torch.zeros((), device=next(self.parameters()).device)

    def decided(self) -> tuple[str, dict[str, float]] | None:
        """What training has decided so far: its name, and a number for each task; None where there is no such thing."""
        return None


def container(modules: Mapping[str, nn.Module]) -> nn.Module:
    """A module that holds modules by task name.

    Raises:
        InputError: a task has the name of something that every module has.
    """
    holder = nn.Module()
    for name, module in modules.items():
        if hasattr(holder, name):
            raise InputError(f"task name {name!r} is an attribute of torch.nn.Module; choose another")
        holder.add_module(name, module)
    return holder
