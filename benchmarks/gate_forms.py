"""What it costs in accuracy to let neighbouring channels, or all blocks of a residual stream, share one gate.

    python -m gatedeploy.benchmarks.gate_forms RECIPE [--seeds 0 1 2] [--group 8] [--out DIR] [--set key=value]

Runtimes like gates that turn together; the tasks may not. For each seed the same recipe is trained with free gates,
with `tie: residual`, and with that and `group: N`, each from the same single-task networks. The command goes on where
it was interrupted.

    DIR/<seed>/start/           single-task networks from which the gated ones start
    DIR/<seed>/<form>/gated/    checkpoint.pt
    DIR/table.md                the table
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gatedeploy.artifact import read_checkpoint
from gatedeploy.assembly import build_parts
from gatedeploy.benchmarks.rivals import with_all_gates
from gatedeploy.benchmarks.sharing import specific_share
from gatedeploy.benchmarks.words import markdown, spread
from gatedeploy.errors import run_program
from gatedeploy.files import write_text
from gatedeploy.graph.cost import cost
from gatedeploy.graph.shares import site_shares
from gatedeploy.lowering import lower
from gatedeploy.specs import Task
from gatedeploy.training.comparing import compare
from gatedeploy.training.journal import Journal
from gatedeploy.training.metrics import Metrics, headline
from gatedeploy.training.recipe import Gates, Recipe
from gatedeploy.training.recipe_file import load_recipe
from gatedeploy.training.snapshots import FILE
from gatedeploy.training.stages import Parts, Road


@dataclass(frozen=True)
class Reached:
    """One trained network.

    Args:
        metrics: by task and name, on the validation split.
        share: of specific channels, the mean over tasks of the mean over sites.
        mac_ratio: fewest multiply-adds over those of one shared encoder.
    """

    metrics: Metrics
    share: float
    mac_ratio: float


def forms(recipe: Recipe, group: int) -> dict[str, Gates]:
    """The gates that are compared, by name; the first ones are what the others are compared with."""
    return {
        "free": replace(recipe.gates, tie=None, group=1),
        "tied": replace(recipe.gates, tie="residual", group=1),
        f"tied-group-{group}": replace(recipe.gates, tie="residual", group=group),
    }


def train(recipe: Recipe, parts: Parts, seed: int, group: int, out: Path) -> dict[str, Reached]:
    """Train every form of gates with one seed, as far as that has not been done."""
    seeded = replace(recipe, train=replace(recipe.train, seed=seed, rivals=False))
    tasks = recipe.chosen_tasks(parts.data.tasks)
    road = Road(seeded, parts, out / str(seed), Journal(), resume=True)
    start = {task.name: road.start(task) for task in tasks} if recipe.train.single_epochs else {}
    found = {}
    for name, gates in forms(recipe, group).items():
        folder = out / str(seed) / name
        Road(replace(seeded, gates=gates), parts, folder, Journal(), resume=True).gated(tasks, start)
        found[name] = _reached(folder / "gated" / FILE)
    return found


def _reached(checkpoint: Path) -> Reached:
    read = read_checkpoint(checkpoint)
    shares = specific_share(site_shares(read.program))
    fewest, shared = (cost(lower(each).program) for each in (read.program, with_all_gates(read.program, False)))
    return Reached(read.info.metrics, statistics.mean(shares.values()), fewest.macs / shared.macs)


def table(tasks: Sequence[Task], found: Sequence[dict[str, Reached]]) -> str:
    """Markdown: mean ± standard deviation over seeds, by form of gates; the change to free gates seed by seed.

    Args:
        tasks: what was trained.
        found: per seed, what each form reached.
    """
    first, *_ = found[0]
    heads = [f"{task.name}, {headline(task).name}" for task in tasks]
    rows = [["gates", *heads, f"change to {first}, %", "specific channels", "MACs ÷ shared encoder"]]
    for name in found[0]:
        each = [seed[name] for seed in found]
        figures = [[one.metrics[task.name][headline(task).name] for one in each] for task in tasks]
        changes = [_change(tasks, seed[name].metrics, seed[first].metrics) for seed in found]
        rows.append(
            [
                name,
                *(spread(values, ".4f") for values in figures),
                "" if name == first else spread(changes, "+.2f"),
                spread([one.share for one in each], ".2f"),
                spread([one.mac_ratio for one in each], ".2f"),
            ]
        )
    return markdown(rows)


def _change(tasks: Sequence[Task], metrics: Metrics, first: Metrics) -> float:
    compared = compare(tasks, metrics, first)
    return (compared.delta_mtl if compared else None) or 0.0


def run(recipe: Recipe, source: str, seeds: Sequence[int], group: int, out: Path) -> str:
    """Train what is not trained yet, and write `table.md`; returns what is in it."""
    recipe, parts = build_parts(recipe, source)
    tasks = recipe.chosen_tasks(parts.data.tasks)
    found = [train(recipe, parts, seed, group, out) for seed in seeds]
    text = table(tasks, found)
    write_text(out / "table.md", text)
    return text


def main() -> None:
    """Read the command line, train, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe", help="a recipe's name or file")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2))
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("gate_forms"))
    parser.add_argument("--set", action="append", default=[], metavar="key=value", dest="overrides")
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    print(run(recipe, arguments.recipe, arguments.seeds, arguments.group, arguments.out))


if __name__ == "__main__":
    run_program(main)
