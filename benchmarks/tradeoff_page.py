"""The page of `gatedeploy.benchmarks.tradeoff`: accuracy and cost of every way, and what equal accuracy costs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from gatedeploy.benchmarks.environment import environment, load
from gatedeploy.benchmarks.look import write_picture
from gatedeploy.benchmarks.pareto import Place, accuracy_against
from gatedeploy.benchmarks.timing import Plan
from gatedeploy.benchmarks.ways import Times, Way, time_ways
from gatedeploy.benchmarks.words import human, interval, markdown, ms, sizes, spread
from gatedeploy.files import write_text
from gatedeploy.training.comparing import compare
from gatedeploy.training.metrics import headline
from gatedeploy.training.recipe import Recipe

EQUAL = "No worse is whose Δ_MTL, the mean over seeds, is no less, however much seeds differ."
PLAN = Plan(seconds=180, min_rounds=15, max_rounds=80, block_ms=20, warm_up_ms=200)


def tradeoff_page(ways: Sequence[Way], recipe: Recipe, command: str, settings: str, out: Path) -> str:
    """Measure latencies, write `tradeoff.md` and `tradeoff.svg`, and return what is in the former.

    Args:
        ways: the first is what all are compared with.
        recipe: what they were trained by, but for the width.
        command: what to type to train and measure again.
        settings: what is other than in the recipe that the command names, in words.
        out: the folder.
    """
    before = load()
    times = time_ways(ways, PLAN)
    where = environment(1, before)
    deltas = {way.title: deltas_of(way, ways[0]) for way in ways}
    data, train, backbone = recipe.data, recipe.train, recipe.model.backbone
    timed = (
        "latency at batch 1 on one thread, in turns in one process, with its 95 % bootstrap interval, of ours the mean "
        "over the seeds' networks"
    )
    facts = [
        f"{data.name} ({sizes(data.options)}), {backbone.name} of full and of half width; seeds: "
        f"{len(ways[0].metrics)}, mean ± standard deviation, figures of the last epoch on the validation split. All "
        f"are trained for {train.rival_epochs} epochs, gated networks for {train.epochs} of them, from single-task "
        f"networks of {train.single_epochs}.",
        f"The recipe's settings, but for {settings}.",
        f"Δ_MTL is over “{ways[0].title}” of the same seed. MACs are of what is deployed, collapsed networks laid out "
        f"for ONNX Runtime; {timed if times else 'of some only figures are here, so nothing was timed'}.",
        *((where.told, *times.latency.complaints) if times else ()),
    ]
    told = "".join(f"* {fact}\n" for fact in facts)
    equal = f"### At equal accuracy\n\n{EQUAL}\n\n{equal_accuracy(ways, deltas, times)}\n" if times else ""
    text = f"`{command}`\n\n{costs(ways, deltas, times)}\n{equal}{told}"
    write_picture(accuracy_against(_panels(ways, deltas, times)), out / "tradeoff.svg")
    write_text(out / "tradeoff.md", text)
    return text


def costs(ways: Sequence[Way], deltas: dict[str, list[float]], times: Times | None) -> str:
    """Markdown: what every way reaches and costs."""
    first = ways[0]
    tasks = first.info.tasks
    heads = [f"{task.name}, {headline(task).name} {headline(task).arrow}" for task in tasks]
    rows = [["", *heads, "Δ_MTL, %", "MACs", "÷ first", "median", "latency ÷ first"]]
    for way in ways:
        figures = [
            spread([metrics[task.name][headline(task).name] for metrics in way.metrics], ".3f") for task in tasks
        ]
        reached = spread(deltas[way.title], "+.1f") if way is not first else ""
        taken = [ms(times.median_ms(way)), interval(times.ratio(way, first))] if times else ["–", "–"]
        rows.append([way.title, *figures, reached, human(way.macs), f"{way.macs / first.macs:.2f}", *taken])
    return markdown(rows)


def equal_accuracy(ways: Sequence[Way], deltas: dict[str, list[float]], times: Times) -> str:
    """Markdown: beside each rival the fastest network of ours whose Δ_MTL, the mean over seeds, is no less."""
    ours = sorted((way for way in ways if way.ours), key=times.median_ms)
    rows = [["rival", "Δ_MTL, %", "the fastest no worse", "Δ_MTL, % more", "MACs ÷ rival", "latency ÷ rival"]]
    for rival in (way for way in ways if not way.ours):
        reached = deltas[rival.title]
        told = spread(reached, "+.1f") if rival is not ways[0] else "0"
        more = {way.title: [a - b for a, b in zip(deltas[way.title], reached, strict=True)] for way in ours}
        enough = next((way for way in ours if statistics.fmean(more[way.title]) >= 0), None)
        if enough is None:
            best = max(ours, key=lambda way: statistics.fmean(more[way.title]))
            rows.append([rival.title, told, f"none; nearest: {best.title}", spread(more[best.title], "+.1f"), "–", "–"])
            continue
        ratios = [f"{enough.macs / rival.macs:.2f}", interval(times.ratio(enough, rival))]
        rows.append([rival.title, told, enough.title, spread(more[enough.title], "+.1f"), *ratios])
    return markdown(rows)


def deltas_of(way: Way, first: Way) -> list[float]:
    """Δ_MTL per seed; a network that was not measured, or one beside a 0, is a fault of this benchmark."""
    found = [compare(way.info.tasks, ours, theirs) for ours, theirs in zip(way.metrics, first.metrics, strict=True)]
    known = [each.delta_mtl for each in found if each is not None and each.delta_mtl is not None]
    assert len(known) == len(way.metrics), way.title
    return known


def _panels(ways: Sequence[Way], deltas: dict[str, list[float]], times: Times | None) -> dict[str, list[Place]]:
    def places(cost: dict[str, float]) -> list[Place]:
        found = []
        for way in ways:
            gains = deltas[way.title]
            deviation = statistics.stdev(gains) if len(gains) > 1 else 0.0
            kind = "ours" if way.ours else "rival"
            found.append(
                Place(way.title.removeprefix("gated, "), kind, cost[way.title], statistics.fmean(gains), deviation)
            )
        return found

    panels = {"multiply-adds, millions": places({way.title: way.macs / 1e6 for way in ways})}
    if times:
        panels["milliseconds in ONNX Runtime, one thread"] = places({way.title: times.median_ms(way) for way in ways})
    return panels
