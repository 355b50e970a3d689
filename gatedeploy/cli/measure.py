"""`gatedeploy flops` and `gatedeploy bench`: what networks cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gatedeploy.benchmarks.bench import bench as measure
from gatedeploy.benchmarks.bench_options import BenchOptions
from gatedeploy.benchmarks.flops import Costs, file_costs, recipe_costs
from gatedeploy.benchmarks.latency_sections import baseline_title
from gatedeploy.benchmarks.measured import BASELINE
from gatedeploy.benchmarks.report import CandidateReport, Report
from gatedeploy.benchmarks.runners import RUNTIME, RUNTIMES
from gatedeploy.benchmarks.words import NOISY, three_digits, told
from gatedeploy.cli.screen import Json, count, note, note_bundled, print_json, say, table
from gatedeploy.errors import CheckError
from gatedeploy.training.recipe_file import bundled_recipes, load_recipe

FORMS = {
    "stl": "single-task nets, together",
    "mtl": "one shared encoder",
    "gated": "gated, as trained",
    "collapsed": "collapsed",
}


def flops(
    source: Annotated[
        str,
        typer.Argument(
            help="A checkpoint, a collapsed network, a bundle, the folder of a training, or a recipe: a YAML file or "
            "the name of a bundled one."
        ),
    ],
    json: Json = False,
) -> None:
    """Count multiply-adds and parameters of a network and of what it replaces.

    Shows single-task networks together, one shared encoder with a head per task, the gated network as trained, and
    what it collapses to, as far as they are known: a recipe does not know yet what training will leave, a bundle only
    what it was made of. "to shared" is the ratio of multiply-adds to those of the one shared encoder.

    Counted with fvcore for one picture; 1 MAC is one multiply-add, so 2 MACs are what some papers call 2 FLOPs.
    Convolutions and linear layers count; norms are folded everywhere but in the gated network as trained.
    """
    note_bundled(source)
    costs = _recipe(source) if _is_recipe(source) else file_costs(source)
    if json:
        print_json(costs)
        return
    shared = costs.get("mtl", {}).get("macs", 0)
    rows = []
    for form, cost in costs.items():
        ratio = [f"{cost['macs'] / shared:.2f}"] if shared else []
        parts = ", ".join(f"{name} {count(macs)}" for name, macs in cost["per_operator"].items())
        rows.append([FORMS[form], count(cost["macs"]), *ratio, count(cost["params"]), parts])
    table(["", "MACs", *(["to shared"] if shared else []), "parameters", "by operator"], rows)
    for form, cost in costs.items():
        if cost.get("unsupported"):
            say(f"Not counted in {FORMS[form]}: {', '.join(cost['unsupported'])}.")


def _is_recipe(source: str) -> bool:
    return source in bundled_recipes() or Path(source).suffix in (".yaml", ".yml")


def _recipe(source: str) -> Costs:
    return recipe_costs(load_recipe(source), source)


def bench(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Checkpoints, collapsed networks, bundles, or folders of a training for its checkpoints."),
    ],
    quick: Annotated[
        bool, typer.Option("--quick", help="Measure each latency for seconds rather than minutes.")
    ] = False,
    threads: Annotated[
        int, typer.Option(help="Threads for one request, at most one per core.", min=1, metavar="NUMBER")
    ] = 1,
    runtime: Annotated[str, typer.Option(help=f"What runs the networks: {' or '.join(RUNTIMES)}.")] = RUNTIME,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Measure the gated network in torch.compile, too: a minute more.")
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="RECIPE", help="Whose pictures to show predictions for.", show_default="the network's own recipe"
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            help="An earlier report.json: tell what got slower, and exit with 1 if anything did.", show_default=False
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="The report's folder; a report there is replaced.")] = Path("report"),
    json: Json = False,
) -> None:
    """Measure latency and costs beside what you would run instead, and write a report.

    One request is one picture in and the predictions of all tasks out. It is timed in ONNX Runtime, in turns in one
    process, for the networks that you name and for their rivals: single-task networks one after the other, one shared
    encoder with a head per task, a mixture of experts asked once per task, and the gated network as trained.

    Rivals that a folder of a training holds are taken from it. Others are read off the gated network or built from its
    recipe, so name its checkpoint: a bundle alone has no rivals. The report tells which are missing and why.

    "to shared" is the ratio to the one shared encoder: with 1.50 it takes half as much again. Writes report.html,
    report.md and report.json.
    """
    report = measure(paths, out, BenchOptions(quick, threads, runtime, compiled, data=data, against=against), say=note)
    if json:
        print_json(report.plain())
    else:
        show_report(report, out)
    if report.against is not None and report.against.slower:
        told = [f"{each.candidate} by {each.factor - 1:.0%}" for each in report.against.slower]
        raise CheckError(f"slower than in {against}: {', '.join(told)}")


def show_report(report: Report, out: Path) -> None:
    """The comparison as a table, and where the whole of it lies."""
    beside = "to shared" if report.baseline == BASELINE else f"to {baseline_title(report)}"
    ratio = [beside] if report.compares else []
    table(["one request", "MACs", *ratio, "milliseconds", *ratio], [_row(report, each) for each in report.candidates])
    if report.missing:
        say(f"Not complete: {', '.join(report.missing)} is missing.")
    for text in report.notes:
        say(f"Note: {text}")
    for warning in report.warnings:
        say(f"Warning: {warning}")
    say(f"Report: {out / 'report.html'}")


def _row(report: Report, candidate: CandidateReport) -> list[str]:
    macs = "" if candidate.macs_ratio is None else f"{candidate.macs_ratio:.2f}"
    return [
        *(candidate.title, count(candidate.cost.macs), *([macs] if report.compares else [])),
        NOISY if candidate.told_ms is None else three_digits(candidate.told_ms),
        *([told(candidate.ratio)] if report.compares else []),
    ]
