"""Every way of sharing and of balancing losses that a recipe knows, on one backbone, over several seeds.

    python -m gatedeploy.benchmarks.methods scenes        [--seeds 0 1 2] [--out DIR] [--only NAME…] [--set key=value]
    python -m gatedeploy.benchmarks.methods multi_fashion --set data.root=FOLDER …
    python -m gatedeploy.benchmarks.methods usgra         --set data.root=FOLDER …

Everything is trained for as long in all. What starts from single-task networks starts from the same ones. Small
networks and few pictures, so that a run takes minutes and all of them hours; the command goes on where it was
interrupted, and `--report` says what there is so far without training anything.

    DIR/<seed>/start/<task>/     single-task networks that others start from
    DIR/<seed>/single/<task>/    single-task networks, trained as long as all others
    DIR/<seed>/<name>/           checkpoint.pt of each entry, once it is done
    DIR/<seed>/figures.json      what came of all of them; a seed of which this file is there is not trained again
    DIR/table.md                 the table, see `gatedeploy.benchmarks.methods_table`
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gatedeploy.artifact import ModelInfo
from gatedeploy.assembly import build_parts
from gatedeploy.benchmarks.methods_figures import SINGLE, Line, kept_figures, read_lines
from gatedeploy.benchmarks.methods_table import SINGLE as SINGLE_NETWORKS
from gatedeploy.benchmarks.methods_table import table_page
from gatedeploy.benchmarks.ways import Way
from gatedeploy.errors import InputError, check_known, run_program
from gatedeploy.files import write_text
from gatedeploy.specs import Task
from gatedeploy.training.journal import Journal
from gatedeploy.training.recipe import Recipe
from gatedeploy.training.recipe_file import load_recipe
from gatedeploy.training.snapshots import FILE
from gatedeploy.training.stages import Branched, Parts, Road, check_collapsible

SMALL: Mapping[str, Sequence[str]] = {
    "scenes": (
        *("data.size=48", "data.train=1600", "data.val=300", "model.backbone.width=0.25"),
        *("train.single_epochs=3", "train.epochs=6", "train.batch_size=32", "train.learning_rate=3.0e-3"),
        "gates.learning_rate=1.0",
    ),
    "multi_fashion": (
        *("data.train=6000", "data.val=4000", "model.backbone.width=0.25"),
        *("train.single_epochs=3", "train.epochs=6", "train.batch_size=64", "train.learning_rate=3.0e-3"),
        "gates.learning_rate=1.0",
    ),
    "usgra": ("data.size=96", "model.backbone.width=0.25", "train.single_epochs=15", "train.epochs=30"),
}
"""What makes the recipes small enough: by recipe, `key=value`. A gate's few steps have to be large ones."""


@dataclass(frozen=True)
class Entry:
    """One line of the table.

    Args:
        name: of its folder.
        title: what it is called.
        changes: `key=value` of its recipe.
        from_scratch: whether it starts from nothing, and so is trained for all epochs itself.
    """

    name: str
    title: str
    changes: tuple[str, ...]
    from_scratch: bool = False

    @property
    def gated(self) -> bool:
        """Whether its network has gates, and no other method's way of sharing."""
        return not any(change.startswith("method.name=") for change in self.changes)


def _balanced(name: str, title: str, *more: str) -> Entry:
    return Entry(name, title, ("method.name=mtl", f"train.balance.name={name.partition('-')[0]}", *more))


def _method(name: str, title: str) -> Entry:
    return Entry(name, title, (f"method.name={name}",))


def _safe(name: str, title: str, sites: str, kind: str, *more: str) -> Entry:
    return Entry(name, title, (f"gates.sites={sites}", f"gates.kind={kind}", "sparsity.weight=0", *more), True)


ENTRIES: tuple[Entry, ...] = (
    _method("mtl", "uniform MTL"),
    Entry("gated-0", "InterroGate, λ_s = 0", ("sparsity.weight=0",)),
    Entry("gated-0.2", "InterroGate, λ_s = 0.2", ("sparsity.weight=0.2",)),
    Entry("gated-0.5", "InterroGate, λ_s = 0.5", ("sparsity.weight=0.5",)),
    _safe("smtl", "SMTL", "encoder", "soft"),
    _safe("l-smtl", "L-SMTL", "encoder", "drawn"),
    _method("cross_stitch", "cross-stitch"),
    _method("nddr", "NDDR-CNN"),
    _method("mtan", "MTAN"),
    _method("adashare", "AdaShare"),
    _method("afa", "AFA"),
    _safe("smtl-c", "SMTL_c", "decoder", "soft"),
    _safe("l-smtl-c", "L-SMTL_c", "decoder", "drawn"),
    _safe("smtl-bi-level", "SMTL, bi-level", "encoder", "soft", "train.hold_out=0.3"),
    _balanced("uncertainty", "MTL, uncertainty"),
    _balanced("dwa", "MTL, DWA"),
    _balanced("random", "MTL, RLW"),
    _balanced("gradnorm", "MTL, GradNorm"),
    _balanced("pcgrad", "MTL, PCGrad"),
    _balanced("cagrad", "MTL, CAGrad"),
    _balanced("mgda", "MTL, MGDA"),
    _balanced("mgda-ub", "MTL, MGDA-UB", "train.balance.upper_bound=true"),
    _balanced("auto_lambda", "MTL, Auto-λ"),
)
ON_USGRA = ("mtl", "gated-0.2", "l-smtl")


def recipe_of(source: str, entry: Entry | None, seed: int, changes: Sequence[str]) -> Recipe:
    """The recipe of an entry; of the single-task networks where it is None. All share `changes`, `key=value`."""
    shared = [*changes, f"train.seed={seed}", "train.rivals=false"]
    recipe = load_recipe(source, [*shared, *(entry.changes if entry else ())])
    if entry is not None and entry.from_scratch:
        whole = recipe.train.rival_epochs
        recipe = replace(recipe, train=replace(recipe.train, single_epochs=0, epochs=whole))
    return recipe


def train_seed(source: str, seed: int, entries: Sequence[Entry], changes: Sequence[str], out: Path) -> None:
    """Train with one seed what has not been trained yet, here or where figures were brought from."""
    base, parts = build_parts(recipe_of(source, None, seed, changes), source)
    tasks = base.chosen_tasks(parts.data.tasks)
    road = Road(base, parts, out, Journal(), resume=True)
    elsewhere = {name for name in kept_figures(out) if not any((out / name).rglob(FILE))}
    for task in tasks if SINGLE not in elsewhere else ():
        road.single(task)
    for entry in entries:
        if entry.name in elsewhere:
            continue
        recipe, own = build_parts(recipe_of(source, entry, seed, changes), source)
        train_entry(recipe, replace(own, data=parts.data), tasks, road, out / entry.name)


def train_entry(recipe: Recipe, parts: Parts, tasks: tuple[Task, ...], road: Road, folder: Path) -> None:
    """Train one entry, as far as that has not been done; `road` has what it starts from, networks of `tasks`."""
    own = recipe.chosen_tasks(parts.data.tasks)  # its τ may differ from theirs
    starts = recipe.train.single_epochs and isinstance(check_collapsible(recipe, parts, own), Branched)
    start = {task.name: road.start(task) for task in tasks} if starts else {}
    Road(recipe, parts, folder, Journal(), resume=True).network(own, start)


def report(source: str, seeds: Sequence[int], entries: Sequence[Entry], overrides: Sequence[str], out: Path) -> str:
    """Measure what is done with every seed, write `table.md`, and return what is in it."""
    recipe, parts = build_parts(recipe_of(source, None, seeds[0], [*SMALL.get(source, ()), *overrides]), source)
    info = ModelInfo(recipe.chosen_tasks(parts.data.tasks), parts.data.input)
    folders = [out / str(seed) for seed in seeds]
    read = read_seeds(folders, entries, info.tasks)
    done = [entry for entry in entries if all(entry.name in seed for seed in read)]
    single = way(SINGLE_NETWORKS, False, info, [seed[SINGLE] for seed in read])
    lines = [way(entry.title, entry.gated, info, [seed[entry.name] for seed in read]) for entry in done]
    page = table_page(single, lines, recipe, typed("methods", source, seeds, overrides))
    missing = [entry.title for entry in entries if entry not in done]
    if missing:
        page += f"* Not trained with every seed yet: {', '.join(missing)}.\n"
    write_text(out / "table.md", page)
    return page


def read_seeds(folders: Sequence[Path], entries: Sequence[Entry], tasks: Sequence[Task]) -> list[dict[str, Line]]:
    """What there is of each seed, by name of the entry; single-task networks there are.

    Raises:
        InputError: there are none yet.
    """
    read = [read_lines(folder, [entry.name for entry in entries], tasks) for folder in folders]
    for folder, lines in zip(folders, read, strict=True):
        if SINGLE not in lines:
            raise InputError(f"{folder}: single-task networks are not trained yet; leave --report out")
    return read


def typed(benchmark: str, source: str, seeds: Sequence[int], overrides: Sequence[str]) -> str:
    """What to type to train and measure again, wherever the pictures lie."""
    told = [f"--set {each if not each.startswith('data.root') else 'data.root=FOLDER'}" for each in overrides]
    return " ".join([f"python -m gatedeploy.benchmarks.{benchmark}", source, "--seeds", *map(str, seeds), *told])


def way(title: str, ours: bool, info: ModelInfo, lines: Sequence[Line]) -> Way:
    """What came of one entry with every seed; see `Way`."""
    return Way(title, ours, info, tuple(line.candidate for line in lines), tuple(line.metrics for line in lines))


def main() -> None:
    """Read the command line, train, measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe", help=f"{', '.join(SMALL)}, or another recipe's name or file, which is taken as it is")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="+", metavar="NAME", help=", ".join(entry.name for entry in ENTRIES))
    parser.add_argument("--set", action="append", default=[], metavar="key=value", dest="overrides")
    parser.add_argument("--report", action="store_true", help="train nothing; say what there is")
    asked = parser.parse_args()
    names = asked.only or (ON_USGRA if asked.recipe == "usgra" else [entry.name for entry in ENTRIES])
    for name in names:
        check_known("--only", name, [entry.name for entry in ENTRIES])
    entries = [entry for entry in ENTRIES if entry.name in names]
    out = asked.out or Path("methods") / Path(asked.recipe).stem
    if not asked.report:
        changes = (*SMALL.get(asked.recipe, ()), *asked.overrides)
        for seed in asked.seeds:
            train_seed(asked.recipe, seed, entries, changes, out / str(seed))
    print(report(asked.recipe, asked.seeds, entries, asked.overrides, out))


if __name__ == "__main__":
    run_program(main)
