"""`gatedeploy prune`: collapse a checkpoint."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from gatedeploy.artifact import ModelInfo, read_checkpoint, read_collapsed, write_collapsed
from gatedeploy.benchmarks.layouts import Tried, check_runnable, try_layouts
from gatedeploy.cli.screen import Json, count, note, print_json, say, table
from gatedeploy.compiler import Collapsed, CollapseReport, collapse, flipped, with_flipped
from gatedeploy.errors import InputError, check_known, located
from gatedeploy.files import check_writable, sha256
from gatedeploy.graph.budget import Budget
from gatedeploy.graph.choices import SiteChoice, TensorChoice
from gatedeploy.graph.flips import Rounded
from gatedeploy.graph.prices import Prices
from gatedeploy.price_tables import TARGETS, own_table, prices_of
from gatedeploy.program import Program, with_tasks

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
        str,
        typer.Option(
            help="none: the fewest multiply-adds. default: the layout that is predicted to be the fastest on --target. "
            "max: the fastest of several, run on this machine."
        ),
    ] = "default",
    target: Annotated[str, typer.Option(help=f"Where it is to run: {' or '.join(TARGETS)}.")] = "cpu",
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
            "that share of the gated network's. depth=0.3: what the task depth may keep of its own. May be repeated.",
            show_default="gates stay as they are",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Collapse a trained gated network into one plain network with an output per task.

    Every gate becomes a constant and everything that no output needs is cut away. The result computes what the gated
    network computes; that is checked in float64 before the file is written. Only the checkpoint is needed, not the
    source code of the network.
    """
    prices = _prices(optimize, target)
    wanted = _budget(budget) if budget else None
    out = out or checkpoint.parent / "collapsed.safetensors"
    chosen = [task.strip() for task in tasks.split(",")] if tasks is not None else None
    read = read_checkpoint(checkpoint)
    _check_place(out)
    note(f"Collapsing {checkpoint}")
    tried: list[Tried] = []
    with located(str(checkpoint)):
        if optimize == "max" and prices is not None:
            tried = _tried(flipped(read.program, round_gates, wanted)[0], chosen, prices)
            prices = tried[0].prices
        thin = collapse(read.program, tasks=chosen, target=prices, round_gates=round_gates, budget=wanted)
    assert thin.report is not None
    layouts = [{"name": each.name, "ms": each.ms, "ratio": each.ratio} for each in tried]
    source = {"name": checkpoint.name, "sha256": sha256(checkpoint)}
    info = _described(read.info, thin, {"source": source, "tried": layouts})
    write_collapsed(out, thin.program, info)
    if json:
        print_json({**_document(thin.report), "tried": layouts, "file": str(out)})
        return
    if prices is not None:
        _show_layout(thin.report, prices, target)
    if tried:
        _show_tried(tried)
    if round_gates is not None or wanted is not None:
        _show_rounded(thin.report.rounded)
    _show(thin.report, read.info.form, info, out)


def _prices(optimize: str, target: str) -> Prices | None:
    check_known("--optimize", optimize, LEVELS)
    check_known("--target", target, TARGETS)
    if optimize == "none":
        return None
    if optimize == "max":
        check_runnable(TARGETS[target])
    return prices_of(TARGETS[target])


def _budget(asked: Sequence[str]) -> Budget:
    """The whole network's and those of tasks."""
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
            f"--budget {asked}: expected multiply-adds such as 8e6, a share such as 0.4, or that of a task: depth=0.3"
        )
    return number


def _tried(program: Program, tasks: list[str] | None, prices: Prices) -> list[Tried]:
    """Several layouts, run here; the fastest first."""
    return try_layouts(program if tasks is None else with_tasks(program, tasks), prices, say=note)


def _described(info: ModelInfo, thin: Collapsed, more: dict[str, Any]) -> ModelInfo:
    """What travels with the collapsed network, of what travelled with the gated one; `more` goes to its report."""
    assert thin.report is not None
    kept = [task.name for task in info.tasks if task.name in thin.program.outputs]
    collapsed = replace(info.only(kept), form="collapsed", report={**asdict(thin.report), **more})
    return with_flipped(collapsed, thin.report.rounded)


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


def _document(report: CollapseReport) -> dict[str, Any]:
    return {
        "gated": asdict(report.gated),
        "collapsed": asdict(report.collapsed),
        "parity": {
            "float64": {"error": report.parity.error, "tolerance": report.parity.tolerance},
            "float32": {"error": report.parity_float32.error, "tolerance": report.parity_float32.tolerance},
        },
        "sites": [asdict(site) for site in report.sites],
        "barriers": report.barriers,
        "fewest_macs": report.fewest_macs,
        "layout": [_site(site) for site in report.layout],
        "rounded_gates": [asdict(gate) for gate in report.rounded],
        "seconds": report.seconds,
    }


def _site(site: SiteChoice) -> dict[str, Any]:
    told = {"ms": site.ms, "tactics": site.tactics, "kernels": site.kernels, "copied_bytes": site.copied_bytes}
    return {**asdict(site), **told}


def _show_tried(tried: Sequence[Tried]) -> None:
    """The layouts that were run, and which it is."""
    names = ["layout", "ms, measured here", "÷ as predicted"]
    table(names, [[each.name, f"{each.ms:.3f}", f"{each.ratio:.3f}"] for each in tried])
    say("The first was the fastest, run in turns, and is the one that was kept.")


def _show_layout(report: CollapseReport, prices: Prices, target: str) -> None:
    """Layer by layer: which tensors it makes, by what, and what that is predicted to cost."""
    rows = [
        [
            ", ".join(site.layers),
            " | ".join(_channels(tensor) for tensor in site.tensors),
            ", ".join(f"{count} {tactic}" for tactic, count in site.tactics.items()),
            *(f"{site.ms:.3f}", f"{site.plain_ms:.3f}", f"{site.kernels}", f"{site.copied_bytes:,}"),
        ]
        for site in report.layout
    ]
    total = [sum(site.ms for site in report.layout), sum(site.plain_ms for site in report.layout)]
    kernels, copied = (sum(getattr(site, name) for site in report.layout) for name in ("kernels", "copied_bytes"))
    rows.append(["", "", "", *(f"{ms:.3f}" for ms in total), f"{kernels}", f"{copied:,}"])
    headings = ["layer", "tensors and their channels", "kernels read", "ms", "plain, ms", "kernels", "bytes copied"]
    table(headings, rows)
    more = report.collapsed.macs / report.fewest_macs - 1
    own = own_table(prices.target)
    measured = f"measured on this machine ({own})" if own.is_file() else "that come with gatedeploy"
    where = target if target == prices.target else f"{target} ({prices.target})"
    say(
        f"Milliseconds are predicted for {where}, by prices {measured}: {prices.machine}. They are those of layers, "
        "additions and mixes; activations, pooling and whatever is kept whole come on top. Plain is one tensor per "
        f"layer and branch. {more:.1%} more multiply-adds are executed than the fewest."
    )


def _show_rounded(rounded: Sequence[Rounded]) -> None:
    if not rounded:
        say("No gate had to be flipped: the network is as asked for already.")
        return
    names = ["gate", "channels kept by the task", "rounded", "choices flipped"]
    table(names, [[gate.gate, *map(str, (gate.before, gate.after, gate.flipped))] for gate in rounded])
    flipped = sum(gate.flipped for gate in rounded)
    what = "1 choice of a gate was" if flipped == 1 else f"{flipped:,} choices of gates were"
    say(
        f"{what} flipped, the least sure first: this is no longer the network that was trained. What it reaches has to "
        "be measured anew, and the file has no metrics; what follows compares it with the gated network whose gates "
        "are flipped too."
    )


def _channels(tensor: TensorChoice) -> str:
    return "+".join(f"{rows} {branch}".rstrip() for branch, rows in tensor.rows.items())


def _show(report: CollapseReport, form: str, info: ModelInfo, out: Path) -> None:
    rows = [
        [name, f"{count(cost.macs)}", f"{count(cost.params)}"]
        for name, cost in ((f"{form}, as trained", report.gated), ("collapsed", report.collapsed))
    ]
    table(["", "MACs", "parameters"], rows)
    worst = max(report.parity.error.values())
    trained = f"the {form} network with flipped gates" if report.rounded else f"the {form} network"
    say(
        f"The same as {trained} to {worst:.1e} of the outputs' scale in float64; "
        f"{report.collapsed.macs / report.gated.macs:.1%} of the multiply-adds are left."
    )
    if report.barriers:
        met = ", ".join(f"{name} ({times}×)" for name, times in report.barriers.items())
        say(f"No rule takes these operators apart, what feeds them was kept whole: {met}.")
    names = ", ".join(task.name for task in info.tasks)
    say(f"Wrote {out} ({names}). Next: gatedeploy export {shlex.quote(str(out))} --onnx")
