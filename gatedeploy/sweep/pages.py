"""What a sweep has come to so far, as files in its folder: tables and pictures, each written whole."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Sequence
from pathlib import Path

from gatedeploy.benchmarks.look import write_picture
from gatedeploy.benchmarks.pareto import front
from gatedeploy.benchmarks.words import human, markdown, spread
from gatedeploy.files import write_text
from gatedeploy.specs import Task
from gatedeploy.sweep.grid import TARGET, shown
from gatedeploy.sweep.pictures import pareto, targets
from gatedeploy.sweep.plan import Plan
from gatedeploy.sweep.records import Found, Measured, figures
from gatedeploy.training.metrics import headline

GAINS = {"delta_mtl": "Δ_MTL, %", "delta_i": "Δ_I, %", "eta": "η̂, %"}


def write_pages(out: Path, found: Found, plan: Plan, command: str) -> list[Path]:
    """Write `sweep.csv`, `sweep.md` and, where there is something to draw, the pictures; returns what was written.

    Args:
        out: the folder.
        found: what the study holds.
        plan: what is swept over.
        command: what was typed.
    """
    files = [out / "sweep.csv", out / "sweep.md"]
    write_text(files[0], trials_csv(found, list(plan.over)))
    write_text(files[1], page(found, plan, command))
    if not found.lines:
        return files
    drawn = {"pareto": pareto(found)}
    if any(key.endswith(f".{TARGET}") for key in plan.over):
        drawn["targets"] = targets(found)
    for name, figure in drawn.items():
        for kind in ("svg", "png"):
            files.append(out / f"{name}.{kind}")
            write_picture(figure, files[-1])
    return files


def trials_csv(found: Found, keys: Sequence[str]) -> str:
    """A row for each trial; its figures as the study holds them, every digit."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [(task.name, headline(task).name) for task in found.tasks]
    heads = ["number", "state", *keys, "seed", "delta_mtl", "macs", "share_of_single", "params"]
    writer.writerow([*heads, *(f"{task}.{metric}" for task, metric in names), "error"])
    for trial in found.trials:
        row = [trial.number, trial.state, *(shown(trial.point[key]) for key in keys), trial.seed]
        if trial.measured is None or trial.values is None:
            told: list[object] = [""] * (4 + len(names))
        else:
            share = trial.measured.macs / found.rivals[trial.seed].single.macs
            told = [trial.values[0], trial.measured.macs, share, trial.measured.params]
            told += [trial.measured.metrics[task][metric] for task, metric in names]
        writer.writerow([*row, *told, trial.error])
    return text.getvalue()


def page(found: Found, plan: Plan, command: str) -> str:
    """Markdown: the table and what has to be known to read it."""
    heads, *rows = table(found, list(plan.over))
    told = markdown([heads, *rows])
    facts = "".join(f"* {fact}\n" for fact in _facts(found, plan))
    return f"`{command}`\n\n{told}\n{facts}"


def table(found: Found, keys: Sequence[str]) -> list[list[str]]:
    """Headings, the networks that all are compared with, and a row for each point, the cheapest first."""
    tasks = [f"{task.name}, {headline(task).name} {headline(task).arrow}" for task in found.tasks]
    costs = ["MACs", "of single-task nets, %", "parameters"]
    rows = [[*keys, "seeds", *tasks, *GAINS.values(), *costs, "front"]]
    for title, name in (("single-task networks", "single"), ("uniform MTL", "shared")):
        some = [(seed, getattr(rivals, name)) for seed, rivals in sorted(found.rivals.items()) if getattr(rivals, name)]
        if some:
            rows.append([title, *[""] * (len(keys) - 1), *_cells(found, some, plain=name == "single"), ""])
    lines = found.lines
    best = front([(line.mean("macs"), line.mean("delta_mtl")) for line in lines])
    for line, is_best in zip(lines, best, strict=True):
        values = [shown(line.point[key]) for key in keys]
        rows.append([*values, *_cells(found, line.measured), "•" if is_best else ""])
    return rows


def _cells(found: Found, measured: list[tuple[int, Measured]], plain: bool = False) -> list[str]:
    def of(task: Task) -> list[float]:
        return [each.metrics[task.name][headline(task).name] for _, each in measured]

    def costs(what: str) -> float:
        values = figures(found, measured, what)
        return sum(values) / len(values)

    gains = ["" if plain else spread(figures(found, measured, name), "+.2f") for name in ("delta_mtl", "delta_i")]
    eta = "" if plain else spread(figures(found, measured, "eta"), ".0f")
    share = spread(figures(found, measured, "share"), ".1f")
    told = [*(spread(of(task), ".4g") for task in found.tasks), *gains, eta]
    return [str(len(measured)), *told, human(costs("macs")), share, human(costs("params"))]


def _facts(found: Found, plan: Plan) -> list[str]:
    train, counted = plan.base.train, [f"{found.count(state)} {state}" for state in ("complete", "running", "waiting")]
    facts = [
        f"{len(found.trials)} trials: {', '.join(counted)}, {found.count('fail')} failed. Mean ± standard deviation "
        "over seeds; figures are those of the last epoch on the validation split. Front: none is as cheap and as good.",
        f"Each is trained as its recipe says; the single-task networks for {train.rival_epochs} epochs, by the recipe "
        "as it stands without --over, once for each seed. Δ_MTL, Δ_I and η̂ are over those of the same seed.",
        "MACs and parameters are of collapsed networks with the fewest multiply-adds (`prune --optimize none`).",
    ]
    failed = [trial for trial in found.trials if trial.error]
    return [*facts, *(f"Trial {trial.number} failed: {trial.error}" for trial in failed)]


def command_line(words: Sequence[str]) -> str:
    """What to type, for pages and messages."""
    return shlex.join(["gatedeploy", *words])
