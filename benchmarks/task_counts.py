"""How cost grows with the number of tasks: collapsed networks, single-task networks, one shared encoder, experts.

    python -m gatedeploy.benchmarks.task_counts [--backbone resnet20 …] [--tasks 2 3 4 5 6 7 8] [--out DIR]

Gates are drawn at random, so that each channel is specific to a task with probability p; neither multiply-adds nor
milliseconds depend on anything else that training would change. All networks of a backbone, for every number of tasks,
take turns in one process, in ONNX Runtime, batch 1, one thread. Everything is over one single-task network.

    DIR/task_counts.md               a table for each backbone
    DIR/task_counts_<backbone>.svg   milliseconds against tasks
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gatedeploy.artifact import ModelInfo
from gatedeploy.benchmarks.candidates import Candidate, candidate, mixture_candidates
from gatedeploy.benchmarks.environment import environment, load
from gatedeploy.benchmarks.latency import Latency, Plan
from gatedeploy.benchmarks.plots import Series, growth, write_picture
from gatedeploy.benchmarks.random_gates import Trunk, parts, random_gates
from gatedeploy.benchmarks.rivals import rivals_of_gates
from gatedeploy.benchmarks.runners import measure_in_turns
from gatedeploy.benchmarks.words import human, interval, markdown, ms
from gatedeploy.compiler import collapse
from gatedeploy.files import write_text
from gatedeploy.graph.capture import capture
from gatedeploy.models.moe import moe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRUNKS = {
    "resnet20": Trunk("resnet20", {}, "dense", (64, 64)),
    "resnet18": Trunk("resnet18", {}, "linear", (128, 128)),
    "vit_s16": Trunk("vit_s16", {"size": (128, 128)}, "linear", (128, 128)),
}
TASKS = (2, 3, 4, 5, 6, 7, 8)
SHARES = (0.1, 0.3)
GROUP = 8
"""Neighbouring channels whose gates turn together, along all of a residual stream."""

PLAN = Plan(seconds=300, min_rounds=15, max_rounds=60, block_ms=20, warm_up_ms=100)
ONE = "one single-task network"
WORDS = {"stl": "single-task", "mtl": "one encoder", "moe": "experts, passes", "moe-batch": "experts, batched"}


@dataclass(frozen=True)
class Asked:
    """One way to answer so many tasks.

    Args:
        way: what it is called.
        info: the tasks and the picture.
        candidate: what runs.
    """

    way: str
    info: ModelInfo
    candidate: Candidate

    @property
    def name(self) -> str:
        """One that no other has."""
        return f"{self.way}, T = {len(self.info.tasks)}"


def all_ways(trunk: Trunk, counts: Sequence[int]) -> Iterator[Asked]:
    """One single-task network first, then all ways for each number of tasks."""
    for number in counts:
        backbone, tasks, heads = parts(trunk, number)
        example = torch.zeros(2, 3, *trunk.size)
        gated = {
            share: capture(random_gates(trunk, number, share, tie="residual", group=GROUP), example) for share in SHARES
        }
        input = gated[SHARES[0]].input
        info = ModelInfo(tuple(tasks), input)
        rivals = rivals_of_gates(gated[SHARES[0]])
        single = list(rivals.single.values())
        if number == counts[0]:
            yield Asked(ONE, replace(info, tasks=info.tasks[:1]), candidate("stl", single[:1], input))
        found = [candidate("stl", single, input), candidate("mtl", [rivals.shared], input)]
        found += mixture_candidates(moe(backbone, tasks, heads, example).eval(), input)
        yield from (Asked(WORDS[each.kind], info, each) for each in found)
        for share, program in gated.items():
            yield Asked(f"collapsed, p = {share:g}", info, candidate("collapsed", [collapse(program)], input))


def time_all(found: Sequence[Asked]) -> Latency:
    """All in turns, in ONNX Runtime; the first is the baseline."""
    return measure_in_turns({each.name: (each.candidate, each.info) for each in found}, found[0].name, PLAN)


def tables(found: Sequence[Asked], latency: Latency) -> str:
    """Markdown: latency, then multiply-adds, of every way (a row) for every number of tasks (a column), over `ONE`."""
    counts = list(dict.fromkeys(len(each.info.tasks) for each in found[1:]))
    by_way: dict[str, dict[int, Asked]] = {}
    for each in found[1:]:
        by_way.setdefault(each.way, {})[len(each.info.tasks)] = each
    heads = ["T", *map(str, counts)]
    times, macs = [["latency", *heads[1:]]], [["multiply-adds", *heads[1:]]]
    for way, of in by_way.items():
        ratios = [latency.ratio(of[count].name) for count in counts]
        times.append([way, *map(interval, ratios)])
        macs.append([way, *(f"{of[count].candidate.cost.macs / found[0].candidate.cost.macs:.2f}" for count in counts)])
    return f"{markdown(times)}\n{markdown(macs)}"


def figure(found: Sequence[Asked], latency: Latency) -> Figure:
    """Milliseconds against tasks."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for each in found[1:]:
        lines.setdefault(each.way, []).append((len(each.info.tasks), latency.of(each.name).median_ms))
    series = [Series(way, way.startswith("collapsed"), points) for way, points in lines.items()]
    return growth(series, "tasks", "milliseconds a request, one thread")


def section(name: str, counts: Sequence[int], out: Path) -> str:
    """Measure one backbone, draw it, and return its part of the page."""
    found = list(all_ways(TRUNKS[name], counts))
    latency = time_all(found)
    write_picture(figure(found, latency), out / f"task_counts_{name}.svg")
    height, width = TRUNKS[name].size
    one = found[0].candidate.cost.macs, latency.of(found[0].name).median_ms
    told = (
        f"{name}, {height}×{width}, heads: {TRUNKS[name].head}; {ONE} has {human(one[0])} multiply-adds and takes "
        f"{ms(one[1])}."
    )
    complaints = "".join(f"* {each}\n" for each in latency.complaints)
    return f"## {name}\n\n{told}\n\n{tables(found, latency)}\n{complaints}"


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
