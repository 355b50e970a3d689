"""The parts of a report that tell what networks cost and how they answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gatedeploy.benchmarks.against import LEAST
from gatedeploy.benchmarks.candidates import OURS
from gatedeploy.benchmarks.latency import BEYOND
from gatedeploy.benchmarks.layers import shares
from gatedeploy.benchmarks.offered_load import Offered
from gatedeploy.benchmarks.report import CandidateReport, Report
from gatedeploy.benchmarks.scenarios import MULTI_STREAM, STYLE
from gatedeploy.benchmarks.sharing import Table
from gatedeploy.benchmarks.words import (
    NBSP,
    figure,
    human,
    in_bytes,
    interval,
    lower,
    ms,
    ms_told,
    three_digits,
    times,
    told,
)
from gatedeploy.models.moe import MOE

LONGEST = 15
"""How many layers are told one by one."""

COUNTED = (
    "1 MAC is one multiply-add. Convolutions and linear layers count, as in the papers (whose tables print MACs for "
    "HRNet and 2 × MACs for the ResNets, both as FLOPs)."
)
COMPARED = (
    "Single-task networks and the shared encoder went through the same compiler as the collapsed network, which folds "
    "their norms; the experts' norms are folded too. Networks that are run one after the other are timed as one "
    "request."
)


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


def baseline_title(report: Report) -> str:
    """What ratios refer to, as it stands in the middle of a sentence."""
    return lower(next(each.title for each in report.candidates if each.name == report.baseline))


def cost_and_latency(report: Report) -> Section:
    """What each candidate costs, and how long one request takes it."""
    latency = report.latency
    text = (
        f"{COUNTED} Latency: {latency['runtime']}, batch {latency['batch']}, threads per request: "
        f"{latency['threads']}, {latency['rounds']} rounds"
    )
    columns: tuple[str, ...] = ("MACs", "parameters", "file", "median", "p90", "p99", "spread")
    if report.compares:
        beside = baseline_title(report)
        ratios = (f"MACs ÷ {beside}", f"latency ÷ {beside}", "95 % interval", "realisation")
        columns = (*ratios, f"processor time ÷ {beside}", *columns)
        text += " in which all candidates took turns in random order. Ratios are taken within a round; those of "
        text += "processor times tell more where other processes were at work"
    text += f". A percentile is told where at least {BEYOND} requests lie beyond it"
    text += f". {COMPARED}" if any(each.kind not in OURS for each in report.candidates) else "."
    text += (
        " “Gated, torch.compile” runs in PyTorch." if any(each.kind == "compiled" for each in report.candidates) else ""
    )
    if latency["threads"] > 1:
        text += " With several threads it cannot be told whether others had the processor."
    rows = [(each.title, *(_ratios(each) if report.compares else ()), *_figures(each)) for each in report.candidates]
    return Section("Cost and latency", text, Table(("", *columns), tuple(rows)))


def beside_rivals(report: Report) -> Section:
    """How long ours take over each rival, with intervals."""
    rivals = [each for each in report.candidates if each.kind not in OURS]
    rows = [
        (each.title, *(interval(report.beside[each.name][rival.name]) for rival in rivals))
        for each in report.candidates
        if each.name in report.beside
    ]
    text = (
        "Latency over that of each rival, round against round, with its 95 % interval. It says how sure this run is; "
        "measured another day, the same networks differ by some percent."
    )
    return Section("Beside each rival", text, Table(("", *(lower(each.title) for each in rivals)), tuple(rows)))


def changes(report: Report) -> Section:
    """What got slower or faster since an earlier report."""
    if report.against is None:
        return Section("", "", Table((), ()))
    titles = {each.name: each.title for each in report.candidates}
    rows = []
    for each in report.against.changes:
        form = ms if each.candidate == report.baseline else times
        by = f" by {abs(each.factor - 1):.0%}" if each.verdict in ("slower", "faster") else ""
        rows.append((titles[each.candidate], form(each.before.value), form(each.now.value), f"{each.verdict}{by}"))
    text = (
        f"Beside {report.against.path}, measured {report.against.created}: the latency over that of "
        f"{baseline_title(report)} in the same run; of that itself milliseconds, the median over rounds, where the "
        f"processor is the same. A change is told where intervals do not overlap and it is larger than {LEAST:.0%}."
    )
    return Section("Since the earlier report", text, Table(("", "then", "now", ""), tuple(rows)))


def _ratios(each: CandidateReport) -> tuple[str, ...]:
    ratio = each.ratio
    return (
        *(figure(each.macs_ratio, ".2f"), told(ratio)),
        *(f"{ratio.low:.2f}{NBSP}to{NBSP}{ratio.high:.2f}", figure(each.realisation, ".2f")),
        told(each.cpu_ratio) if each.cpu_ratio else "–",
    )


def _figures(each: CandidateReport) -> tuple[str, ...]:
    measured, known = each.measurement, each.told_ms is not None
    return (
        *(human(each.cost.macs), human(each.cost.params), in_bytes(each.size_bytes), ms_told(each.told_ms)),
        *(ms(measured.percentile_ms(percent) if known else None) for percent in (90, 99)),
        f"{measured.spread:.1%}",
    )


def batches(report: Report) -> Section:
    """How many pictures each does in a second."""
    sizes = sorted({size for each in report.candidates for size in each.batches})
    rows = []
    for each in report.candidates:
        if each.batches:
            streams = each.batches.get(MULTI_STREAM)
            done = [three_digits(each.throughput[size]) if size in each.throughput else "–" for size in (1, *sizes)]
            rows.append(
                (each.title, *done, *((ms(streams.median_ms), ms(streams.percentile_ms(99))) if streams else ()))
            )
    columns = ["", *(f"{size} at once" if size > 1 else "1" for size in (1, *sizes))]
    columns += [f"{MULTI_STREAM} at once, median", "p99"] if MULTI_STREAM in sizes else []
    text = (
        f"Pictures a second by how many a request has, one request after the other. {MULTI_STREAM} at once is MLPerf's "
        f"multi-stream, the largest figure of a line its offline scenario ({STYLE})."
    )
    text += " Experts take pictures one by one." if any(each.kind == MOE for each in report.candidates) else ""
    return Section("Throughput", text, Table(tuple(columns), tuple(rows)))


def offered_load(report: Report) -> Section:
    """How long requests wait and are computed, when they come as they like."""
    rates = sorted({each.rate for candidate in report.candidates for each in candidate.offered})
    rows = []
    for candidate in report.candidates:
        by_rate = {each.rate: each for each in candidate.offered}
        if by_rate:
            rows.append((candidate.title, *(_waits(by_rate.get(rate)) for rate in rates)))
    text = (
        "Requests that come at random moments (a Poisson process), so many a second, and are answered one after the "
        f"other: the time from arrival to answer, median, p90 and p99; MLPerf's server scenario ({STYLE}). “More than "
        "it answers” is told where it computed all the time, and waiting would grow without end."
    )
    return Section("Offered load", text, Table(("", *(f"{human(rate)}/s" for rate in rates)), tuple(rows)))


def _waits(offered: Offered | None) -> str:
    if offered is None or offered.saturated:
        return "more than it answers"
    return ", ".join(ms(offered.percentile_ms(percent)) for percent in (50, 90, 99))


def readiness(report: Report) -> Section:
    """What it takes to have each ready, and to run it."""
    energy = any(each.energy for each in report.candidates)
    rows = []
    for each in report.candidates:
        if each.footprint is None:
            continue
        found = each.footprint
        used = [f"{each.energy.joules:.3g}{NBSP}J", f"{each.energy.watts:.3g}{NBSP}W"] if each.energy else []
        rows.append((each.title, ms(found.load_ms), ms(found.first_ms), in_bytes(found.memory_bytes), *used))
    columns = ["", "loading", "first request", "memory at the peak"]
    columns += ["energy of a request", "power meanwhile"] if energy else []
    text = "Each in a fresh process, beyond what the library itself takes. "
    text += "Energy is that of the whole processor." if energy else "This machine does not tell what energy it uses."
    return Section("Loading, memory and energy", text, Table(tuple(columns), tuple(rows)))


def layers(report: Report) -> Section:
    """Where the time and the multiply-adds of the first of ours go."""
    ours = profiled(report)
    if ours is None:
        return Section("", "", Table((), ()))
    known = list(zip(ours.layers, shares(ours.layers), strict=True))
    longest = sorted(known, key=lambda each: -each[0].milliseconds)
    rows = [
        (each.name, ms(each.milliseconds), f"{time:.1%}", human(each.macs), f"{macs:.1%}")
        for each, (time, macs) in longest[:LONGEST]
    ]
    if rest := longest[LONGEST:]:
        time, macs = (sum(share[which] for _, share in rest) for which in (0, 1))
        spent, counted = sum(each.milliseconds for each, _ in rest), sum(each.macs for each, _ in rest)
        rows.append((f"{len(rest)} others", ms(spent), f"{time:.1%}", human(counted), f"{macs:.1%}"))
    spent_by_all = sum(each.milliseconds for each in ours.layers)
    moving = sum(each.moving for each in ours.layers) / max(spent_by_all, 1e-9)
    text = (
        f"Of “{ours.title}”, as ONNX Runtime's profiler tells in whole microseconds, which takes time itself: all "
        f"layers together {ms(spent_by_all)}, a request without it {ms(ours.measurement.median_ms)}. Each layer with "
        f"what follows it until the next, the longest first. {moving:.1%} of the time goes into operators that only "
        "move data."
    )
    return Section("Where the time goes", text, Table(("layer", "time", "of all", "MACs", "of all"), tuple(rows)))


def profiled(report: Report) -> CandidateReport | None:
    """The first of ours whose layers are known."""
    return next((each for each in report.candidates if each.kind in OURS and each.layers), None)


def operators(report: Report) -> Section:
    """Which operators the multiply-adds are of."""
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


def _keys(mappings: Iterator[dict[str, int]] | Sequence[dict[str, int]]) -> list[str]:
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))
