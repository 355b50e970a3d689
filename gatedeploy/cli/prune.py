"""`gatedeploy prune`: collapse a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from gatedeploy.artifact import ModelInfo, read_checkpoint, read_collapsed, write_collapsed
from gatedeploy.benchmarks.layouts import Tried, check_runnable, try_layouts
from gatedeploy.cli.prune_report import (
    document,
    show,
    show_file,
    show_layout,
    show_metrics,
    show_rounded,
    show_tried,
)
from gatedeploy.cli.screen import Json, note, print_json
from gatedeploy.compiler import Collapsed, collapse, flipped, with_flipped
from gatedeploy.errors import InputError, check_known, located
from gatedeploy.files import check_writable, sha256
from gatedeploy.graph.budget import Budget
from gatedeploy.graph.prices import Prices
from gatedeploy.judging import data_for, recipe_of
from gatedeploy.milliseconds import Milliseconds
from gatedeploy.models.moe import MOE, UNDEPLOYABLE
from gatedeploy.price_tables import TARGETS, prices_of
from gatedeploy.training.finetune import finetune
from gatedeploy.training.journal import Journal

LEVELS = ("none", "default", "max")


def prune(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint that `gatedeploy train` wrote.")],
    out: Annotated[
        Path | None, typer.Option(help="The file to write.", show_default="collapsed.safetensors beside the checkpoint")
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Keep only these outputs, e.g. depth,normals.", show_default="all")
    ] = None,
    optimize: Annotated[
        str | None,
        typer.Option(
            help="none: the fewest multiply-adds. default: the layout that is predicted to be the fastest on --target. "
            "max: the fastest of several, run on this machine.",
            show_default="default; none with a --budget in multiply-adds and without --target",
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help=f"Where it is to run: {' or '.join(TARGETS)}.", show_default="cpu")
    ] = None,
    round_gates: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Flip the least sure gates so that each task keeps a whole multiple of this many channels, such as 8. "
            "The result is no longer the network that was trained.",
            show_default="gates stay as they are",
        ),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            help="Flip the least sure gates so that the collapsed network needs at most this many multiply-adds; 0.4: "
            "that share of the gated network's. depth=0.3: what the task depth may keep of its own. May be repeated. "
            "Or 2.5ms: what it may take, as predicted for --target.",
            show_default="gates stay as they are",
        ),
    ] = None,
    finetune_epochs: Annotated[
        int | None,
        typer.Option(
            "--finetune",
            min=1,
            metavar="EPOCHS",
            help="Train the collapsed network for so many epochs on the data of its recipe, and measure it.",
            show_default="none",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="RECIPE", help="The recipe on whose data --finetune trains.", show_default="its own"),
    ] = None,
    json: Json = False,
) -> None:
    """Collapse a trained gated network into one plain network with an output per task.

    Every gate becomes a constant and everything that no output needs is cut away. The result computes what the gated
    network computes; that is checked in float64 before the file is written. Only the checkpoint is needed, not the
    source code of the network.
    """
    if data is not None and finetune_epochs is None:
        raise InputError("--data does nothing without --finetune EPOCHS; ask for that, or leave it out")
    wanted = _budget(budget) if budget else None
    if optimize is None:
        # A faster layout may execute more multiply-adds than were asked for.
        optimize = "none" if isinstance(wanted, Budget) and target is None else "default"
    target = target or "cpu"
    prices = _prices(optimize, target)
    out = out or checkpoint.parent / "collapsed.safetensors"
    chosen = [task.strip() for task in tasks.split(",")] if tasks is not None else None
    read = read_checkpoint(checkpoint)
    if read.info.form == MOE:
        raise InputError(f"{checkpoint}: a mixture of experts {UNDEPLOYABLE}")
    _check_place(out)
    note(f"Collapsing {checkpoint}")
    tried: list[Tried] = []
    with located(str(checkpoint)):
        if optimize == "max" and prices is not None:
            tried = try_layouts(flipped(read.program, chosen, round_gates, wanted, prices)[0], prices, say=note)
            prices = tried[0].prices
        thin = collapse(read.program, tasks=chosen, target=prices, round_gates=round_gates, budget=wanted)
    report = thin.report
    assert report is not None
    layouts = [{"name": each.name, "ms": each.ms, "ratio": each.ratio} for each in tried]
    source = {"name": checkpoint.name, "sha256": sha256(checkpoint)}
    info = _described(read.info, thin, {"source": source, "tried": layouts})
    if finetune_epochs is not None:
        info = _finetuned(thin, info, finetune_epochs, data, str(checkpoint))
    write_collapsed(out, thin.program, info)
    if json:
        trained = {"metrics": info.metrics} if finetune_epochs is not None else {}
        print_json({**document(report), "tried": layouts, **trained, "file": str(out)})
        return
    if prices is not None:
        show_layout(report, prices, target)
    if tried:
        show_tried(tried)
    if round_gates is not None or wanted is not None:
        show_rounded(report.rounded, finetune_epochs is not None)
    show(report, read.info.form)
    if finetune_epochs is not None:
        show_metrics(read.info, info, finetune_epochs)
    show_file(info, out)


def _prices(optimize: str, target: str) -> Prices | None:
    check_known("--optimize", optimize, LEVELS)
    check_known("--target", target, TARGETS)
    if optimize == "none":
        return None
    if optimize == "max":
        check_runnable(TARGETS[target])
    return prices_of(TARGETS[target])


def _budget(asked: Sequence[str]) -> Budget | Milliseconds:
    """Milliseconds; or multiply-adds, the whole network's and those of tasks."""
    if any(each.endswith("ms") for each in asked):
        if len(asked) > 1:
            raise InputError(f"--budget {' --budget '.join(asked)}: milliseconds stand alone; name one of them")
        return Milliseconds(_amount(asked[0].removesuffix("ms"), asked[0]))
    amounts: dict[str, float] = {}
    for each in asked:
        task, _, amount = each.rpartition("=")
        if task in amounts:
            raise InputError(f"--budget {each}: stands twice; name the whole network and each task once")
        amounts[task] = _amount(amount, each)
    return Budget(amounts.pop("", None), amounts)


def _amount(text: str, asked: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise InputError(
            f"--budget {asked}: expected multiply-adds such as 8e6, a share such as 0.4, that of a task: depth=0.3, or "
            "milliseconds: 2.5ms"
        )
    return number


def _described(info: ModelInfo, thin: Collapsed, more: dict[str, Any]) -> ModelInfo:
    """What travels with the collapsed network, of what travelled with the gated one; `more` goes to its report."""
    assert thin.report is not None
    kept = [task.name for task in info.tasks if task.name in thin.program.outputs]
    collapsed = replace(info.only(kept), form="collapsed", report={**asdict(thin.report), **more})
    return with_flipped(collapsed, thin.report.rounded)


def _finetuned(thin: Collapsed, info: ModelInfo, epochs: int, data: str | None, source: str) -> ModelInfo:
    """Train the collapsed network on, in place; what travels with it then, with its new metrics."""
    recipe, named = recipe_of(info.recipe, data, source)
    pictures = data_for(recipe, named, info.tasks, info.input)
    trained = finetune(thin.network, info.tasks, recipe, pictures, epochs, Journal(tensorboard=False))
    return replace(info, metrics=trained.metrics, report={**info.report, "finetuned_epochs": epochs})


def _check_place(out: Path) -> None:
    """Raise `InputError` unless `out` is free, or a collapsed network that may be replaced."""
    if out.is_file():
        try:
            read_collapsed(out)
        except InputError as error:
            raise InputError(
                f"--out {out}: exists and is no collapsed network, so it would be lost; name another ({error})"
            ) from None
    check_writable(out)
