"""What each tactic of a layout is worth: networks laid out without it, beside the one that may use all of them.

    python -m gatedeploy.benchmarks.tactics [--runtime openvino] [--tasks 3] [--specific 0.1 0.3]

ResNet-18 at 128×128 with random gates, tied in groups and free; batch 1, one thread, all networks of a column in
turns in one process. A figure is the time without the tactic over the time with all of them, the median over rounds:
above 1 the tactic pays. The others make up for what they can, so the figures do not add up.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch

from gatedeploy.benchmarks.latency import relative_spread
from gatedeploy.benchmarks.realisation import FREE, PLAN, QUICK, TIED, gated_program, open_checked
from gatedeploy.benchmarks.runners import ONE_THREAD, picture
from gatedeploy.benchmarks.timing import measure
from gatedeploy.errors import run_program
from gatedeploy.graph.build import channel_graph
from gatedeploy.graph.prices import Prices
from gatedeploy.lowering import lower, passes_by_price, passes_to_sums
from gatedeploy.passes.absorb_scales import AbsorbScales
from gatedeploy.passes.align_counts import AlignCounts
from gatedeploy.passes.base import Pass, run_passes
from gatedeploy.passes.complete_mixes import CompleteMixes
from gatedeploy.passes.emit import emit
from gatedeploy.passes.order_channels import OrderChannels
from gatedeploy.passes.partition_sums import PartitionSums
from gatedeploy.price_tables import prices_of
from gatedeploy.program import Program

ALL, NONE = "all tactics", "any of them"
NEVER = 1e6
"""A price that nobody pays."""

WITHOUT: dict[str, tuple[type[Pass], ...]] = {
    "mixes that hand on what they do not mix": (CompleteMixes,),
    "absorbed scales": (AbsorbScales,),
    "tensors cut and joined by price": (PartitionSums,),
    "whole vectors of channels": (AlignCounts,),
    "one order of channels, and whole vectors": (OrderChannels, AlignCounts),
}
"""By tactic, the passes that are it."""


class _Gathering(Prices):
    """Prices at which no channel is selected by a 1×1 layer."""

    def selected(self, rows: int, positions: int, sources: Sequence[int]) -> float:
        return NEVER


TOO_DEAR: dict[str, Callable[[Prices], Prices]] = {
    "tensors joined for a reader": lambda prices: replace(prices, join_ms=NEVER),
    "channels cut out for a reader": lambda prices: replace(prices, cut_launch_ms=NEVER, gather_launch_ms=NEVER),
    "mixes by gathering": lambda prices: replace(prices, turn_launch_ms=NEVER),
    "mixes by 1×1 layers": lambda prices: _Gathering(
        **{each.name: getattr(prices, each.name) for each in fields(prices) if each.init}
    ),
}
"""By tactic, prices at which it is not chosen."""


def layouts(gated: Program, prices: Prices) -> dict[str, Program]:
    """The network with all tactics, with none, and without each."""
    found = {ALL: _laid_out(gated, prices, ()), NONE: lower(gated).program}
    found |= {name: _laid_out(gated, prices, passes) for name, passes in WITHOUT.items()}
    return found | {name: _laid_out(gated, change(prices), ()) for name, change in TOO_DEAR.items()}


def _laid_out(gated: Program, prices: Prices, without: tuple[type[Pass], ...]) -> Program:
    graph = channel_graph(gated)
    steps = [*passes_to_sums(prices), *passes_by_price(prices)]
    run_passes(graph, [step for step in steps if not isinstance(step, without)])
    return emit(graph, prices)


def worth(gated: Program, runtime: str) -> dict[str, tuple[float, float]]:
    """By tactic: the time without it over the time with all of them, and the spread of that."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        runners = {
            name: [stack.enter_context(open_checked(program, runtime, Path(folder)))]
            for name, program in layouts(gated, prices_of(runtime)).items()
        }
        latency = measure(runners, picture(gated.input), ALL, PLAN)
    ratios = {name: latency.ratios(name) for name in runners if name != ALL}
    return {name: (float(np.median(each)), relative_spread(each)) for name, each in ratios.items()}


def main() -> None:
    """Measure every column, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runtime", choices=list(ONE_THREAD), default="onnxruntime")
    parser.add_argument("--tasks", type=int, default=3)
    parser.add_argument("--specific", type=float, nargs="+", default=(0.1, 0.3), help="shares of specific channels")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    columns = {}
    for kind, gates in (("tied", TIED), ("free", FREE)):
        for specific in arguments.specific:
            gated = gated_program(QUICK[0], arguments.tasks, specific, **gates)
            columns[f"{kind}, p = {specific:g}"] = worth(gated, arguments.runtime)
    for row in _rows(columns):
        print(f"| {' | '.join(row)} |")


def _rows(columns: dict[str, dict[str, tuple[float, float]]]) -> Iterator[list[str]]:
    first, *_ = columns.values()
    yield ["without", *columns]
    yield ["---"] * (1 + len(columns))
    for name in first:
        yield [name, *(f"{ratio:.2f} ± {spread:.0%}" for ratio, spread in (each[name] for each in columns.values()))]


if __name__ == "__main__":
    run_program(main)
