"""How cost grows with the number of tasks: collapsed networks, single-task networks, one shared encoder, experts.

    python -m gatedeploy.benchmarks.task_counts [--backbone resnet20 …] [--tasks 2 3 4 5 6 7 8] [--out DIR]

Gates are drawn at random, so that each channel is specific to a task with probability p; neither multiply-adds nor
milliseconds depend on anything else that training would change. As a few gates decide over many channels, they are
drawn several times, and the mean is told. All networks for a number of tasks take turns with one single-task network,
in ONNX Runtime, batch 1, one thread, and everything is over that.

    DIR/task_counts.md               a table for each backbone
    DIR/task_counts_<backbone>.svg   latency against tasks
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gatedeploy.artifact import ModelInfo
from gatedeploy.benchmarks.candidates import candidate, mixture_candidates
from gatedeploy.benchmarks.environment import environment, load
from gatedeploy.benchmarks.latency import Ratio
from gatedeploy.benchmarks.look import write_picture
from gatedeploy.benchmarks.plots import Series, growth
from gatedeploy.benchmarks.random_gates import Trunk, parts, random_gates
from gatedeploy.benchmarks.rivals import rivals_of_gates
from gatedeploy.benchmarks.timing import Plan
from gatedeploy.benchmarks.ways import Way, time_ways
from gatedeploy.benchmarks.words import human, interval, markdown, ms
from gatedeploy.compiler import collapse
from gatedeploy.errors import run_program
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

PLAN = Plan(seconds=45, min_rounds=15, max_rounds=60, block_ms=20, warm_up_ms=100)
ONE = "one single-task network"
WORDS = {"stl": "single-task", "mtl": "one encoder", "moe": "experts, passes", "moe-batch": "experts, batched"}


@dataclass(frozen=True)
class Answered:
    """So many tasks, answered in all ways.

    Args:
        latencies: by what a way is called, over one single-task network.
        macs: likewise.
        one: what that network costs, in words.
        complaints: what makes the measurement doubtful.
    """

    latencies: dict[str, Ratio]
    macs: dict[str, float]
    one: str
    complaints: list[str]


def ways_of(trunk: Trunk, number: int) -> dict[str, Way]:
    """All ways to answer so many tasks, and one single-task network, by what they are called."""
    backbone, tasks, heads = parts(trunk, number)
    example = torch.zeros(2, 3, *trunk.size)

    def gated(share: float, draw: int) -> Program:
        return capture(random_gates(trunk, number, share, tie="residual", group=GROUP, seed=draw), example)

    program = gated(SHARES[0], 0)
    plain, info = rivals_of_gates(program), ModelInfo(tuple(tasks), program.input)
    single = list(plain.single.values())
    found = [candidate("stl", single, info.input), candidate("mtl", [plain.shared], info.input)]
    found += mixture_candidates(moe(backbone, tasks, heads, example).eval(), info.input)
    one = candidate("stl", single[:1], info.input)
    ways = {ONE: Way(ONE, False, replace(info, tasks=info.tasks[:1]), (one,))}
    ways |= {WORDS[each.kind]: Way(WORDS[each.kind], False, info, (each,)) for each in found}
    for share in SHARES:
        thin = [collapse(gated(share, draw)) for draw in range(DRAWS)]
        candidates = tuple(candidate("collapsed", [each], info.input) for each in thin)
        called = f"collapsed, p = {share:g}"
        ways[called] = Way(called, True, info, candidates)
    return ways


def answered(trunk: Trunk, number: int) -> Answered:
    """Time all ways to answer so many tasks; only figures are kept of them, for the networks are gigabytes."""
    ways = ways_of(trunk, number)
    times = time_ways(list(ways.values()), PLAN)
    assert times is not None  # all have networks
    one = ways.pop(ONE)
    latencies = {called: times.ratio(way, one) for called, way in ways.items()}
    macs = {called: way.macs / one.macs for called, way in ways.items()}
    told = f"has {human(one.macs)} multiply-adds and takes {ms(times.median_ms(one))}"
    return Answered(latencies, macs, told, times.latency.complaints)


def tables(found: Mapping[int, Answered]) -> str:
    """Markdown: latency, then multiply-adds, of every way (a row) for every number of tasks (a column), over `ONE`."""
    counts = list(map(str, found))
    latency, macs = [["latency", *counts]], [["multiply-adds", *counts]]
    for called in next(iter(found.values())).macs:
        latency.append([called, *(interval(each.latencies[called]) for each in found.values())])
        macs.append([called, *(f"{each.macs[called]:.2f}" for each in found.values())])
    return f"{markdown(latency)}\n{markdown(macs)}"


def figure(found: Mapping[int, Answered]) -> Figure:
    """Latency against tasks."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for number, each in found.items():
        for called, ratio in each.latencies.items():
            if ratio.told:
                lines.setdefault(called, []).append((number, ratio.value))
    series = [Series(called, called.startswith("collapsed"), line) for called, line in lines.items()]
    return growth(series, "tasks", f"latency, × {ONE}")


def section(name: str, counts: Sequence[int], out: Path) -> str:
    """Measure one backbone, draw it, and return its part of the page."""
    trunk = TRUNKS[name]
    found = {number: answered(trunk, number) for number in counts}
    write_picture(figure(found), out / f"task_counts_{name}.svg")
    height, width = trunk.size
    told = (
        f"{name}, {height}×{width}, heads: {trunk.head}; {ONE} {found[counts[0]].one}. Collapsed: the mean of {DRAWS} "
        f"draws of gates, {GROUP} channels to a gate."
    )
    complaints = "".join(f"* T = {number}: {said}\n" for number, each in found.items() for said in each.complaints)
    return f"## {name}\n\n{told}\n\n{tables(found)}\n{complaints}"


def main() -> None:
    """Read the command line, measure, and print the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backbone", choices=list(TRUNKS), nargs="+", default=list(TRUNKS)[:2])
    parser.add_argument("--tasks", type=int, nargs="+", default=TASKS)
    parser.add_argument("--out", type=Path, default=Path("task_counts"))
    asked = parser.parse_args()
    if min(asked.tasks) < 1:
        parser.error(f"--tasks: expected numbers of at least 1, got {min(asked.tasks)}")
    torch.set_num_threads(1)
    before = load()
    text = "\n".join(section(name, asked.tasks, asked.out) for name in asked.backbone)
    text += f"\n* {environment(1, before).told}\n"
    write_text(asked.out / "task_counts.md", text)
    print(text)


if __name__ == "__main__":
    run_program(main)
