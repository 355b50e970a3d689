"""`gatedeploy sweep`: train a recipe at many points, and see what accuracy each cost buys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gatedeploy.benchmarks.pareto import front
from gatedeploy.cli.screen import Json, note, note_bundled, print_json, say, table
from gatedeploy.errors import CheckError, InputError
from gatedeploy.sweep.pages import command_line
from gatedeploy.sweep.pages import table as rows_of
from gatedeploy.sweep.plan import make_plan
from gatedeploy.sweep.records import Found
from gatedeploy.sweep.slurm import check_slurm, read_settings, submit
from gatedeploy.sweep.study import open_study
from gatedeploy.sweep.work import work
from gatedeploy.training.journal import Journal


def sweep(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a bundled recipe: demo, scenes, …")],
    over: Annotated[
        list[str],
        typer.Option(
            metavar="KEY=VALUE,VALUE",
            help="Values of a key to try, e.g. sparsity.weight=0.1,0.5. Given several times: every combination. "
            "tasks.*.sparsity_target=0,0.5 varies that key of each task on its own.",
        ),
    ],
    seeds: Annotated[int, typer.Option(min=1, help="With how many seeds to train each, from the recipe's own on.")] = 3,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The folder to write to; all workers share it.", show_default="sweeps/ and the recipe's name"
        ),
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key for all, e.g. train.epochs=2.")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="A data base for the trials, e.g. postgresql://USER@HOST/NAME.",
            show_default="a journal in --out",
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(metavar="MODULE:FUNCTION", help="A backbone of your own: a function that returns a network."),
    ] = None,
    slurm: Annotated[
        int | None, typer.Option(min=1, metavar="WORKERS", help="Train in so many jobs of Slurm instead of here.")
    ] = None,
    slurm_set: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="A parameter of these jobs, e.g. partition=gpu or timeout_min=600."),
    ] = None,
    json: Json = False,
) -> None:
    """Train a recipe at many points with several seeds, collapse what comes of it, and draw accuracy against cost.

    Each combination of values is trained with each seed. Its gain over single-task nets of the same seed (Δ_MTL) stands
    against the multiply-adds of its collapsed network, in FOLDER/pareto.svg, sweep.md and sweep.csv, which are written
    anew after every training.

    The same command started again goes on where it was interrupted, and does nothing twice. Started several times at
    once, on one machine or on several that share FOLDER, it shares the work. Started with more values or seeds, it adds
    them.
    """
    note_bundled(recipe)
    settings = read_settings(slurm_set or [])
    if settings and slurm is None:
        raise InputError("--slurm-set: is for jobs of Slurm; say how many with --slurm")
    if slurm is not None:
        check_slurm()
    out = out or Path("sweeps") / Path(recipe).stem
    plan = make_plan(recipe, changes or [], over, seeds, backbone, note)
    study = open_study(plan, out, storage, note)
    words = ["sweep", recipe, *(word for each in over for word in ("--over", each)), "--seeds", str(seeds)]
    words += [word for each in changes or [] for word in ("--set", each)]
    words += ["--backbone", backbone] if backbone else []
    if slurm is not None:
        where = ["--out", str(out), *(["--storage", storage] if storage else [])]
        _submit([*words, *where], slurm, out, settings)
        return
    found = work(study, Journal(), command_line(words))
    if json:
        print_json(_document(found, out))
    else:
        _show(found, list(plan.over), out)
    if failed := found.count("fail"):
        raise CheckError(f"{out}: {failed} of {len(found.trials)} trials failed; {out / 'sweep.md'} says why")


def _submit(words: list[str], workers: int, out: Path, settings: dict[str, Any]) -> None:
    jobs = submit(words, workers, out / "slurm", settings)
    say(f"Submitted {workers} workers: {', '.join(job.job_id for job in jobs)}. Their output goes to {out / 'slurm'}.")
    say("The same command without --slurm shows what there is once they are done, or works along.")


def _show(found: Found, keys: list[str], out: Path) -> None:
    heads, *rows = rows_of(found, keys)
    table(heads, rows)
    if running := found.count("running"):
        say(
            f"{running} of {len(found.trials)} trials are in other workers' hands. The same command takes up those "
            "whose worker has vanished."
        )
    written = [out / name for name in ("sweep.md", "sweep.csv", "pareto.svg") if (out / name).is_file()]
    say(f"Wrote {', '.join(map(str, written))}.")


def _document(found: Found, out: Path) -> dict[str, Any]:
    lines = found.lines
    best = front([(line.mean("macs"), line.mean("delta_mtl")) for line in lines])
    names = ("delta_mtl", "macs", "share")
    return {
        "folder": str(out),
        "trials": [
            {
                "number": trial.number,
                "state": trial.state,
                "point": trial.point,
                "seed": trial.seed,
                "delta_mtl": trial.values[0] if trial.values else None,
                "macs": trial.measured.macs if trial.measured else None,
                "metrics": trial.measured.metrics if trial.measured else None,
                "error": trial.error or None,
            }
            for trial in found.trials
        ],
        "points": [
            {"point": line.point, "front": is_best, **{name: line.each(name) for name in names}}
            for line, is_best in zip(lines, best, strict=True)
        ],
    }
