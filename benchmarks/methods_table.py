"""What came of many ways of sharing: accuracy, cost and latency of the collapsed networks, as one table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gatedeploy.artifact import ModelInfo
from gatedeploy.benchmarks.candidates import Candidate
from gatedeploy.benchmarks.environment import Environment, environment, load
from gatedeploy.benchmarks.latency import Latency, Plan
from gatedeploy.benchmarks.methods_figures import Line
from gatedeploy.benchmarks.runners import measure_in_turns
from gatedeploy.benchmarks.words import human, interval, markdown, spread
from gatedeploy.specs import Task
from gatedeploy.training.comparing import compare, mean_ranks
from gatedeploy.training.metrics import Metrics, headline
from gatedeploy.training.recipe import Recipe

PLAN = Plan(seconds=90, min_rounds=15, max_rounds=60, block_ms=20, warm_up_ms=200)
SINGLE = "single-task networks"
BASELINE = "uniform MTL"


@dataclass(frozen=True)
class Found:
    """One line of the table: a way of sharing, trained with each seed.

    Args:
        title: what it is called.
        metrics: per seed, what it reached by task and metric.
        candidates: per seed, its collapsed network, or all single-task networks.
    """

    title: str
    metrics: tuple[Metrics, ...]
    candidates: tuple[Candidate, ...]

    @property
    def macs(self) -> float:
        """Multiply-adds of what is deployed, the mean over seeds."""
        return statistics.fmean(each.cost.macs for each in self.candidates)

    @property
    def params(self) -> float:
        """Its parameters, likewise."""
        return statistics.fmean(each.cost.params for each in self.candidates)


def found(title: str, lines: Sequence[Line]) -> Found:
    """A line of the table, from that of each seed."""
    named = tuple(replace(line.candidate, name=title) for line in lines)
    return Found(title, tuple(line.metrics for line in lines), named)


def table_page(single: Found, lines: Sequence[Found], info: ModelInfo, recipe: Recipe, command: str) -> str:
    """The table, with the latencies measured now, and what has to be known to read it.

    Args:
        single: the line of the single-task networks.
        lines: the others.
        info: the picture and the tasks.
        recipe: what all were trained by.
        command: what to type to train and measure again.
    """
    before = load()
    latency = _latency([single, *lines], info)
    where = environment(1, before)
    facts = "".join(f"* {fact}\n" for fact in _facts(single, recipe, where, latency))
    return f"`{command}`\n\n{table(single, lines, info.tasks, latency)}\n{facts}"


def table(single: Found, lines: Sequence[Found], tasks: Sequence[Task], latency: Latency | None) -> str:
    """Markdown: a row for each line, mean ± standard deviation over seeds; each seed beside its own `single`."""
    ranks = _ranks([single, *lines], tasks)
    heads = [f"{task.name}, {headline(task).name} {headline(task).arrow}" for task in tasks]
    rows = [["", *heads, "Δ_MTL, %", "Δ_I, %", "η̂, %", "safe", "mean rank", "MACs", "parameters", "latency ÷ MTL"]]
    for line in [single, *lines]:
        ratio = latency.ratio(line.title) if latency else None
        told = "–" if ratio is None else interval(ratio)
        figures = [spread(_figures(line, task), ".3f") for task in tasks]
        costs = [human(line.macs), human(line.params), told]
        rows.append([line.title, *figures, *_compared(line, single, tasks), spread(ranks[line.title], ".1f"), *costs])
    return markdown(rows)


def _figures(line: Found, task: Task) -> list[float]:
    return [metrics[task.name][headline(task).name] for metrics in line.metrics]


def _compared(line: Found, single: Found, tasks: Sequence[Task]) -> list[str]:
    """Δ_MTL, Δ_I and η̂ over seeds, each seed beside its own single-task networks, and in how many seeds it was safe."""
    if line is single:
        return ["", "", "", ""]
    pairs = zip(line.metrics, single.metrics, strict=True)
    each = [found for ours, theirs in pairs if (found := compare(tasks, ours, theirs)) is not None]
    told = []
    for number, form in enumerate(("+.1f", "+.1f", ".0f")):
        known = [value for found in each if (value := found.percents[number]) is not None]
        told.append(spread(known, form))
    return [*told, f"{sum(found.safe for found in each)} of {len(each)}"]


def _ranks(lines: Sequence[Found], tasks: Sequence[Task]) -> Mapping[str, list[float]]:
    ranks: dict[str, list[float]] = {line.title: [] for line in lines}
    for seed in range(len(lines[0].metrics)):
        for title, rank in mean_ranks(tasks, {line.title: line.metrics[seed] for line in lines}).items():
            ranks[title].append(rank)
    return ranks


def _latency(lines: Sequence[Found], info: ModelInfo) -> Latency | None:
    """The networks of the first seed that has them all, run in turns in ONNX Runtime.

    None where no seed has them all, or uniform MTL is not among them.
    """
    if BASELINE not in [line.title for line in lines]:
        return None
    seeds = zip(*(line.candidates for line in lines), strict=True)
    chosen = next((seed for seed in seeds if all(each.networks for each in seed)), None)
    if chosen is None:
        return None
    return measure_in_turns({each.name: (each, info) for each in chosen}, BASELINE, PLAN)


def _facts(single: Found, recipe: Recipe, where: Environment, latency: Latency | None) -> list[str]:
    train, backbone, data = recipe.train, recipe.model.backbone, recipe.data
    options = "".join(f", {name} {value}" for name, value in backbone.options.items())
    sizes = ", ".join(f"{name} {value}" for name, value in data.options.items() if isinstance(value, int))
    seeds = len(single.metrics)
    facts = [
        f"{data.name} ({sizes}); backbone {backbone.name}{options}; "
        f"{f'{seeds} seeds, mean ± standard deviation' if seeds > 1 else 'one seed'}; figures are those of the last "
        "epoch on the validation split.",
        f"All are trained for {train.rival_epochs} epochs: what has a copy of the backbone for each task for "
        f"{train.epochs}, from single-task networks of {train.single_epochs}; Safe MTL's and all others from scratch.",
        "Δ_MTL, Δ_I and η̂ are over the single-task networks of the same seed; safe: no metric is worse. Mean rank: "
        "over tasks, of all lines.",
        "MACs, parameters and latency are of what is deployed, the collapsed network; latency of one seed's, "
        "over that of uniform MTL, in ONNX Runtime at batch 1 (95 % bootstrap interval).",
        where.told,
    ]
    return facts + (list(latency.complaints) if latency else [])
