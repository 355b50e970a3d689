"""Budgets beside penalties: what a training reaches that is drawn to given multiply-adds, and what at equal ones.

    python -m gatedeploy.benchmarks.budgets [--seeds 0 1 2] [--out DIR] [--report] [--set key=value]

With each seed five budgets are trained on `scenes`, small, the penalty of InterroGate (eq. 4, the hinge) with several
τ, and its L1 form with several λ_s, all from the same single-task networks. A penalty ends where it ends; so that its
networks can be compared with those of the budgets, Δ_MTL is read off at the budget, on straight lines between its own.
The command goes on where it was interrupted, and `--report` says what there is so far without training anything.

    DIR/<seed>/start/<task>/, single/<task>/, <name>/    as `gatedeploy.benchmarks.methods` has them
    DIR/budgets.md                                       the table
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gatedeploy.artifact import read_checkpoint
from gatedeploy.benchmarks.methods import SMALL, Entry, train_seed
from gatedeploy.benchmarks.words import markdown, spread
from gatedeploy.errors import run_program
from gatedeploy.files import write_text
from gatedeploy.graph.cost import cost
from gatedeploy.lowering import lower
from gatedeploy.training.comparing import compare
from gatedeploy.training.snapshots import FILE

SOURCE, TASKS = "scenes", ("segmentation", "depth", "normals")
BUDGETS = (0.35, 0.45, 0.55, 0.65, 0.75)
STRENGTHS: Mapping[str, Sequence[float]] = {"hinge": (0.48, 0.49, 0.5, 0.505, 0.51), "l1": (0.1, 0.2, 0.3, 0.4, 0.5)}
"""The hinge's τ, for every task, with λ_s as below, and λ_s of L1.

In so short a training every σ(α) stays close to the half at which gates turn. The mean over them, which τ limits, goes
from 0.525, where all start, to 0.45 with λ_s = 0.5; below that the hinge is L1."""
HINGE_WEIGHT = 0.5


def _of_penalty(form: str, strength: float) -> Entry:
    changes = [f"sparsity.form={form}", f"sparsity.weight={HINGE_WEIGHT if form == 'hinge' else strength:g}"]
    if form == "hinge":
        changes += [f"tasks.{task}.sparsity_target={strength:g}" for task in TASKS]
    return Entry(f"{form}-{strength:g}", form, tuple(changes))


def _of_budget(share: float) -> Entry:
    return Entry(f"budget-{share:g}", "budget", ("sparsity.weight=0", f"budget={{macs: {share:g}}}"))


ENTRIES = (
    *(_of_budget(share) for share in BUDGETS),
    *(_of_penalty(form, strength) for form, strengths in STRENGTHS.items() for strength in strengths),
)


@dataclass(frozen=True)
class Reached:
    """What came of one training.

    Args:
        share: the collapsed network's multiply-adds, of those of the gated one.
        delta: Δ_MTL over the single-task networks of the same seed, in percent.
    """

    share: float
    delta: float


def read_reached(folder: Path, entry: Entry) -> Reached:
    """What came of an entry with one seed, whose folder this is."""
    network = read_checkpoint(folder / entry.name / FILE)
    tasks = network.info.tasks
    files = {task.name: folder / "single" / task.name / FILE for task in tasks}
    single = {task: read_checkpoint(file).info.metrics[task] for task, file in files.items()}
    found = compare(tasks, network.info.metrics, single)
    assert found is not None
    assert found.delta_mtl is not None
    return Reached(cost(lower(network.program).program).macs / cost(network.program).macs, found.delta_mtl)


def at(share: float, reached: Sequence[Reached]) -> float:
    """Δ_MTL at a share of the multiply-adds, on straight lines between what was reached; NaN where nothing lies beyond.

    Where several trainings ended with equal multiply-adds it is their mean.
    """
    deltas: dict[float, list[float]] = {}
    for each in reached:
        deltas.setdefault(each.share, []).append(each.delta)
    shares = sorted(deltas)
    if not shares or not shares[0] <= share <= shares[-1]:
        return math.nan
    return float(np.interp(share, shares, [statistics.fmean(deltas[each]) for each in shares]))


def page(reached: Mapping[str, Sequence[Reached]]) -> str:
    """Two tables: budgets beside what penalties reach at equal multiply-adds, and what each penalty ended with.

    Args:
        reached: by the name of an entry, with each seed.
    """
    of_form = {
        form: [reached[name] for strength in strengths if (name := f"{form}-{strength:g}") in reached]
        for form, strengths in STRENGTHS.items()
    }
    rows = [["budget", "used of it", "Δ_MTL, %", *(f"{form} at it, Δ_MTL, %" for form in STRENGTHS)]]
    for share in BUDGETS:
        found = reached.get(f"budget-{share:g}", ())
        if not found:
            continue
        used = [each.share / share for each in found]
        lines = [_spread([at(share, seed) for seed in zip(*of_form[form], strict=True)]) for form in STRENGTHS]
        deltas = _spread([each.delta for each in found])
        rows.append([f"{share:g}", f"{min(used):.4f} to {max(used):.4f}", deltas, *lines])
    budgets = markdown(rows)
    rows = [["penalty", "λ_s", "τ", "share of the multiply-adds", "Δ_MTL, %"]]
    for form, strengths in STRENGTHS.items():
        for strength in strengths:
            found = reached.get(f"{form}-{strength:g}", ())
            if found:
                numbers = (f"{HINGE_WEIGHT:g}", f"{strength:g}") if form == "hinge" else (f"{strength:g}", "–")
                shares = spread([each.share for each in found], ".3f")
                rows.append([form, *numbers, shares, _spread([each.delta for each in found])])
    return f"{budgets}\n{markdown(rows)}"


def _spread(deltas: Sequence[float]) -> str:
    """Over those seeds in which there is a number; how many these are, where it is not all."""
    known = [delta for delta in deltas if not math.isnan(delta)]
    told = spread(known, "+.1f") if known else "–"
    return told if len(known) in (0, len(deltas)) else f"{told} ({len(known)} of {len(deltas)} seeds)"


def report(seeds: Sequence[int], out: Path) -> str:
    """The page of what is done with every seed; it is written to `budgets.md` too."""
    folders = [out / str(seed) for seed in seeds]
    done = [entry for entry in ENTRIES if all((folder / entry.name / FILE).is_file() for folder in folders)]
    text = page({entry.name: [read_reached(folder, entry) for folder in folders] for entry in done})
    missing = [entry.name for entry in ENTRIES if entry not in done]
    if missing:
        text += f"\n* Not trained with every seed yet: {', '.join(missing)}.\n"
    write_text(out / "budgets.md", text)
    return text


def main() -> None:
    """Read the command line, train, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2))
    parser.add_argument("--out", type=Path, default=Path("budgets"))
    parser.add_argument("--set", action="append", default=[], metavar="key=value", dest="overrides")
    parser.add_argument("--report", action="store_true", help="train nothing; say what there is")
    asked = parser.parse_args()
    if not asked.report:
        for seed in asked.seeds:
            train_seed(SOURCE, seed, ENTRIES, (*SMALL[SOURCE], *asked.overrides), asked.out / str(seed))
    print(report(asked.seeds, asked.out))


if __name__ == "__main__":
    run_program(main)
