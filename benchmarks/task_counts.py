"""How cost grows with the number of tasks: collapsed networks, single-task networks, one shared encoder, experts.

    python -m gatedeploy.benchmarks.task_counts [--backbone resnet20 …] [--tasks 2 3 4 5 6 7 8] [--out DIR]

Gates are drawn at random, so that each channel is specific to a task with probability p; neither multiply-adds nor
milliseconds depend on anything else that training would change. As a few gates decide over many channels, they are
drawn several times, and the mean is told. All networks of a backbone, for every number of tasks, take turns in one
process, in ONNX Runtime, batch 1, one thread. Everything is over one single-task network.

    DIR/task_counts.md               a table for each backbone
    DIR/task_counts_<backbone>.svg   milliseconds against tasks
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gatedeploy.artifact import ModelInfo
from gatedeploy.benchmarks.candidates import candidate, mixture_candidates
from gatedeploy.benchmarks.environment import environment, load
from gatedeploy.benchmarks.latency import Plan
from gatedeploy.benchmarks.plots import Series, growth, write_picture
from gatedeploy.benchmarks.random_gates import Trunk, parts, random_gates
from gatedeploy.benchmarks.rivals import rivals_of_gates
from gatedeploy.benchmarks.ways import Times, Way, time_ways
from gatedeploy.benchmarks.words import human, interval, markdown, ms
from gatedeploy.compiler import collapse
from gatedeploy.files import write_text
from gatedeploy.graph.capture import capture
from gatedeploy.models.moe import moe
from gatedeploy.program import Program

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRUNKS = {
    "resnet20": Trunk("resnet20", {}, "dense", (64, 64)),
    "resnet18": Trunk("resnet18", {}, "linear", (128, 128)),
    "vit_s16": Trunk("vit_s16", {"size": (128, 128)}, "linear", (128, 128)),
}
TASKS = (2, 3, 4, 5, 6, 7, 8)
SHARES = (0.1, 0.3)
DRAWS = 3
GROUP = 8
"""Neighbouring channels whose gates turn together, along all of a residual stream."""

PLAN = Plan(seconds=300, min_rounds=15, max_rounds=60, block_ms=20, warm_up_ms=100)
ONE = "one single-task network"
WORDS = {"stl": "single-task", "mtl": "one encoder", "moe": "experts, passes", "moe-batch": "experts, batched"}

Ways = Mapping[str, Mapping[int, Way]]
"""By what they are called, and for how many tasks."""


def all_ways(trunk: Trunk, counts: Sequence[int]) -> tuple[Way, Ways]:
    """One single-task network, and all ways to answer each number of tasks."""
    found: dict[str, dict[int, Way]] = {}
    for number in counts:
        for called, way in ways_of(trunk, number).items():
            found.setdefault(called, {})[number] = way
    several = found[WORDS["stl"]][counts[0]]
    alone = replace(several.info, tasks=several.info.tasks[:1])
    one = candidate("stl", several.candidates[0].networks[:1], alone.input)
    return Way(ONE, False, alone, (one,)), found


def ways_of(trunk: Trunk, number: int) -> dict[str, Way]:
    """All ways to answer so many tasks."""
    backbone, tasks, heads = parts(trunk, number)
    example = torch.zeros(2, 3, *trunk.size)

    def gated(share: float, draw: int) -> Program:
        return capture(random_gates(trunk, number, share, tie="residual", group=GROUP, seed=draw), example)

    program = gated(SHARES[0], 0)
    plain, info = rivals_of_gates(program), ModelInfo(tuple(tasks), program.input)
    found = [candidate("stl", list(plain.single.values()), info.input), candidate("mtl", [plain.shared], info.input)]
    found += mixture_candidates(moe(backbone, tasks, heads, example).eval(), info.input)
    ways = {WORDS[each.kind]: Way(f"{WORDS[each.kind]}, T = {number}", False, info, (each,)) for each in found}
    for share in SHARES:
        thin = [collapse(gated(share, draw)) for draw in range(DRAWS)]
        candidates = tuple(candidate("collapsed", [each], info.input) for each in thin)
        called = f"collapsed, p = {share:g}"
        ways[called] = Way(f"{called}, T = {number}", True, info, candidates)
    return ways


def tables(one: Way, ways: Ways, times: Times) -> str:
    """Markdown: latency, then multiply-adds, of every way (a row) for every number of tasks (a column), over `ONE`."""
    counts = list(map(str, next(iter(ways.values()))))
    latency, macs = [["latency", *counts]], [["multiply-adds", *counts]]
    for called, by_count in ways.items():
        latency.append([called, *(interval(times.ratio(way, one)) for way in by_count.values())])
        macs.append([called, *(f"{way.macs / one.macs:.2f}" for way in by_count.values())])
    return f"{markdown(latency)}\n{markdown(macs)}"


def figure(ways: Ways, times: Times) -> Figure:
    """Milliseconds against tasks."""
    series = [
        Series(called, called.startswith("collapsed"), [(count, times.median_ms(way)) for count, way in each.items()])
        for called, each in ways.items()
    ]
    return growth(series, "tasks", "milliseconds a request, one thread")


def section(name: str, counts: Sequence[int], out: Path) -> str:
    """Measure one backbone, draw it, and return its part of the page."""
    one, ways = all_ways(TRUNKS[name], counts)
    times = time_ways([one, *(way for each in ways.values() for way in each.values())], PLAN)
    assert times is not None  # all have networks
    write_picture(figure(ways, times), out / f"task_counts_{name}.svg")
    height, width = TRUNKS[name].size
    told = (
        f"{name}, {height}×{width}, heads: {TRUNKS[name].head}; {ONE} has {human(one.macs)} multiply-adds and takes "
        f"{ms(times.median_ms(one))}. Collapsed: the mean of {DRAWS} draws of gates, {GROUP} channels to a gate."
    )
    complaints = "".join(f"* {each}\n" for each in times.latency.complaints)
    return f"## {name}\n\n{told}\n\n{tables(one, ways, times)}\n{complaints}"


def main() -> None:
    """Read the command line, measure, and print the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backbone", choices=list(TRUNKS), nargs="+", default=list(TRUNKS)[:2])
    parser.add_argument("--tasks", type=int, nargs="+", default=TASKS)
    parser.add_argument("--out", type=Path, default=Path("task_counts"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    before = load()
    text = "\n".join(section(name, asked.tasks, asked.out) for name in asked.backbone)
    text += f"\n* {environment(1, before).told}\n"
    write_text(asked.out / "task_counts.md", text)
    print(text)


if __name__ == "__main__":
    main()
