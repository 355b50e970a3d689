"""`gd.save` and `gd.load`: put any of our networks on the disk and get it back without its source code."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from torch import Tensor, nn

from gatedeploy.artifact import (
    ModelInfo,
    is_checkpoint,
    read_checkpoint,
    read_collapsed,
    write_checkpoint,
    write_collapsed,
)
from gatedeploy.compiler import Collapsed
from gatedeploy.errors import InputError
from gatedeploy.gating.network import GatedNetwork
from gatedeploy.graph.capture import capture
from gatedeploy.graph.modules import network
from gatedeploy.specs import Task


def save(
    net: nn.Module, path: Path | str, *, example_input: Tensor | None = None, info: ModelInfo | None = None
) -> None:
    """Save a gated or collapsed network so that `load` needs no source code of it.

    Args:
        net: a `Collapsed` network (written as safetensors), or a gated one (written as a checkpoint).
        path: the file; complete when it appears under this name.
        example_input: (batch, channels, height, width); needed for a gated network that `gate` did not make.
        info: what shall travel with it: tasks, preprocessing, metrics. Made from the network when None.

    Raises:
        InputError: the network cannot be saved: it calls what a saved graph may not call.
    """
    if isinstance(net, Collapsed):
        program = net.program
        info = info or ModelInfo(tuple(Task(name) for name in program.outputs), program.input)
        report = asdict(net.report) if net.report else info.report
        write_collapsed(path, program, replace(info, form="collapsed", report=report))
        return
    if example_input is None:
        if not isinstance(net, GatedNetwork):
            raise InputError(f"saving a {type(net).__name__} needs an example_input to see how it runs")
        example_input = next(net.parameters()).new_zeros(2, *net.input.shape)
    program = capture(net, example_input, info.input if info else None)
    tasks = net.tasks if isinstance(net, GatedNetwork) else tuple(Task(name) for name in program.outputs)
    write_checkpoint(path, program, info or ModelInfo(tasks, program.input))


def load(path: Path | str) -> nn.Module:
    """The network in a file that `save`, `gatedeploy train` or `gatedeploy prune` wrote; never runs code from it.

    Returns:
        A `Collapsed` network, or for a checkpoint a module that computes the network in evaluation mode and that
        `collapse` takes.

    Raises:
        InputError: the file is damaged or something else.
    """
    if is_checkpoint(path):
        return network(read_checkpoint(path).program)
    program, _ = read_collapsed(path)
    return Collapsed(program)
