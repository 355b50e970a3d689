"""`gatedeploy demo`: the whole road on made-up scenes."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from gatedeploy.assembly import build_parts
from gatedeploy.benchmarks.bench import bench
from gatedeploy.benchmarks.bench_options import BenchOptions
from gatedeploy.cli.export import export
from gatedeploy.cli.inspect import inspect
from gatedeploy.cli.measure import show_report
from gatedeploy.cli.prune import prune
from gatedeploy.cli.screen import note, say
from gatedeploy.cli.train import show_training
from gatedeploy.cli.verify import verify
from gatedeploy.training.recipe_file import load_recipe
from gatedeploy.training.stages import train_recipe

RECIPE = "demo"


def demo(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="The folder to write to; a demo that was interrupted goes on.")] = Path(
        "demo"
    ),
) -> None:
    """Walk the whole road: train a gated network, collapse it, export it, prove it, measure it.

    Trains three tasks (segmentation, depth, surface normals) on made-up scenes, in about five minutes on two cores.
    Every step names the command that does the same.
    """
    resume = out.is_dir() and any(out.iterdir())
    _step("train", RECIPE, "--out", out, *(["--resume"] if resume else []))
    recipe, parts = build_parts(load_recipe(RECIPE), RECIPE)
    show_training(train_recipe(recipe, parts, out, resume=resume))
    checkpoint, collapsed = out / "checkpoint.pt", out / "collapsed.safetensors"
    _step("inspect", checkpoint)
    inspect(checkpoint)
    _step("prune", checkpoint)
    prune(checkpoint, out=collapsed)
    _step("export", collapsed, "--onnx")
    export(context, collapsed, onnx=True, out=out / "bundle")
    _step("verify", out / "bundle")
    verify(out / "bundle")
    _step("bench", out, collapsed, "--quick", "--out", out / "report")
    show_report(bench([out, collapsed], out / "report", BenchOptions(quick=True), say=note), out / "report")
    say("Open the report in a browser; every number in it was measured just now.")


def _step(*words: str | Path) -> None:
    note(f"\n$ {shlex.join(['gatedeploy', *map(str, words)])}")
