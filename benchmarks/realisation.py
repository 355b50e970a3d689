"""How much of what the MAC count promises arrives in milliseconds, over a matrix of gated networks.

    python -m gatedeploy.benchmarks.realisation [--quick] [--runtime openvino] [--json]
        [--backbone vit_s16 …] [--trained checkpoint.pt …]

Realisation = (latency ÷ latency of uniform MTL) ÷ (fewest MACs ÷ MACs of uniform MTL), batch 1, one thread, everything
in turns in one process; 1 is what the count promises. *Fewest MACs* are those of the exact collapsed network before
anything is traded for speed; what is executed may be more, and is told beside it. Three lowerings stand side by side:
the *collapse* for the runtime's prices (in PyTorch ONNX Runtime's), as `prune --optimize default` makes it, the *plain*
one, as `--optimize none` does, and the *naive* one (`gatedeploy.benchmarks.naive`). What the runtime computes wrongly
is left out, and told.

Gates are drawn at random, each specific with probability p, or are those of checkpoints that were trained.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gatedeploy.artifact import names_only, read_checkpoint
from gatedeploy.benchmarks.environment import environment, load
from gatedeploy.benchmarks.latency import relative_spread
from gatedeploy.benchmarks.naive import lower_naively
from gatedeploy.benchmarks.random_gates import Trunk, random_gates
from gatedeploy.benchmarks.rivals import with_all_gates
from gatedeploy.benchmarks.runners import ONE_THREAD, picture
from gatedeploy.benchmarks.timing import Plan, measure
from gatedeploy.compiler import Collapsed
from gatedeploy.errors import CheckError, run_program
from gatedeploy.exporters.to_onnx import export_onnx
from gatedeploy.graph.capture import capture
from gatedeploy.graph.cost import cost
from gatedeploy.lowering import lower
from gatedeploy.parity import FLOAT32, compare
from gatedeploy.price_tables import prices_of
from gatedeploy.program import Program, evaluate, flat_predictions
from gatedeploy.runners.base import Runner
from gatedeploy.runners.in_torch import TorchRunner

PLAN = Plan(seconds=15, min_rounds=15, max_rounds=60, block_ms=60, warm_up_ms=300)
LAID_OUT_FOR = {"torch": "onnxruntime"}
"""Whose prices a runtime without a table goes by: those that a collapse goes by unless told otherwise."""

SEED = 0
TASKS = (3, 5)
SHARES = (0.1, 0.2, 0.3)
TIED: dict[str, Any] = {"tie": "residual", "group": 16}
FREE: dict[str, Any] = {"tie": None, "group": 1}
QUICK = [Trunk("resnet18", {}, "linear", (128, 128))]
FULL = [
    *QUICK,
    Trunk("resnet18", {}, "linear", (256, 256)),  # weights, which caches do not hold, count for less beside the rest
    Trunk("resnet50", {"output_stride": 8}, "aspp", (96, 128)),
    # Dilated taps that fall beside the map are counted but not computed, and ASPP at this size is mostly such taps.
    Trunk("resnet50", {"output_stride": 8}, "dense", (96, 128)),
    Trunk("resnet20", {"width": 0.5}, "linear", (64, 64)),
    Trunk("vit_s16", {"size": (128, 128)}, "linear", (128, 128)),
    Trunk("hrnet18", {}, "hrnet", (96, 128)),
]


@dataclass(frozen=True)
class Cell:
    """One network in one lowering, beside uniform MTL.

    Args:
        backbone: its name, or the file of a trained network.
        head: the name of its tasks' heads; None where a file does not tell.
        size: height and width of the picture.
        tasks: how many.
        specific: the share of specific channels; None for trained gates.
        group: of its gates; None where a file does not tell.
        tie: likewise.
        lowering: `collapse`, `plain` or `naive`.
        runtime: what ran it.
        mac_ratio: fewest MACs over those of uniform MTL.
        executed_mac_ratio: the same of what is executed.
        latency_ratio: median over rounds.
        realisation: latency_ratio / mac_ratio.
        spread: interquartile range of the rounds' latency ratios over their median.
    """

    backbone: str
    head: str | None
    size: tuple[int, int]
    tasks: int
    specific: float | None
    group: int | None
    tie: str | None
    lowering: str
    runtime: str
    mac_ratio: float
    executed_mac_ratio: float
    latency_ratio: float
    realisation: float
    spread: float


def gated_program(trunk: Trunk, tasks: int, specific: float, *, tie: str | None, group: int) -> Program:
    """The program of a network as `random_gates` makes it."""
    network = random_gates(trunk, tasks, specific, tie=tie, group=group, seed=SEED)
    return capture(network, torch.zeros(2, 3, *trunk.size))


def realise(gated: Program, runtime: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """By lowering, the ratios of a `Cell`.

    Args:
        gated: the network as trained.
        runtime: one of `RUNTIMES`.
    """
    shared = lower(with_all_gates(gated, specific=False)).program
    naive = lower_naively(gated)
    programs = {"mtl": shared, "naive": naive, "plain": lower(gated).program}
    programs["collapse"] = lower(gated, prices_of(LAID_OUT_FOR.get(runtime, runtime))).program
    base, fewest = cost(shared).macs, cost(naive).macs
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        opened = {}
        for name, program in programs.items():
            try:
                opened[name] = [stack.enter_context(open_checked(program, runtime, Path(folder)))]
            except CheckError as error:
                if name == "mtl":
                    raise
                print(f"{name} is left out: {error}", file=sys.stderr)
        latency = measure(opened, picture(gated.input), "mtl", PLAN, seed=SEED)
    for name in (name for name in opened if name != "mtl"):
        ratios = latency.ratios(name)
        ratio = float(np.median(ratios))
        yield (
            name,
            {
                "mac_ratio": fewest / base,
                "executed_mac_ratio": cost(programs[name]).macs / base,
                "latency_ratio": ratio,
                "realisation": ratio / (fewest / base),
                "spread": relative_spread(ratios),
            },
        )


def open_checked(program: Program, runtime: str, folder: Path) -> Runner:
    """A runner of one thread, whose answers were compared with the program's."""
    runner = RUNTIMES[runtime](program, Path(tempfile.mkdtemp(dir=folder)) / "model.onnx")
    image = picture(program.input)
    expected = flat_predictions(evaluate(program, torch.from_numpy(image)))
    compare(expected, runner.infer({program.input.name: image}), FLOAT32).check(f"{runtime} on a collapsed network")
    return runner


def _from_file(opening: Callable[[Path], Runner], program: Program, file: Path) -> Runner:
    export_onnx(Collapsed(program).float().network, names_only(program), file)
    return opening(file)


def _in_torch(program: Program, file: Path) -> Runner:
    return TorchRunner(Collapsed(program).float().network, program.input, threads=1)


RUNTIMES: dict[str, Callable[[Program, Path], Runner]] = {
    **{name: partial(_from_file, opening) for name, opening in ONE_THREAD.items()},
    "torch": _in_torch,
}


def matrix(trunks: Sequence[Trunk], runtime: str, trained: Sequence[Path] = ()) -> Iterator[Cell]:
    """Every cell, as soon as it is measured."""
    for trunk in trunks:
        for gates in (TIED, FREE):
            for tasks in TASKS:
                for specific in SHARES:
                    program = gated_program(trunk, tasks, specific, **gates)
                    for lowering, ratios in realise(program, runtime):
                        told = {**gates, **ratios, "lowering": lowering, "runtime": runtime}
                        yield Cell(trunk.backbone, trunk.head, trunk.size, tasks, specific, **told)
    for file in trained:
        program = read_checkpoint(file).program
        for lowering, ratios in realise(program, runtime):
            told = {"group": None, "tie": None, **ratios, "lowering": lowering, "runtime": runtime}
            size = (program.input.height, program.input.width)
            yield Cell(str(file), None, size, len(program.outputs), None, **told)


def means(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Geometric-mean realisation by backbone, head, size, kind of gates and lowering."""
    groups: dict[tuple[object, ...], list[float]] = {}
    for cell in cells:
        key = (cell.backbone, cell.head, cell.size, cell.tie, cell.group, cell.lowering)
        groups.setdefault(key, []).append(cell.realisation)
    names = ("backbone", "head", "size", "tie", "group", "lowering")
    return [
        {
            **dict(zip(names, key, strict=True)),
            "cells": len(found),
            "realisation": float(np.exp(np.mean(np.log(found)))),
        }
        for key, found in groups.items()
    ]


def _size(size: tuple[int, int]) -> str:
    return "×".join(map(str, size))


def _row(cell: Cell) -> str:
    gates = "trained" if cell.specific is None else f"p {cell.specific:g}, {cell.tie or 'free'} {cell.group}"
    network = f"{cell.backbone:10} {cell.head or '':6} {_size(cell.size)} T {cell.tasks} {gates:18} {cell.lowering:8}"
    return (
        f"{network} MACs {cell.mac_ratio:.2f}, executed {cell.executed_mac_ratio:.2f}, "
        f"latency {cell.latency_ratio:.2f}, realisation {cell.realisation:.2f} "
        f"(spread {cell.spread:.0%})"
    )


def main() -> None:
    """Measure, and print cell by cell or as one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="ResNet-18 alone: some ten minutes")
    known = sorted({trunk.backbone for trunk in FULL})
    parser.add_argument("--backbone", choices=known, metavar="NAME", nargs="+", default=known, help="of these alone")
    parser.add_argument("--runtime", choices=list(RUNTIMES), default="onnxruntime")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--trained", type=Path, nargs="+", default=[], metavar="FILE", help="checkpoints to add")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    before = load()
    cells = []
    trunks = QUICK if arguments.quick else [trunk for trunk in FULL if trunk.backbone in arguments.backbone]
    for cell in matrix(trunks, arguments.runtime, arguments.trained):
        cells.append(cell)
        print(_row(cell), file=sys.stderr if arguments.json else sys.stdout, flush=True)
    found = means(cells)
    if arguments.json:
        where = asdict(environment(1, before))
        print(json.dumps({"cells": [asdict(cell) for cell in cells], "means": found, "environment": where}, indent=1))
        return
    for mean in found:
        network = (
            f"{mean['backbone']} {mean['head'] or ''} {_size(mean['size'])}, {mean['tie'] or 'free'} {mean['group']}"
        )
        print(f"{network}, {mean['lowering']}: {mean['realisation']:.3f}, mean of {mean['cells']}")


if __name__ == "__main__":
    run_program(main)
