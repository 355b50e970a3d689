"""`gatedeploy inspect`: what a file holds, and how its tasks share."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from gatedeploy.artifact import ModelInfo, is_checkpoint, read_checkpoint, read_collapsed
from gatedeploy.benchmarks.anatomy import anatomy_page
from gatedeploy.benchmarks.sharing import sharing_table, sites_from_plain, write_sharing
from gatedeploy.cli.screen import Json, count, note, print_json, say, table
from gatedeploy.compiler import collapse
from gatedeploy.errors import InputError, located
from gatedeploy.exporters.reading import read_bundle
from gatedeploy.files import check_kept, check_writable, write_text
from gatedeploy.graph.build import channel_graph
from gatedeploy.graph.cost import Cost, cost
from gatedeploy.graph.shares import SiteShare, site_shares
from gatedeploy.program import Program


def inspect(
    file: Annotated[Path, typer.Argument(help="A checkpoint, a collapsed network or a bundle.")],
    picture: Annotated[
        Path | None, typer.Option(help="Draw how the tasks share, as an .svg or .png file.", show_default="none")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            help="Draw the collapsed network as a page: which branches live where, how wide, by which kernels. A "
            "checkpoint is collapsed for that, as prune does.",
            show_default="none",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show what a file holds: tasks, costs, and how much each task shares at each site.

    Per site: how many channels each task keeps for itself, and its share in the mix that feeds the shared branch.
    """
    for drawn in (picture, html):
        if drawn is not None:
            check_kept(drawn, file)
            check_writable(drawn)
    if html is not None:
        _draw(file, html)
    if file.is_dir():
        _bundle(file, json)
        return
    if is_checkpoint(file):
        checkpoint = read_checkpoint(file)
        program, info = checkpoint.program, checkpoint.info
        sites = site_shares(program)
    else:
        program, info = read_collapsed(file)
        with located(str(file)):
            sites = sites_from_plain(info.report.get("sites", []))
    # Of a collapsed network, those that its collapse met: what it is made of now was chosen, not met.
    barriers = info.report.get("barriers", {}) if info.form == "collapsed" else channel_graph(program).barriers
    counted = cost(program)
    if picture is not None:
        write_sharing(sites, picture)
    if json:
        print_json(_document(program, info, counted, barriers, sites))
    else:
        _show(file, info, counted, barriers, sites)
        if picture is not None:
            say(f"Wrote {picture}")


def _draw(file: Path, page: Path) -> None:
    if file.is_dir():
        read_bundle(file)
        raise InputError(
            f"{file}: a bundle holds ONNX, which does not tell what was laid out how; name the collapsed.safetensors "
            "that it was made of"
        )
    if is_checkpoint(file):
        read = read_checkpoint(file)
        with located(str(file)):
            thin = collapse(read.program)
        assert thin.report is not None
        program, info = thin.program, replace(read.info, report=asdict(thin.report))
    else:
        program, info = read_collapsed(file)
    with located(str(file)):
        write_text(page, anatomy_page(program, info, file.name))
    note(f"Wrote {page}")


def _document(
    program: Program, info: ModelInfo, counted: Cost, barriers: dict[str, int], sites: list[SiteShare]
) -> dict[str, Any]:
    return {
        "form": info.form,
        "tasks": [asdict(task) for task in info.tasks],
        "input": asdict(program.input),
        "cost": asdict(counted),
        "flipped_gates": info.flipped_gates,
        "metrics": info.metrics,
        "sites": [asdict(site) for site in sites],
        "barriers": barriers,
    }


def _show(file: Path, info: ModelInfo, counted: Cost, barriers: dict[str, int], sites: list[SiteShare]) -> None:
    channels, height, width = info.input.shape
    say(
        f"{file}: {info.form}, {count(counted.macs)} MACs, {count(counted.params)} parameters, "
        f"reads {channels}×{height}×{width}"
    )
    rows = []
    for task in info.tasks:
        reached = ", ".join(f"{name} {value:.4g}" for name, value in info.metrics.get(task.name, {}).items())
        rows.append([task.name, task.kind or "", str(len(task.classes) or ""), reached])
    table(["task", "kind", "classes", "reached"], rows)
    _show_flipped(info.flipped_gates)
    if sites:
        shown = sharing_table(sites)
        table(shown.columns, shown.rows)
        method = info.recipe.get("method")
        if isinstance(method, dict) and method.get("name") == "adashare":
            say("Specific here: the channels of a block that the task runs; 0 where it takes the block's shortcut.")
        for site in sites:
            if site.public:
                public = ", ".join(f"{task} {alpha:.4f}" for task, alpha in site.public.items())
                say(f"Safe MTL's α at {site.site}, where 1 is all of the public one: {public}.")
    if barriers:
        met = ", ".join(f"{name} ({times}×)" for name, times in barriers.items())
        say(f"Operators that no rule takes apart: {met}.")


def _show_flipped(count: int) -> None:
    if count:
        say(
            f"After it was trained, {count:,} of its gates' choices were flipped: "
            "it is not the network that was trained."
        )


def _bundle(folder: Path, json: bool) -> None:
    bundle = read_bundle(folder)
    manifest = bundle.manifest
    if json:
        print_json({"form": "bundle", **asdict(manifest)})
        return
    say(
        f"{folder}: bundle with {', '.join(manifest.formats)}; {count(manifest.costs.macs)} MACs, "
        f"{count(manifest.costs.params)} parameters"
    )
    rows = [[task.name, task.kind or "", str(len(task.classes) or "")] for task in manifest.tasks]
    table(["task", "kind", "classes"], rows)
    _show_flipped(manifest.flipped_gates)
