"""`gatedeploy train`: train what a recipe describes."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gatedeploy.assembly import build_parts
from gatedeploy.cli.screen import note, note_bundled, say, table
from gatedeploy.errors import InputError, located
from gatedeploy.models.moe import MOE
from gatedeploy.training.comparing import Comparison
from gatedeploy.training.journal import Journal
from gatedeploy.training.metrics import Metric, headline
from gatedeploy.training.recipe import Recipe
from gatedeploy.training.recipe_file import load_recipe
from gatedeploy.training.stages import Trained, train_recipe
from gatedeploy.training.workers import joined


def train(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a bundled recipe: demo, scenes, …")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key, e.g. train.epochs=2.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder to write to.", show_default="runs/ and the recipe's name")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the training in that folder.")] = False,
    backbone: Annotated[
        str | None,
        typer.Option(metavar="MODULE:FUNCTION", help="A backbone of your own: a function that returns a network."),
    ] = None,
) -> None:
    """Train a gated multi-task network: single-task nets first, then the gated network that starts from them.

    Writes FOLDER/checkpoint.pt, and every stage's checkpoint and TensorBoard files below FOLDER. A run that was
    interrupted goes on with --resume and ends with the same weights as an unbroken one on the same machine.

    Recipes, with every key and the layout of a folder of your own pictures: docs/recipes.md in the repository.
    """
    with joined() as workers:
        if workers.first:
            note_bundled(recipe)
        read = load_recipe(recipe, changes or [])
        read, parts = build_parts(read, recipe, backbone, note if workers.first else None)
        journal = Journal() if workers.first else Journal(Console(quiet=True), tensorboard=False)
        with located(recipe, InputError):
            place = out or Path("runs") / Path(recipe).stem
            trained = train_recipe(read, parts, place, resume=resume, journal=journal)
        if workers.first:
            show_training(trained)


def show_training(trained: Trained) -> None:
    """What every stage reached, as a table."""
    tasks = trained.network.tasks
    metrics = {task.name: headline(task) for task in tasks}
    headings = [f"{name} {metric.name} {metric.arrow}" for name, metric in metrics.items()]
    rows = []
    if trained.single:
        figures = [_figure(trained.single[name].metrics, name, metrics) for name in metrics]
        rows.append(["single-task nets", *figures, "", "", ""])
    for label, info in (("one shared encoder", trained.shared), (trained.network.form, trained.network)):
        if info is not None:
            row = [label, *(_figure(info.metrics, name, metrics) for name in metrics)]
            rows.append([*row, *_beside(trained.compare(info))])
    table(["", *headings, "Δ_MTL", "Δ_I", "η̂"], rows)
    recipe = Recipe.from_plain(trained.network.recipe)
    if trained.single:
        say(f"Each trained for {recipe.train.rival_epochs} epochs in all, with those of the nets that it starts from.")
        say("Δ_MTL: mean gain over the single-task nets; Δ_I: the same over all metrics; η̂: share of metrics no worse.")
    # Multiply-adds that were asked for are those of the fewest; the layout that is fastest may execute more.
    how = " --optimize none" if recipe.budget and recipe.budget.ms is None and not recipe.method else ""
    command = "bench" if recipe.form == MOE else "prune"
    say(f"Wrote {trained.checkpoint}. Next: gatedeploy {command} {shlex.quote(str(trained.checkpoint))}{how}")


def _figure(figures: Mapping[str, Mapping[str, float]], task: str, metrics: Mapping[str, Metric]) -> str:
    return f"{figures[task][metrics[task].name]:.4g}"


def _beside(found: Comparison | None) -> list[str]:
    """Δ_MTL, Δ_I and η̂ for people."""
    if found is None:
        return ["", "", ""]
    *gains, eta = found.percents
    told = ["" if gain is None else f"{gain:+.2f} %" for gain in gains]
    return [*told, f"{eta:.0f} %{' (safe)' if found.safe else ''}"]
