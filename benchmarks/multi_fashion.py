"""The whole road on Multi-Fashion, for several λ_s beside networks of one task and one shared encoder.

    python -m gatedeploy.benchmarks.multi_fashion ROOT [--out DIR] [--lambdas 0 0.25 0.75] [--set key=value]

`ROOT` holds Fashion-MNIST (`fashion_mnist.npz`, or the four idx files). Everything is trained for as long in all: a
gated network starts from single-task networks of `train.single_epochs` and is trained for `train.epochs`, its rivals
for both together. Each gated network is collapsed, exported and verified; its accuracy is that of the exported
network in ONNX Runtime. The command goes on where it was interrupted.

    DIR/start/          single-task networks from which the gated ones start
    DIR/single/         single-task networks trained as long as the gated ones in all
    DIR/shared/         one shared encoder, likewise
    DIR/gated-<λ_s>/    checkpoint.pt, bundle/
    DIR/report/         what `gatedeploy bench` says of all of them
    DIR/table.md        the table
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from gatedeploy.artifact import ModelInfo, read_checkpoint
from gatedeploy.assembly import build_parts
from gatedeploy.benchmarks.bench import bench
from gatedeploy.benchmarks.bench_options import BenchOptions
from gatedeploy.benchmarks.report import CandidateReport, Report
from gatedeploy.benchmarks.scenarios import FULL, Effort
from gatedeploy.benchmarks.sharing import specific_share
from gatedeploy.benchmarks.subjects import labels
from gatedeploy.benchmarks.words import human, markdown
from gatedeploy.compiler import collapse
from gatedeploy.exporters.bundle import write_bundle
from gatedeploy.exporters.opening import open_runner
from gatedeploy.files import write_text
from gatedeploy.graph.shares import site_shares
from gatedeploy.specs import Task
from gatedeploy.training.comparing import compare
from gatedeploy.training.journal import Journal
from gatedeploy.training.measure import measure
from gatedeploy.training.metrics import Metrics, headline
from gatedeploy.training.recipe import Recipe
from gatedeploy.training.recipe_file import load_recipe
from gatedeploy.training.snapshots import FILE
from gatedeploy.training.stages import Parts, Road


@dataclass(frozen=True)
class Gated:
    """One gated network, trained and deployed.

    Args:
        sparsity: λ_s.
        label: what the report calls it.
        share: of specific channels, by task.
        metrics: of the exported network in ONNX Runtime.
    """

    sparsity: float
    label: str
    share: dict[str, float]
    metrics: Metrics


def train_rivals(recipe: Recipe, parts: Parts, tasks: tuple[Task, ...], out: Path) -> tuple[Metrics, Metrics]:
    """Metrics of the single-task networks and of the shared encoder."""
    road = Road(recipe, parts, out, Journal(), resume=True)
    single = {task.name: road.single(task).metrics[task.name] for task in tasks}
    return single, road.shared(tasks).metrics


def train_gated(
    recipe: Recipe, parts: Parts, tasks: tuple[Task, ...], lambdas: Sequence[float], out: Path
) -> list[Path]:
    """The folders of the gated networks, all started from the same single-task networks."""
    road = Road(recipe, parts, out, Journal(), resume=True)
    start = {task.name: road.start(task) for task in tasks}
    folders = []
    for weight in lambdas:
        chosen = replace(recipe, sparsity=replace(recipe.sparsity, weight=weight))
        folder = out / f"gated-{weight:g}"
        Road(chosen, parts, folder, Journal(), resume=True).gated(tasks, start)
        folders.append(folder)
    return folders


def deploy(folder: Path, label: str, sparsity: float, parts: Parts, tasks: tuple[Task, ...]) -> Gated:
    """Collapse a checkpoint, export it, verify it, and measure what was exported."""
    checkpoint = read_checkpoint(folder / "gated" / FILE)
    info = ModelInfo(tasks, checkpoint.info.input, "collapsed", metrics=checkpoint.info.metrics)
    bundle = write_bundle(collapse(checkpoint.program), info, folder / "bundle")
    with open_runner(bundle.path) as runner:

        def network(images: Tensor) -> dict[str, Tensor]:
            answers = runner.infer({info.input.name: images.numpy()})
            return {task: torch.from_numpy(answer) for task, answer in answers.items()}

        metrics = measure(network, parts.data.val, tasks)
    return Gated(sparsity, label, specific_share(site_shares(checkpoint.program)), metrics)


def table(report: Report, single: Metrics, shared: Metrics, gated: Sequence[Gated]) -> str:
    """Markdown: what every network reaches and costs."""
    tasks = report.tasks
    by_name = {each.name: each for each in report.candidates}
    rows = [_row("single-task networks", tasks, single, single, by_name["stl"])]
    rows.append(_row("one shared encoder", tasks, shared, single, by_name["mtl"]))
    for each in gated:
        costs = by_name.get(f"collapsed {each.label}") or by_name["collapsed"]  # the only one of its kind
        rows.append(_row(f"gated, λ_s = {each.sparsity:g}", tasks, each.metrics, single, costs, each.share))
    columns = ["", *(f"{task.name}, %" for task in tasks), "Δ_MTL, %", "specific channels", "MACs", "parameters"]
    columns += ["MACs ÷ shared", "latency ÷ shared (95 % interval)", "median"]
    return markdown([columns, *rows])


def _row(
    name: str,
    tasks: Sequence[Task],
    metrics: Metrics,
    single: Metrics,
    costs: CandidateReport,
    share: Mapping[str, float] | None = None,
) -> list[str]:
    compared = compare(tasks, metrics, single) if metrics is not single else None
    over_single = compared.delta_mtl if compared else None
    ratio = costs.ratio
    return [
        *(name, *(f"{100 * metrics[task.name][headline(task).name]:.2f}" for task in tasks)),
        "" if over_single is None else f"{over_single:+.2f}",
        " / ".join(f"{share[task.name]:.2f}" for task in tasks) if share else "",
        *(human(costs.cost.macs), human(costs.cost.params)),
        "–" if costs.macs_ratio is None else f"{costs.macs_ratio:.2f}",
        f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})",
        f"{costs.measurement.median_ms:.2f} ms",
    ]


def page(report: Report, recipe: Recipe, lambdas: Sequence[float], rows: str) -> str:
    """The table with what has to be known to read it."""
    train, data, backbone, where = recipe.train, recipe.data.options, recipe.model.backbone, report.environment
    weights = " ".join(f"{weight:g}" for weight in lambdas)
    options = "".join(f", {name} {value}" for name, value in backbone.options.items())
    versions = ", ".join(f"{library} {version}" for library, version in where.versions.items())
    facts = [
        f"{data['train']:,} pairs of Fashion-MNIST's training part to train on, {data['val']:,} of its test part to "
        f"measure on; backbone {backbone.name}{options}; one seed ({train.seed}).",
        f"Gated networks start from single-task networks of {train.single_epochs} epochs and are trained for "
        f"{train.epochs}; their rivals are trained for {train.rival_epochs}, so that all are trained for as long.",
        "Accuracy of a gated network is that of its exported bundle in ONNX Runtime. Δ_MTL is over the single-task "
        "networks of the table. Specific channels, by task: mean over gate sites of the share that a task keeps.",
        f"Latency: ONNX Runtime, batch 1, threads: {where.threads}, {report.latency['rounds']} rounds in turns.",
        f"Machine: {where.cpu}, {where.cores} cores, {where.system}; load {where.load_before} before and "
        f"{where.load_after} after; {versions}.",
        *report.warnings,
    ]
    command = f"`python -m gatedeploy.benchmarks.multi_fashion ROOT --lambdas {weights}`, {report.created}"
    return f"# Multi-Fashion\n\n{command}\n\n{rows}\n" + "".join(f"* {fact}\n" for fact in facts)


def run(recipe: Recipe, lambdas: Sequence[float], out: Path, effort: Effort = FULL) -> str:
    """Train what is not trained yet, deploy, measure, and write `table.md`.

    Args:
        recipe: of Multi-Fashion.
        lambdas: λ_s of each gated network.
        out: the folder, laid out as above.
        effort: how much to measure.

    Returns:
        What is in `table.md`.
    """
    recipe, parts = build_parts(recipe, "multi_fashion")
    tasks = recipe.chosen_tasks(parts.data.tasks)
    folders = train_gated(recipe, parts, tasks, lambdas, out)
    single, shared = train_rivals(recipe, parts, tasks, out)
    rivals = [out / "shared" / FILE, *(out / "single" / task.name / FILE for task in tasks)]
    files = rivals + [folder / "gated" / FILE for folder in folders]
    named = labels(files)[len(rivals) :]
    gated = [
        deploy(folder, label, weight, parts, tasks)
        for folder, label, weight in zip(folders, named, lambdas, strict=True)
    ]
    report = bench(files, out / "report", BenchOptions(effort=effort), say=Journal().say)
    text = page(report, recipe, lambdas, table(report, single, shared, gated))
    write_text(out / "table.md", text)
    return text


def main() -> None:
    """Read the command line, run, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", help="the folder with Fashion-MNIST")
    parser.add_argument("--out", type=Path, default=Path("multi_fashion"))
    parser.add_argument("--lambdas", type=float, nargs="+", default=(0, 0.25, 0.75), metavar="λ_s")
    parser.add_argument("--set", action="append", default=[], metavar="key=value", dest="overrides")
    arguments = parser.parse_args()
    recipe = load_recipe("multi_fashion", [f"data.root={arguments.root}", *arguments.overrides])
    print(run(recipe, arguments.lambdas, arguments.out))


if __name__ == "__main__":
    main()
