"""The papers' networks at full size: gated at random, collapsed, compared in float64, written as ONNX, compared again.

    python -m gatedeploy.benchmarks.full_size [--recipes nyud_hrnet18 …] [--tasks 2 3] [--specific 0.3]

Backbone, heads, gates and picture are those of a bundled recipe, its tasks the first few. The errors are the largest
difference of any prediction over that prediction's scale: of the collapsed network to the gated one in float64, and of
ONNX Runtime in float32 to the collapsed one in float64, each for one picture of noise. A trunk whose T tasks choose a
share p of the channels for themselves costs T·p + 1 - p^T of a plain one where no channel is executed in vain: a task's
rows, and those shared rows that some task reads.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import onnxruntime
import torch

from gatedeploy.artifact import names_only
from gatedeploy.assembly import describe_parts
from gatedeploy.benchmarks.collapse_cost import memory_of, row
from gatedeploy.benchmarks.costs import count, total
from gatedeploy.benchmarks.memory import PeakMemory
from gatedeploy.benchmarks.paper_costs import PUBLISHED
from gatedeploy.benchmarks.random_gates import as_if_trained
from gatedeploy.compiler import Collapsed
from gatedeploy.errors import run_program
from gatedeploy.exporters.to_onnx import export_onnx
from gatedeploy.gating.multi_head import MultiHead
from gatedeploy.gating.network import gate
from gatedeploy.graph.capture import capture
from gatedeploy.graph.cost import cost
from gatedeploy.lowering import lower
from gatedeploy.parity import FLOAT32, FLOAT64, compare
from gatedeploy.price_tables import prices_of_target
from gatedeploy.program import Program, evaluate, flat_predictions
from gatedeploy.training.recipe_file import load_recipe

HEADINGS = (
    *("recipe", "T", "weights, MiB", "gated, GMACs", "collapsed", "executed", "of a trunk", "T·p + 1 - p^T"),
    *("float64 error", "ONNX error", "capture, s", "passes, s", "ONNX, s", "peak ÷ weights"),
)


@dataclass(frozen=True)
class Case:
    """A recipe, how many of its tasks, and the share of task-specific channels."""

    recipe: str
    tasks: int
    specific: float


def measure(case: Case) -> str:
    """Take one network all the way; returns a row of the table.

    Raises:
        CheckError: the collapsed network, or what ONNX Runtime makes of it, is another one.
    """
    torch.manual_seed(0)
    settings = load_recipe(case.recipe)
    data, make_backbone, make_head = describe_parts(settings, case.recipe)
    tasks = settings.chosen_tasks(data.tasks)[: case.tasks]
    heads = {task.name: make_head(task) for task in tasks}
    example = torch.zeros(2, *data.input.shape)
    backbone = make_backbone()
    single = total(count(MultiHead(backbone, {name: head}), data.input) for name, head in heads.items()).macs
    shared = count(MultiHead(backbone, heads), data.input).macs
    network = gate(backbone, tasks, example_input=example, heads=heads, **settings.gates.placing)
    as_if_trained(network, case.specific)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())

    started = time.perf_counter()
    with PeakMemory() as memory:
        gated = capture(network, example)
        captured = time.perf_counter()
        lowered = lower(gated, prices_of_target("cpu"))
        done = time.perf_counter()
    thin = lowered.program
    picture = torch.randn(1, *data.input.shape, dtype=torch.float64)
    predictions = flat_predictions(evaluate(thin, picture))
    parity = compare(flat_predictions(evaluate(gated, picture)), predictions, FLOAT64)
    parity.check("the collapsed network")
    del network
    in_onnx, written = _in_onnx(thin, picture)
    parity_onnx = compare(predictions, in_onnx, FLOAT32)
    parity_onnx.check("ONNX Runtime")

    executed = cost(thin).macs
    fewest, trunk = executed - lowered.extra_macs, (single - shared) / (case.tasks - 1)
    expected = case.tasks * case.specific + 1 - case.specific**case.tasks
    return row(
        *(case.recipe, f"{case.tasks}", f"{weights / (1 << 20):.0f}"),
        *(f"{macs / 1e9:.1f}" for macs in (cost(gated).macs, fewest, executed)),
        *(f"{(fewest - shared) / trunk + 1:.3f}", f"{expected:.3f}"),
        *(f"{max(found.error.values()):.0e}" for found in (parity, parity_onnx)),
        *(f"{captured - started:.1f}", f"{done - captured:.1f}", f"{written:.1f}", memory_of(memory, weights)),
    )


def _in_onnx(thin: Program, picture: torch.Tensor) -> tuple[dict[str, torch.Tensor], float]:
    """What ONNX Runtime predicts in float32, and how long it took to write the file, in seconds."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        export_onnx(Collapsed(thin).float().network, names_only(thin), file)
        written = time.perf_counter() - started
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    results = session.run(None, {thin.input.name: picture.float().numpy()})
    return {name: torch.as_tensor(result) for name, result in zip(names, results, strict=True)}, written


def main() -> None:
    """Measure every case in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recipes", nargs="+", default=tuple(PUBLISHED))
    parser.add_argument("--tasks", type=int, nargs="+", default=(2, 3))
    parser.add_argument("--specific", type=float, default=0.3, help="share of task-specific channels")
    arguments = parser.parse_args()
    print(row(*HEADINGS))
    print(row(*["---"] * len(HEADINGS)))
    for recipe, tasks in product(arguments.recipes, arguments.tasks):
        with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
            print(fresh.submit(measure, Case(recipe, tasks, arguments.specific)).result(), flush=True)


if __name__ == "__main__":
    run_program(main)
