"""A report in words and tables, the same for the page and for Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gatedeploy.benchmarks.report import CandidateReport, Report
from gatedeploy.benchmarks.sharing import Table, sharing_table
from gatedeploy.training.comparing import Comparison
from gatedeploy.training.metrics import METRICS

OURS = ("collapsed", "bundle")
"""Kinds of candidates that the report is about; the others are what they are compared with."""

NBSP = "\u00a0"
"""Keeps a figure and its unit in one line."""

COUNTED = (
    "1 MAC is one multiply-add. Convolutions and linear layers count, as in the papers (whose tables print MACs for "
    "HRNet and 2 × MACs for the ResNets, both as FLOPs)."
)
COMPARED = (
    "Single-task networks and the shared encoder went through the same compiler as the collapsed network, which folds "
    "their norms; the experts' norms are folded too, and the rest of them by ONNX Runtime. Networks that are run one "
    "after the other are timed as one request."
)


@dataclass(frozen=True)
class Tile:
    """One figure in large print.

    Args:
        value: the figure.
        meaning: what it says.
    """

    value: str
    meaning: str


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Args:
        heading: what it is about.
        text: what to know before reading the table; may be empty.
        table: the figures.
    """

    heading: str
    text: str
    table: Table


def tiles(report: Report) -> list[Tile]:
    """What the first network of ours costs beside its rivals."""
    ours = next((each for each in report.candidates if each.kind in OURS), None)
    if ours is None or ours.name == report.baseline:
        return []
    beside = baseline_title(report)
    shown = [Tile(_times(ours.macs_ratio), f"the MACs of {beside}")] if ours.macs_ratio else []
    shown.append(Tile(_times(ours.ratio.value), f"the latency of {beside}"))
    if report.warnings and ours.cpu_ratio:
        shown.append(Tile(_times(ours.cpu_ratio.value), f"the processor time of {beside}, which noise hurts less"))
    single = next((each for each in report.candidates if each.kind == "stl"), None)
    if single is not None:
        ratio = ours.ratio.value / single.ratio.value
        shown.append(Tile(_times(ratio), f"the latency of {_lower(single.title)}"))
    if ours.realisation:
        shown.append(Tile(f"{ours.realisation:.2f}", "realisation: latency ratio ÷ MAC ratio; 1 is what MACs promise"))
    return shown


def sections(report: Report) -> list[Section]:
    """All tables of the report, in order; those without rows are left out."""
    parts = [
        _cost_and_latency(report),
        _operators(report),
        _accuracy(report),
        *_sharing(report),
        _parity(report),
        _tasks(report),
        _environment(report),
    ]
    return [part for part in parts if part.table.rows]


def baseline_title(report: Report) -> str:
    """What ratios refer to, as it stands in the middle of a sentence."""
    return _lower(next(each.title for each in report.candidates if each.name == report.baseline))


def human(count: float) -> str:
    """A count with three digits and a unit: 29.0 M."""
    count = float(f"{count:.3g}")  # before the unit is chosen: 999,999 is 1.00 M
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= factor:
            return f"{three_digits(count / factor)}{NBSP}{unit}"
    return f"{count:g}{NBSP}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; the first row are its headings."""
    ruled = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "".join(f"| {' | '.join(row)} |\n" for row in ruled)


def spread(values: Sequence[float], form: str) -> str:
    """Mean ± standard deviation, in this format; the mean alone of one value, nothing of none."""
    if not values:
        return ""
    mean = format(statistics.mean(values), form)
    return f"{mean} ± {format(statistics.stdev(values), form.removeprefix('+'))}" if len(values) > 1 else mean


def three_digits(number: float) -> str:
    """A number with three digits, so that those in one column say equally much: 4.00, 29.0, 2,000."""
    number = float(f"{number:.3g}")
    return f"{number:,.0f}" if number >= 100 else f"{number:#.3g}"


def _cost_and_latency(report: Report) -> Section:
    latency = report.latency
    text = (
        f"{COUNTED} Latency: {latency['runtime']}, batch {latency['batch']}, threads per request: "
        f"{latency['threads']}, {latency['rounds']} rounds"
    )
    columns: tuple[str, ...] = ("MACs", "parameters", "file", "median", "p90", "spread")
    if report.compares:
        beside = baseline_title(report)
        ratios = (f"MACs ÷ {beside}", f"latency ÷ {beside}", "95 % interval", "realisation")
        columns = (*ratios, f"processor time ÷ {beside}", *columns)
        text += " in which all candidates took turns in random order. Ratios are taken within a round"
    text += f". {COMPARED}" if any(each.kind not in OURS for each in report.candidates) else "."
    rows = [(each.title, *(_ratios(each) if report.compares else ()), *_figures(each)) for each in report.candidates]
    return Section("Cost and latency", text, Table(("", *columns), tuple(rows)))


def _ratios(each: CandidateReport) -> tuple[str, ...]:
    ratio = each.ratio
    return (
        *(_figure(each.macs_ratio, ".2f"), _figure(ratio.value, ".2f")),
        *(f"{ratio.low:.2f}{NBSP}to{NBSP}{ratio.high:.2f}", _figure(each.realisation, ".2f")),
        _figure(each.cpu_ratio.value if each.cpu_ratio else None, ".2f"),
    )


def _figures(each: CandidateReport) -> tuple[str, ...]:
    measured = each.measurement
    return (
        *(human(each.cost.macs), human(each.cost.params), f"{human(each.size_bytes)}B"),
        *(f"{three_digits(ms)}{NBSP}ms" for ms in (measured.median_ms, measured.p90_ms)),
        f"{measured.spread:.1%}",
    )


def _operators(report: Report) -> Section:
    counted = [each for each in report.candidates if each.cost.per_operator]
    layers = _keys(each.cost.per_operator for each in counted)
    products = _keys(each.cost.products for each in counted)
    rows = []
    for each in counted:
        cost = each.cost
        macs = [human(cost.per_operator.get(name, 0)) for name in layers]
        beside = [human(cost.products.get(name, 0)) for name in products]
        named = ", ".join(f"{name.removeprefix('aten::')}{NBSP}{calls}×" for name, calls in cost.unsupported.items())
        rows.append((each.title, *macs, *beside, named))
    columns = ("", *layers, *(f"{name} (not in MACs)" for name in products), "unsupported operators")
    text = "MACs of one request by operator (fvcore). Of the operators at the end nothing is counted, as in the papers."
    return Section("MACs by operator", text, Table(columns, tuple(rows)))


def _accuracy(report: Report) -> Section:
    kinds = [(task.name, metric) for task in report.tasks if task.kind for metric in METRICS[task.kind]]
    known = {(task, name) for row in report.accuracy for task, values in row.metrics.items() for name in values}
    shown = [(task, metric) for task, metric in kinds if (task, metric.name) in known]
    gains = any(row.compared is not None for row in report.accuracy)
    columns = ["", *(f"{task} {metric.name} {metric.arrow}" for task, metric in shown)]
    rows = []
    for row in report.accuracy:
        figures = [_figure(row.metrics.get(task, {}).get(metric.name)) for task, metric in shown]
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
    return _figure(delta_mtl, "+.2f"), _figure(delta_i, "+.2f"), _figure(eta, ".0f")


def _sharing(report: Report) -> Iterator[Section]:
    for label, sites in report.sharing.items():
        where = f", {label}" if len(report.sharing) > 1 else ""
        text = "Channels that a task keeps for itself at each gate site, and its share in what the shared branch reads."
        yield Section(f"Sharing by site{where}", text, sharing_table(sites) if sites else Table((), ()))


def _parity(report: Report) -> Section:
    measured = [
        (each.title, what, errors)
        for each in report.candidates
        for what, errors in ((_gated(each), each.collapse_parity), (_reference(each), each.onnx_parity))
        if errors
    ]
    outputs = list(dict.fromkeys(output for _, _, errors in measured for output in errors))
    rows = [
        (title, what, *(_figure(errors.get(output), ".1e") for output in outputs)) for title, what, errors in measured
    ]
    text = "Largest difference of each prediction from what it is compared with, relative to the prediction's scale."
    return Section("Parity", text, Table(("", "compared with", *outputs), tuple(rows)))


def _gated(each: CandidateReport) -> str:
    return "gated network with flipped gates, float64" if each.flipped_gates else "gated network, float64"


def _reference(each: CandidateReport) -> str:
    return "the manifest" if each.kind == "bundle" else "PyTorch, in ONNX Runtime"


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
        ("load before and after", ", ".join(loads) or "unknown"),
        ("system", where.system),
        *((library, version) for library, version in where.versions.items()),
        *((f"{item['form']} {item['path']}", f"sha256 {item['sha256'][:16]}…") for item in report.paths),
    ]
    return Section("Environment", "", Table(("", ""), tuple(rows)))


def _keys(mappings: Iterator[dict[str, int]] | Sequence[dict[str, int]]) -> list[str]:
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def _lower(title: str) -> str:
    return title[:1].lower() + title[1:]


def _times(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.2f}{NBSP}×"


def _figure(value: float | None, digits: str = ".4g") -> str:
    return "–" if value is None else format(value, digits)
