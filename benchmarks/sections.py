"""A report in words and tables, the same for the page and for Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gatedeploy.benchmarks.latency_sections import (
    Section,
    baseline_title,
    batches,
    beside_rivals,
    changes,
    cost_and_latency,
    layers,
    offered_load,
    operators,
    readiness,
)
from gatedeploy.benchmarks.report import CandidateReport, Report
from gatedeploy.benchmarks.sharing import Table, sharing_table
from gatedeploy.benchmarks.words import NBSP, figure, lower, times, times_told
from gatedeploy.training.comparing import Comparison
from gatedeploy.training.metrics import METRICS, headline


@dataclass(frozen=True)
class Tile:
    """One figure in large print.

    Args:
        value: the figure.
        meaning: what it says.
    """

    value: str
    meaning: str


def tiles(report: Report) -> list[Tile]:
    """What the first network of ours costs beside its rivals."""
    ours = report.ours
    if ours is None or ours.name == report.baseline:
        return []
    beside = baseline_title(report)
    shown = [Tile(times(ours.macs_ratio), f"the MACs of {beside}")] if ours.macs_ratio else []
    shown.append(Tile(times_told(ours.ratio), f"the latency of {beside}"))
    if report.warnings and ours.cpu_ratio:
        shown.append(Tile(times_told(ours.cpu_ratio), f"the processor time of {beside}, which noise hurts less"))
    for kind in ("stl", "moe"):
        rival = next((each for each in report.candidates if each.kind == kind), None)
        if rival is not None and (found := ours.beside(rival)).told:
            sure = f"95 % interval {found.low:.2f} to {found.high:.2f}"
            shown.append(Tile(times(found.value), f"the latency of {lower(rival.title)} ({sure})"))
    if ours.realisation:
        shown.append(Tile(f"{ours.realisation:.2f}", "realisation: latency ratio ÷ MAC ratio; 1 is what MACs promise"))
    return shown


def sections(report: Report) -> list[Section]:
    """All tables of the report, in order; those without rows are left out."""
    parts = [
        changes(report),
        cost_and_latency(report),
        beside_rivals(report),
        batches(report),
        offered_load(report),
        layers(report),
        readiness(report),
        operators(report),
        _accuracy(report),
        _precision(report),
        *_sharing(report),
        _parity(report),
        _tasks(report),
        _environment(report),
    ]
    return [part for part in parts if part.table.rows]


def _accuracy(report: Report) -> Section:
    kinds = [(task.name, metric) for task in report.tasks if task.kind for metric in METRICS[task.kind]]
    known = {(task, name) for row in report.accuracy for task, values in row.metrics.items() for name in values}
    shown = [(task, metric) for task, metric in kinds if (task, metric.name) in known]
    gains = any(row.compared is not None for row in report.accuracy)
    columns = ["", *(f"{task} {metric.name} {metric.arrow}" for task, metric in shown)]
    rows = []
    for row in report.accuracy:
        figures = [figure(row.metrics.get(task, {}).get(metric.name)) for task, metric in shown]
        rows.append((row.name, *figures, *(_beside(row.compared) if gains else ())))
    text = (
        "On the validation split, as the files say; ↑ more is better, ↓ less is better. A collapsed network computes "
        "what the gated one does, so it has the gated one's accuracy."
    )
    if any(each.flipped_gates for each in report.candidates):
        text += " Not so where gates were flipped after training: that is another network, and nobody measured it."
    if gains:
        columns += [f"Δ_MTL,{NBSP}% ↑", f"Δ_I,{NBSP}% ↑", f"η̂,{NBSP}% ↑"]
        text += (
            " Δ_MTL is the mean relative gain over the single-task networks in each task's first metric (InterroGate "
            "eq. 6), Δ_I in all of them, and η̂ the share of metrics that are no worse: at 100 sharing is safe (Safe "
            "MTL section 4.1). What was trained for longer than they were gains by that alone."
        )
    return Section("Accuracy", text, Table(tuple(columns), tuple(rows) if shown else ()))


def _beside(found: Comparison | None) -> tuple[str, ...]:
    if found is None:
        return ("", "", "")
    delta_mtl, delta_i, eta = found.percents
    return figure(delta_mtl, "+.2f"), figure(delta_i, "+.2f"), figure(eta, ".0f")


def _precision(report: Report) -> Section:
    kinds = {task.name: headline(task) for task in report.tasks if task.kind}
    rows = []
    for each in report.reductions:
        said = each.reduction
        for task, metric in kinds.items():
            before, now = (figure(of.get(task, {}).get(metric.name)) for of in (said.float32, said.reduced))
            lost = figure(said.lost.get(task), "+.2f")
            names = each.label, each.precision, said.calibration or "–", f"{task} {metric.name} {metric.arrow}"
            rows.append((*names, before, now, lost, str(said.layers), str(len(said.kept))))
    text = "Judged where the bundle was written, on pictures of its recipe. Kept: layers left in float32."
    columns = ("", "precision", "calibration", "", "float32", "reduced", f"lost,{NBSP}%", "layers reduced", "kept")
    return Section("Precision", text, Table(columns, tuple(rows)))


def _sharing(report: Report) -> Iterator[Section]:
    for label, sites in report.sharing.items():
        where = f", {label}" if len(report.sharing) > 1 else ""
        text = "Channels that a task keeps for itself at each gate site, and its share in what the shared branch reads."
        yield Section(f"Sharing by site{where}", text, sharing_table(sites) if sites else Table((), ()))


def _parity(report: Report) -> Section:
    measured = [
        (each.title, what, errors)
        for each in report.candidates
        for what, errors in ((_gated(each), each.collapse_parity), (_reference(each, report), each.onnx_parity))
        if errors
    ]
    outputs = list(dict.fromkeys(output for _, _, errors in measured for output in errors))
    rows = [
        (title, what, *(figure(errors.get(output), ".1e") for output in outputs)) for title, what, errors in measured
    ]
    text = "Largest difference of each prediction from what it is compared with, relative to the prediction's scale."
    return Section("Parity", text, Table(("", "compared with", *outputs), tuple(rows)))


def _gated(each: CandidateReport) -> str:
    return "gated network with flipped gates, float64" if each.flipped_gates else "gated network, float64"


def _reference(each: CandidateReport, report: Report) -> str:
    return "the manifest" if each.kind == "bundle" else f"PyTorch, in {report.latency['runtime']}"


def _tasks(report: Report) -> Section:
    rows = [(task.name, task.kind or "–", ", ".join(task.classes) or "–") for task in report.tasks]
    return Section("Tasks", "", Table(("task", "kind", "classes"), tuple(rows)))


def _environment(report: Report) -> Section:
    where = report.environment
    loads = [f"{load:g}" for load in (where.load_before, where.load_after) if load is not None]
    rows = [
        ("processor", where.cpu),
        ("cores this process may use", str(where.cores)),
        ("threads per request", str(where.threads)),
        ("clock", where.clock or "unknown"),
        ("load before and after", ", ".join(loads) or "unknown"),
        ("system", where.system),
        *((library, version) for library, version in where.versions.items()),
        *((f"{item['form']} {item['path']}", f"sha256 {item['sha256'][:16]}…") for item in report.paths),
    ]
    return Section("Environment", "", Table(("", ""), tuple(rows)))
