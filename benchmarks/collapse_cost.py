"""What collapsing costs: seconds by stage and peak memory, over numbers of tasks and depths.

    python -m gatedeploy.benchmarks.collapse_cost [--tasks 2 4 8] [--backbones resnet18 resnet50] [--size 480 640]
        [--specific 0.3] [--tied] [--verify]

Networks at output stride 8 with ASPP heads; random gates. `plain` is what `gatedeploy prune --optimize none` does, `by
price` what it does by default. Memory is what a process of its own holds at its peak, beyond what it held before, in
units of the gated network's weights. `gd.collapse` verifies its result too: it runs both networks on three full-size
pictures in float64, whose convolutions unfold their inputs. What that takes is told apart, and only when asked for.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context

import torch

import gatedeploy as gd
from gatedeploy.benchmarks.memory import PeakMemory
from gatedeploy.benchmarks.random_gates import Trunk, random_gates
from gatedeploy.benchmarks.realisation import FREE, TIED
from gatedeploy.compiler import Collapsed
from gatedeploy.errors import run_program
from gatedeploy.graph.capture import capture
from gatedeploy.graph.cost import cost
from gatedeploy.lowering import lower
from gatedeploy.price_tables import prices_of_target

MIB = 1 << 20


@dataclass(frozen=True)
class Case:
    """What is collapsed: a backbone's name, how many tasks, height and width, gates, by price or plainly."""

    backbone: str
    tasks: int
    size: tuple[int, int]
    specific: float
    tied: bool
    by_price: bool
    verify: bool


def measure(case: Case) -> str:
    """Collapse once; returns a row of the table."""
    torch.set_num_threads(1)
    gates, target = TIED if case.tied else FREE, "cpu" if case.by_price else None
    trunk = Trunk(case.backbone, {"output_stride": 8}, "aspp", case.size)
    network = random_gates(trunk, case.tasks, case.specific, **gates)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
    example = torch.zeros(1, 3, *case.size)
    started = time.perf_counter()
    with PeakMemory() as memory:
        program = capture(network, example)
        captured = time.perf_counter()
        thin = Collapsed(lower(program, prices_of_target(target)).program).float()
        done = time.perf_counter()
    macs = f"{cost(program).macs / 1e9:.1f} → {cost(thin.program).macs / 1e9:.1f}"
    cells = [f"{captured - started:.1f}", f"{done - captured:.1f}", f"{done - started:.1f}", memory_of(memory, weights)]
    if case.verify:
        del thin
        with PeakMemory() as memory:
            report = gd.collapse(program, target=target).report
        assert report is not None
        cells += [f"{report.seconds['verification']:.0f}", memory_of(memory, weights)]
    form = "by price" if case.by_price else "plain"
    return row(case.backbone, f"{case.tasks}", form, f"{weights / MIB:.0f}", macs, *cells)


def memory_of(memory: PeakMemory, weights: int) -> str:
    """A peak in units of the weights' bytes."""
    return "–" if memory.more is None else f"{memory.more / weights:.2f}"


def row(*cells: str) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure every case in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", type=int, nargs="+", default=(2, 4, 8))
    parser.add_argument("--backbones", nargs="+", default=("resnet18", "resnet50"))
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--specific", type=float, default=0.3, help="share of task-specific channels")
    parser.add_argument("--tied", action="store_true", help="gates in groups of 16, tied along residual streams")
    parser.add_argument("--verify", action="store_true", help="verify too, and say what that takes")
    arguments = parser.parse_args()
    size = (arguments.size[0], arguments.size[1])
    heads = ["backbone", "T", "layout", "weights, MiB", "GMACs", "capture, s", "passes, s", "both, s", "peak ÷ weights"]
    heads += ["verification, s", "with it, peak ÷ weights"] if arguments.verify else []
    print(row(*heads))
    print(row(*["---"] * len(heads)))
    for backbone, tasks, by_price in product(arguments.backbones, arguments.tasks, (False, True)):
        case = Case(backbone, tasks, size, arguments.specific, arguments.tied, by_price, arguments.verify)
        with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
            print(fresh.submit(measure, case).result(), flush=True)


if __name__ == "__main__":
    run_program(main)
