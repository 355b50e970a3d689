"""`gd.save` and `gd.load`: put any of our networks on the disk and get it back without its source code."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from torch import Tensor, nn

from gatedeploy.artifact import (
    ModelInfo,
    check_fits,
    describe,
    info_of,
    is_checkpoint,
    names_only,
    read_checkpoint,
    read_collapsed,
    write_checkpoint,
    write_collapsed,
)
from gatedeploy.compiler import Collapsed
from gatedeploy.errors import InputError, check_type
from gatedeploy.graph.capture import capture
from gatedeploy.graph.modules import network


def save(
    net: nn.Module, path: Path | str, *, example_input: Tensor | None = None, info: ModelInfo | None = None
) -> None:
    """Save a gated or collapsed network so that `load` needs no source code of it.

    Args:
        net: a `Collapsed` network or its `network` (written as safetensors), or a gated one (written as a checkpoint).
        path: the file; complete when it appears under this name.
        example_input: (batch, channels, height, width); needed for a network that `gate`, `collapse` or `load` did not
            make.
        info: what shall travel with it: tasks, preprocessing, metrics. What the network knows of them when None.

    Raises:
        InputError: the network cannot be saved: it calls what a saved graph may not call.
    """
    known = info_of(net)
    check_type("info", info, ModelInfo, type(None))
    if isinstance(net, Collapsed):
        program = net.program
        info = info or known or names_only(program)
        check_fits(info, program)
        report = asdict(net.report) if net.report else info.report
        write_collapsed(path, program, replace(info, form="collapsed", report=report))
        return
    if example_input is None:
        if known is None:
            raise InputError(f"saving a {type(net).__name__} needs an example_input to see how it runs")
        example_input = next(net.parameters()).new_zeros(2, *known.input.shape)
    program = capture(net, example_input, info.input if info else None)
    if info is not None:
        check_fits(info, program)
    else:
        info = replace(known, input=program.input) if known else names_only(program)
    if known and known.form == "collapsed":
        write_collapsed(path, program, replace(info, form="collapsed"))
    else:
        write_checkpoint(path, program, info)


def load(path: Path | str) -> nn.Module:
    """The network in a file that `save`, `gatedeploy train` or `gatedeploy prune` wrote; never runs code from it.

    Returns:
        A `Collapsed` network, or for a checkpoint a module that computes the network in evaluation mode and that
        `collapse` takes. Tasks, preprocessing and recipe come with it, through training, and `collapse`, `save` and
        `export` keep them. Metrics and report stay in the file: they speak of the weights in it.

    Raises:
        InputError: the file is damaged or something else.
    """
    if is_checkpoint(path):
        read = read_checkpoint(path)
        loaded = network(read.program)
        describe(loaded, _of_any_weights(read.info))
        return loaded
    program, info = read_collapsed(path)
    return Collapsed(program, info=_of_any_weights(info))


def _of_any_weights(info: ModelInfo) -> ModelInfo:
    return replace(info, metrics={}, report={})
