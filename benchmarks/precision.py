"""What fp16, bf16 and int8 cost and bring: the tasks' metrics, bytes, and milliseconds beside float32.

    python -m gatedeploy.benchmarks.precision collapsed.safetensors … [--data RECIPE] [--out FOLDER]

Each network is exported in every precision (`gatedeploy export --precision`), whatever it loses, as ONNX and for
OpenVINO. The files of a runtime are timed in turns in one process, one thread, one picture at a time. Metrics are those
of the validation split of the recipe that the network was trained by, in ONNX Runtime; the worst loss in OpenVINO, too.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from gatedeploy.artifact import read_collapsed
from gatedeploy.benchmarks.collapse_cost import row
from gatedeploy.benchmarks.environment import environment, load
from gatedeploy.benchmarks.latency import Latency
from gatedeploy.benchmarks.scenarios import FULL, QUICK
from gatedeploy.benchmarks.timing import Plan, measure
from gatedeploy.errors import run_program
from gatedeploy.exporters.bundle import export
from gatedeploy.exporters.precision.int8 import METHODS
from gatedeploy.exporters.precision.reduction import PrecisionOptions
from gatedeploy.exporters.reading import Bundle
from gatedeploy.exporters.reference import reference_picture
from gatedeploy.judging import recipe_of, samples_of
from gatedeploy.runners.base import Runner
from gatedeploy.runners.in_onnxruntime import OnnxRuntimeRunner
from gatedeploy.runners.in_openvino import OpenVinoRunner

ANY = 1e9
"""Percent: nothing is refused, for it is what is lost that is asked."""

WAYS = (("fp32", ""), ("fp16", ""), ("bf16", ""), *(("int8", method) for method in METHODS))
"""Precisions, and how int8's ranges are chosen."""

RUNTIMES: dict[str, Callable[[Path], Runner]] = {
    "onnxruntime": partial(OnnxRuntimeRunner, threads=1),
    "openvino": partial(OpenVinoRunner, threads=1, batch=1),  # with a free batch size it compiles slower code
}


def compare(file: Path, data: str | None, out: Path, plan: Plan = FULL.single) -> str:
    """Export one network in every precision and measure it.

    Args:
        file: the collapsed network.
        data: the recipe by whose pictures it is judged; None: its own.
        out: the folder for its bundles.
        plan: how long latencies are measured.

    Returns:
        A table in Markdown.

    Raises:
        GatedeployError: it cannot be exported or judged.
    """
    _, info = read_collapsed(file)
    samples = samples_of(*recipe_of(info.recipe, data, str(file)), info.tasks, info.input)
    bundles = {}
    for precision, method in WAYS:
        name = f"{precision} {method}".strip()
        options = PrecisionOptions(method or METHODS[0], max_drop=ANY)
        where = out / name.replace(" ", "-")
        formats = ["onnx", "openvino"]
        bundles[name] = export(file, where, formats=formats, precision=precision, reduction=options, samples=samples)
    return "\n".join(_table(bundles, {runtime: _timed(bundles, runtime, plan) for runtime in RUNTIMES}))


def _timed(bundles: dict[str, Bundle], runtime: str, plan: Plan) -> Latency:
    """All bundles that a runtime runs, one picture at a time, on one thread."""
    with ExitStack() as stack:
        runners: dict[str, list[Runner]] = {}
        for name, bundle in bundles.items():
            if name == "bf16" and runtime == "onnxruntime":  # it has no kernels for it on processors
                continue
            file = bundle.path / bundle.runs(runtime)[0]
            runners[name] = [stack.enter_context(RUNTIMES[runtime](file))]
        spec = next(iter(bundles.values())).manifest.input
        return measure(runners, reference_picture(spec, 1, 0), next(iter(bundles)), plan)


def _table(bundles: dict[str, Bundle], timed: dict[str, Latency]) -> Iterator[str]:
    reductions = {name: bundle.manifest.reduction for name, bundle in bundles.items()}
    before = next(found.float32 for found in reductions.values() if found)
    measured = {name: found.reduced if found else before for name, found in reductions.items()}
    columns = [(task, metric) for task, figures in before.items() for metric in figures]
    yield row("", *(f"{task}, {metric}" for task, metric in columns), "worst loss", "in openvino", "bytes", *timed)
    yield row("---", *["---"] * (len(columns) + 3 + len(timed)))
    for name, bundle in bundles.items():
        found, (engine,) = reductions[name], bundle.manifest.engines.values()
        size = bundle.manifest.costs.size_bytes
        yield row(
            name,
            *(f"{measured[name][task][metric]:.4g}" for task, metric in columns),
            f"{max(found.lost.values()):+.2f} %" if found else "",
            f"{max(engine.lost.values()):+.2f} %" if found else "",
            f"{size:,} ({size / next(iter(bundles.values())).manifest.costs.size_bytes:.2f})",
            *(_ratio(latency, name) for latency in timed.values()),
        )


def _ratio(latency: Latency, name: str) -> str:
    if name not in [each.candidate for each in latency.measurements]:
        return "not run"
    found, milliseconds = latency.ratio(name), float(np.median(latency.of(name).rounds_ms))
    return f"{found.value:.2f} ({milliseconds:.2f} ms)"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every network that is named, and print a table for each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--data", help="the recipe by whose pictures all are judged")
    parser.add_argument("--quick", action="store_true", help="measure latencies for seconds, not minutes")
    parser.add_argument("--out", type=Path, default=Path("precision"))
    asked = parser.parse_args(arguments)
    before = load()
    for number, file in enumerate(asked.files):
        plan = (QUICK if asked.quick else FULL).single
        print(f"{file}\n\n{compare(file, asked.data, asked.out / str(number), plan)}\n", flush=True)
    found = environment(1, before)
    print(f"{found.cpu}; load {found.load_before} to {found.load_after}; {found.versions}")


if __name__ == "__main__":
    run_program(main)
