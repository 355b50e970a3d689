"""What came of many ways of sharing: accuracy, cost and latency of the collapsed networks, as one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gatedeploy.benchmarks.environment import Environment, environment, load
from gatedeploy.benchmarks.timing import Plan
from gatedeploy.benchmarks.ways import Times, Way, time_ways
from gatedeploy.benchmarks.words import human, interval, markdown, sizes, spread
from gatedeploy.specs import Task
from gatedeploy.training.comparing import compare, mean_ranks
from gatedeploy.training.metrics import headline
from gatedeploy.training.recipe import Recipe

PLAN = Plan(seconds=90, min_rounds=15, max_rounds=60, block_ms=20, warm_up_ms=200)
SINGLE = "single-task networks"
BASELINE = "uniform MTL"


def table_page(single: Way, lines: Sequence[Way], recipe: Recipe, command: str) -> str:
    """The table, with the latencies measured now, and what has to be known to read it.

    Args:
        single: the line of the single-task networks.
        lines: the others.
        recipe: what all were trained by.
        command: what to type to train and measure again.
    """
    before = load()
    times = time_ways([single, *lines], PLAN) if any(line.title == BASELINE for line in lines) else None
    where = environment(1, before)
    facts = "".join(f"* {fact}\n" for fact in _facts(single, recipe, where, times))
    return f"`{command}`\n\n{table(single, lines, times)}\n{facts}"


def table(single: Way, lines: Sequence[Way], times: Times | None) -> str:
    """Markdown: a row for each line, mean ± standard deviation over seeds; each seed beside its own `single`."""
    tasks = single.info.tasks
    ranks = _ranks([single, *lines], tasks)
    baseline = next((line for line in lines if line.title == BASELINE), single)
    heads = [f"{task.name}, {headline(task).name} {headline(task).arrow}" for task in tasks]
    rows = [["", *heads, "Δ_MTL, %", "Δ_I, %", "η̂, %", "safe", "mean rank", "MACs", "parameters", "latency ÷ MTL"]]
    for line in [single, *lines]:
        told = interval(times.ratio(line, baseline)) if times else "–"
        figures = [spread(_figures(line, task), ".3f") for task in tasks]
        costs = [human(line.macs), human(line.params), told]
        rows.append([line.title, *figures, *_compared(line, single, tasks), spread(ranks[line.title], ".1f"), *costs])
    return markdown(rows)


def _figures(line: Way, task: Task) -> list[float]:
    return [metrics[task.name][headline(task).name] for metrics in line.metrics]


def _compared(line: Way, single: Way, tasks: Sequence[Task]) -> list[str]:
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


def _ranks(lines: Sequence[Way], tasks: Sequence[Task]) -> Mapping[str, list[float]]:
    ranks: dict[str, list[float]] = {line.title: [] for line in lines}
    for seed in range(len(lines[0].metrics)):
        for title, rank in mean_ranks(tasks, {line.title: line.metrics[seed] for line in lines}).items():
            ranks[title].append(rank)
    return ranks


def _facts(single: Way, recipe: Recipe, where: Environment, times: Times | None) -> list[str]:
    train, backbone, data = recipe.train, recipe.model.backbone, recipe.data
    options = "".join(f", {name} {value}" for name, value in backbone.options.items())
    seeds = len(single.metrics)
    facts = [
        f"{data.name} ({sizes(data.options)}); backbone {backbone.name}{options}; "
        f"{f'{seeds} seeds, mean ± standard deviation' if seeds > 1 else 'one seed'}; figures are those of the last "
        "epoch on the validation split.",
        f"All are trained for {train.rival_epochs} epochs: what has a copy of the backbone for each task for "
        f"{train.epochs}, from single-task networks of {train.single_epochs}; Safe MTL's and all others from scratch.",
        "Δ_MTL, Δ_I and η̂ are over the single-task networks of the same seed; safe: no metric is worse. Mean rank: "
        "over tasks, of all lines.",
        "MACs, parameters and latency are of what is deployed, the collapsed network; latency over that of uniform "
        "MTL, in ONNX Runtime at batch 1 (95 % bootstrap interval), of gated networks the mean over seeds.",
        where.told,
    ]
    return facts + (list(times.latency.complaints) if times else [])
