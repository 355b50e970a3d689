"""What accuracy costs: gated networks beside what one would run instead, of half and of full width.

    python -m gatedeploy.benchmarks.tradeoff scenes        [--seeds 0 1 2] [--out DIR] [--report] [--set key=value]
    python -m gatedeploy.benchmarks.tradeoff multi_fashion --set data.root=FOLDER …
    python -m gatedeploy.benchmarks.tradeoff usgra         --set data.root=FOLDER …

InterroGate tells that a gated ResNet-20 of half the width is as good as single-task networks of the full width, at a
tenth of their multiply-adds (CelebA, tables 7 and 9). Here the same is asked of other data, in milliseconds too, of
gated networks for λ_s of the paper's grid (of full width, and on real data, for some of it), single-task networks,
uniform MTL, and, on scenes, a mixture of experts that is asked once for each task. All are trained for as long, and
Δ_MTL is over the single-task networks of full width of the same seed. The command goes on where it was interrupted, and
`--report` trains nothing. Latencies are measured whenever it reports.

    DIR/<seed>/full/, half/    as `gatedeploy.benchmarks.methods` has them
    DIR/tradeoff.md            two tables, see `gatedeploy.benchmarks.tradeoff_page`
    DIR/tradeoff.svg           Δ_MTL against multiply-adds and milliseconds
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gatedeploy.artifact import ModelInfo, read_checkpoint
from gatedeploy.assembly import build_parts
from gatedeploy.benchmarks.candidates import mixture_candidates, trained_mixture
from gatedeploy.benchmarks.methods import Entry, read_seeds, recipe_of, train_seed, typed, way
from gatedeploy.benchmarks.methods_figures import SINGLE, Line
from gatedeploy.benchmarks.tradeoff_page import tradeoff_page
from gatedeploy.benchmarks.ways import Way
from gatedeploy.errors import run_program
from gatedeploy.models.moe import MOE
from gatedeploy.training.snapshots import FILE

SETTINGS: Mapping[str, Sequence[str]] = {
    "scenes": ("data.size=48", "data.train=1600", "data.val=300", "train.single_epochs=4", "train.epochs=8"),
    "multi_fashion": (
        *("data.train=4000", "data.val=2000", "train.batch_size=64", "train.learning_rate=2.0e-3"),
        *("train.single_epochs=4", "train.epochs=8"),
    ),
    "usgra": ("data.size=64", "train.single_epochs=8", "train.epochs=12"),
}
"""What makes the recipes small enough to be trained on a processor: by recipe, `key=value`."""

GATES = ("gates.learning_rate=5", "gates.tie=residual")
"""The paper's λ_s are for some hundred thousand steps. Here gates have a few hundred to turn in, so their learning rate
is larger; and they turn together, as runtimes like it."""

FEWER = dict.fromkeys(("multi_fashion", "usgra"), ("mtl", "gated-0.01", "gated-0.05"))
"""What alone is trained beside single-task networks: by recipe, names of entries. Experts take five times what other
networks take to train, and each λ_s half an hour with all seeds; scenes are where they are compared."""

STRENGTHS = (0.01, 0.03, 0.05, 0.07, 0.1)
"""λ_s of the paper (section 4.1)."""

RIVALS = (Entry("mtl", "uniform MTL", ("method.name=mtl",)), Entry(MOE, "experts", (f"method.name={MOE}",)))
GATED = tuple(Entry(f"gated-{each:g}", f"gated, λ_s = {each:g}", (f"sparsity.weight={each:g}",)) for each in STRENGTHS)


@dataclass(frozen=True)
class Width:
    """What is trained of one width.

    Args:
        name: of its folder.
        share: of ResNet-20's channels.
        group: so many neighbouring channels turn together, half of the first stage's.
        entries: beside single-task networks.
    """

    name: str
    share: float
    group: int
    entries: tuple[Entry, ...]

    @property
    def own(self) -> tuple[str, ...]:
        """`key=value` of its recipe that no other width has."""
        return f"gates.group={self.group}", f"model.backbone.width={self.share:g}"

    def changes(self, source: str, overrides: Sequence[str]) -> list[str]:
        """`key=value` of its recipe."""
        return [*SETTINGS.get(source, ()), *GATES, *self.own, *overrides]


FULL = Width("full", 1, 8, (*RIVALS, *GATED[::2]))
HALF = Width("half", 0.5, 4, (*RIVALS, *GATED))


def train(source: str, seed: int, overrides: Sequence[str], out: Path) -> None:
    """Train with one seed what has not been trained yet."""
    for width in (FULL, HALF):
        entries = [entry for entry in width.entries if entry.name in FEWER.get(source, (entry.name,))]
        train_seed(source, seed, entries, width.changes(source, overrides), out / str(seed) / width.name)


def ways(width: Width, seeds: Sequence[int], info: ModelInfo, out: Path) -> list[Way]:
    """What there is of one width with every seed.

    Args:
        width: which.
        seeds: with which it was trained.
        info: the tasks and the picture.
        out: the folder of all seeds.
    """
    folders = [out / str(seed) / width.name for seed in seeds]
    read = read_seeds(folders, width.entries, info.tasks)
    found = [way(f"single-task, {width.name}", False, info, [seed[SINGLE] for seed in read])]
    for entry in width.entries:
        if not all(entry.name in seed for seed in read):
            continue
        lines, title = [seed[entry.name] for seed in read], f"{entry.title}, {width.name}"
        if entry.name != MOE:
            found.append(way(title, entry.gated, info, lines))
            continue
        found.append(way(f"{title}, {len(info.tasks)} passes", False, info, lines))
        if all(line.candidate.networks for line in lines):  # what a batch costs is not among the figures that are kept
            batched = [_batched(line, folder / MOE / FILE) for line, folder in zip(lines, folders, strict=True)]
            found.append(way(f"{title}, batched", False, info, batched))
    return found


def _batched(passes: Line, file: Path) -> Line:
    """The same mixture of experts, asked for a batch of all tasks."""
    info = read_checkpoint(file).info
    _, batched = mixture_candidates(trained_mixture(info, file), info.input)
    return replace(passes, candidate=batched)


def report(source: str, seeds: Sequence[int], overrides: Sequence[str], out: Path) -> str:
    """Measure what is done with every seed, write the page and its picture, and return the page."""
    recipe, parts = build_parts(recipe_of(source, None, seeds[0], HALF.changes(source, overrides)), source)
    info = ModelInfo(recipe.chosen_tasks(parts.data.tasks), parts.data.input)
    found = [way for width in (FULL, HALF) for way in ways(width, seeds, info, out)]
    settings = ", ".join((*SETTINGS.get(source, ()), *GATES))
    widths = "; ".join(f"of {width.name} width {', '.join(width.own)}" for width in (FULL, HALF))
    return tradeoff_page(found, recipe, typed("tradeoff", source, seeds, overrides), f"{settings}; {widths}", out)


def main() -> None:
    """Read the command line, train, measure, and print the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe", help=f"{', '.join(SETTINGS)}, or another recipe's name or file of a ResNet-20")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="key=value", dest="overrides")
    parser.add_argument("--report", action="store_true", help="train nothing; say what there is")
    asked = parser.parse_args()
    out = asked.out or Path("tradeoff") / Path(asked.recipe).stem
    if not asked.report:
        for seed in asked.seeds:
            train(asked.recipe, seed, asked.overrides, out)
    print(report(asked.recipe, asked.seeds, asked.overrides, out))


if __name__ == "__main__":
    run_program(main)
