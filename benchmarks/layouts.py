"""Which layout of a network is the fastest where it is to run: tried, not predicted.

A layout follows from prices. Those of the target are measured kernel by kernel, and what kernels cost beside each other
is another matter; so networks laid out by prices around them are run in turns, and the one without any trade too.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gatedeploy.artifact import names_only
from gatedeploy.benchmarks.runners import ONE_THREAD, picture
from gatedeploy.benchmarks.timing import Plan, measure
from gatedeploy.compiler import Collapsed
from gatedeploy.errors import InputError, MissingExtraError
from gatedeploy.exporters.to_onnx import export_onnx
from gatedeploy.graph.prices import Prices
from gatedeploy.lowering import lower
from gatedeploy.program import Program

PLAN = Plan(seconds=5, min_rounds=11, max_rounds=60, block_ms=30, warm_up_ms=200)
PREDICTED, FEWEST = "as predicted", "the fewest multiply-adds"


@dataclass(frozen=True)
class Tried:
    """A layout that was run.

    Args:
        name: for people.
        prices: that it follows from; None for the fewest multiply-adds.
        ms: one picture, one thread.
        ratio: of the time that the predicted layout takes in the same round, the median over rounds.
    """

    name: str
    prices: Prices | None
    ms: float
    ratio: float


def candidates(prices: Prices) -> dict[str, Prices | None]:
    """Prices to lay a network out by, by name; what was changed in them is said by `machine`."""
    copies = ("join_ms", "cut_ms", "cut_launch_ms", "gather_ms", "gather_launch_ms", "turn_ms", "turn_launch_ms")
    changed = {
        "copies four times as dear": {name: 4 * getattr(prices, name) for name in copies},
        "copies a quarter as dear": {name: getattr(prices, name) / 4 for name in copies},
        "launches eight times as dear": {"launch_ms": 8 * prices.launch_ms},
    }
    return {
        PREDICTED: prices,
        FEWEST: None,
        **{name: replace(prices, machine=f"{prices.machine} with {name}", **new) for name, new in changed.items()},
    }


def try_layouts(program: Program, prices: Prices, say: Callable[[str], None] = lambda _: None) -> list[Tried]:
    """Run `program` in each of several layouts, on this machine in the runtime that `prices` are of; fastest first.

    Raises:
        InputError: that runtime cannot be run here, see `check_runnable`.
    """
    check_runnable(prices.target)
    tried = candidates(prices)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        runners = {}
        for number, (name, each) in enumerate(tried.items()):
            say(f"Laying out: {name}")
            file = Path(folder) / f"{number}.onnx"
            export_onnx(Collapsed(lower(program, each).program).float().network, names_only(program), file)
            runners[name] = [stack.enter_context(ONE_THREAD[prices.target](file))]
        say("Running them in turns")
        found = measure(runners, picture(program.input), PREDICTED, PLAN)
    measured = [
        Tried(name, each, found.of(name).median_ms, float(np.median(found.ratios(name))))
        for name, each in tried.items()
    ]
    return sorted(measured, key=lambda each: each.ratio)


def check_runnable(runtime: str) -> None:
    """Raise `InputError` unless `try_layouts` can run networks in this runtime, on this machine."""
    if runtime not in ONE_THREAD:
        raise InputError(
            f"layouts for {runtime} cannot be tried out, only those for {' or '.join(ONE_THREAD)}; let prices alone "
            "decide (--optimize default)"
        )
    if importlib.util.find_spec(runtime) is None:
        raise MissingExtraError("trying layouts out", runtime, {"onnxruntime": "cpu"}.get(runtime, runtime))
