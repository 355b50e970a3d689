"""What a benchmark found, as one value and as JSON.

The JSON's keys are stable; `version` grows when one of them changes its meaning or goes.

    format, version      "gatedeploy.report", 2; `templates/report.schema.json` is their JSON schema
    created, command     when (UTC), and what to type to measure again
    paths                path, form and sha256 of what was measured
    tasks, input         the questions, and the picture
    baseline             the candidate that ratios refer to: uniform MTL ("mtl") where there is one
    candidates           by name, see `CandidateReport`
    beside               by name: latency over that of each rival, with its interval; of those that it is about
    sharing              by label: the gate sites, see `gatedeploy.graph.shares.SiteShare`
    accuracy             by label: metrics, delta_mtl, delta_i, eta
    reductions           by bundle of reduced precision what that costs, see `gatedeploy.benchmarks.reduced.Reduced`
    published            what a paper reached in the same set-up, see `gatedeploy.benchmarks.published.Published`
    latency              runtime, threads, rounds, seed, batch
    environment          see `Environment`
    warnings             what makes the latencies doubtful; empty when all was quiet
    notes                which rivals are missing and why
    against              see `gatedeploy.benchmarks.against.Change`; null unless an earlier report was named
    missing              parts that were not measured, because somebody stopped it; empty for a whole report
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from gatedeploy.benchmarks.accuracy import Accuracy
from gatedeploy.benchmarks.against import FORMAT, VERSION, Against
from gatedeploy.benchmarks.candidates import OURS, Candidate, title
from gatedeploy.benchmarks.costs import NetworkCost
from gatedeploy.benchmarks.energy import Energy
from gatedeploy.benchmarks.environment import Environment
from gatedeploy.benchmarks.footprint import Footprint
from gatedeploy.benchmarks.latency import Latency, Measurement, Ratio
from gatedeploy.benchmarks.layers import Layer
from gatedeploy.benchmarks.offered_load import Offered
from gatedeploy.benchmarks.predictions import Example
from gatedeploy.benchmarks.published import Published
from gatedeploy.benchmarks.reduced import Reduced
from gatedeploy.benchmarks.runners import Opened
from gatedeploy.benchmarks.scenarios import Scenarios
from gatedeploy.graph.shares import SiteShare
from gatedeploy.specs import InputSpec, Task, to_plain

DIGITS = 5
"""Decimal places of milliseconds: below them is the clock's own noise."""


@dataclass(frozen=True)
class CandidateReport:
    """One candidate, measured.

    Args:
        name: its key.
        kind: one of `gatedeploy.benchmarks.candidates.KINDS`.
        title: what it is called in words.
        passes: how many networks one request runs.
        cost: of the request.
        size_bytes: of its ONNX files; None for what PyTorch runs itself.
        measurement: its times.
        ratio: its latency over the baseline's.
        cpu_ratio: its processor time over the baseline's; None where the system cannot tell.
        macs_ratio: its MACs over the baseline's; None if the baseline has none.
        onnx_parity: per output, how far the runtime is from PyTorch, relative to the output's scale; for a bundle how
            far it is from what its manifest remembers.
        collapse_parity: per task, how far the collapsed network is from the gated one in float64, by the same measure;
            empty for what was not collapsed.
        flipped_gates: how many choices of gates were flipped after it was trained; the gated one's are flipped, too.
        measured: the label in `accuracy` of what it reached; "" where nobody measured it.
        batches: its times by pictures in a request, where that was measured.
        offered: what became of requests that came at random, from the least that was offered; likewise.
        footprint: what it takes to have it ready; likewise.
        energy: what a request uses; None also where the machine does not tell.
        layers: where time and multiply-adds go, in the order in which they run; likewise.
    """

    name: str
    kind: str
    title: str
    passes: int
    cost: NetworkCost
    size_bytes: int | None
    measurement: Measurement
    ratio: Ratio
    cpu_ratio: Ratio | None
    macs_ratio: float | None
    onnx_parity: dict[str, float]
    collapse_parity: dict[str, float]
    flipped_gates: int
    measured: str
    batches: Mapping[int, Measurement] = field(default_factory=dict)
    offered: Sequence[Offered] = ()
    footprint: Footprint | None = None
    energy: Energy | None = None
    layers: Sequence[Layer] = ()

    @property
    def realisation(self) -> float | None:
        """Latency ratio over MAC ratio: 1 is what the count promises. None without MACs, or where noise hides it."""
        return self.ratio.value / self.macs_ratio if self.macs_ratio and self.ratio.told else None

    def beside(self, other: CandidateReport) -> Ratio:
        """Its latency over another's, round against round."""
        return Latency((self.measurement, other.measurement), other.name, 0).ratio(self.name)

    @property
    def throughput(self) -> dict[int, float]:
        """Pictures a second by pictures in a request, one request after the other; those that noise lets tell."""
        measured = {1: self.measurement, **self.batches}
        return {size: 1e3 * size / each.median_ms for size, each in measured.items() if _told_ms(each)}

    @property
    def told_ms(self) -> float | None:
        """The median request; None where the machine was too noisy."""
        return self.measurement.median_ms if _told_ms(self.measurement) else None

    def plain(self) -> dict[str, Any]:
        """The candidate in JSON types."""
        measured = self.measurement
        return {
            **{"kind": self.kind, "title": self.title, "passes": self.passes, "size_bytes": self.size_bytes},
            **self.cost.plain(),
            "macs_ratio": self.macs_ratio,
            "latency": {
                **_times(measured),
                "drift": measured.drift,
                "waiting": measured.waiting,
                "ratio": _told(self.ratio),
                "cpu_ratio": _told(self.cpu_ratio) if self.cpu_ratio else None,
            },
            "batches": {str(size): _times(each) for size, each in self.batches.items()},
            "throughput": {str(size): round(each, DIGITS) for size, each in self.throughput.items()},
            "offered": [_offered(each) for each in self.offered],
            "footprint": asdict(self.footprint) if self.footprint else None,
            "energy": asdict(self.energy) if self.energy else None,
            "layers": [asdict(each) for each in self.layers],
            "realisation": self.realisation,
            "parity": {"onnx": self.onnx_parity, "collapse": self.collapse_parity},
            **{"flipped_gates": self.flipped_gates, "measured": self.measured or None},
        }


@dataclass(frozen=True)
class Report:
    """What a benchmark found; the fields are the JSON's keys, but for `examples`, which only the page shows."""

    created: str
    command: str
    paths: tuple[dict[str, str], ...]
    tasks: tuple[Task, ...]
    input: InputSpec
    baseline: str
    candidates: tuple[CandidateReport, ...]
    sharing: dict[str, list[SiteShare]]
    accuracy: tuple[Accuracy, ...]
    reductions: tuple[Reduced, ...]
    published: tuple[Published, ...]
    latency: dict[str, Any]
    environment: Environment
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    missing: tuple[str, ...] = ()
    against: Against | None = None
    examples: tuple[Example, ...] = ()

    @property
    def ours(self) -> CandidateReport | None:
        """The first of those that it is about."""
        return next((each for each in self.candidates if each.kind in OURS), None)

    @property
    def beside(self) -> dict[str, dict[str, Ratio]]:
        """Of each of ours, its latency over that of each rival, round against round."""
        rivals = [each for each in self.candidates if each.kind not in OURS]
        ours = [each for each in self.candidates if each.kind in OURS]
        return {each.name: {rival.name: each.beside(rival) for rival in rivals} for each in ours if rivals}

    @property
    def compares(self) -> bool:
        """Whether there is anything to compare; the ratios of one candidate alone say nothing."""
        return len(self.candidates) > 1

    def plain(self) -> dict[str, Any]:
        """The report in JSON types."""
        return {
            **{"format": FORMAT, "version": VERSION, "created": self.created, "command": self.command},
            "paths": list(self.paths),
            "tasks": [to_plain(task) for task in self.tasks],
            "input": to_plain(self.input),
            "baseline": self.baseline,
            "candidates": {candidate.name: candidate.plain() for candidate in self.candidates},
            "beside": {name: {rival: _told(each) for rival, each in of.items()} for name, of in self.beside.items()},
            "sharing": {label: [asdict(site) for site in sites] for label, sites in self.sharing.items()},
            "accuracy": {row.name: _reached(row) for row in self.accuracy},
            "reductions": {each.label: each.plain() for each in self.reductions},
            "published": [asdict(each) for each in self.published],
            "latency": self.latency,
            "environment": asdict(self.environment),
            **{"warnings": list(self.warnings), "notes": list(self.notes), "missing": list(self.missing)},
            "against": self.against.plain() if self.against else None,
        }


def candidate_reports(
    candidates: Sequence[Candidate], opened: Sequence[Opened], latency: Latency, scenarios: Scenarios, tasks: int
) -> tuple[CandidateReport, ...]:
    """Put together what is known of each candidate.

    Args:
        candidates: in the order of the report.
        opened: the same, as they ran.
        latency: what was measured of their single requests.
        scenarios: what was measured beside these.
        tasks: how many tasks there are.
    """
    baseline = next(each for each in candidates if each.name == latency.baseline).cost.macs
    reports = []
    for candidate, ran in zip(candidates, opened, strict=True):
        label = candidate.name.partition(" ")[2]
        words = title(candidate.kind, tasks)
        reports.append(
            CandidateReport(
                candidate.name,
                candidate.kind,
                f"{words} {label}" if label else words,
                len(ran.runners),
                candidate.cost,
                ran.size_bytes,
                latency.of(candidate.name),
                latency.ratio(candidate.name),
                latency.cpu_ratio(candidate.name),
                candidate.cost.macs / baseline if baseline else None,
                ran.parity,
                _collapse_parity(candidate),
                candidate.flipped_gates,
                candidate.measured,
                {size: each.of(ran.name) for size, each in scenarios.batches.items() if each.has(ran.name)},
                scenarios.offered.get(ran.name, ()),
                scenarios.footprints.get(ran.name),
                scenarios.energy.get(ran.name),
                scenarios.layers.get(ran.name, ()),
            )
        )
    return tuple(reports)


def _told_ms(measured: Measurement) -> bool:
    """Whether milliseconds say anything, which a ratio to something as disturbed may do where they do not."""
    return Latency((measured,), measured.candidate, 0).milliseconds(measured.candidate).told


def _reached(row: Accuracy) -> dict[str, Any]:
    compared = row.compared
    beside = {name: getattr(compared, name, None) for name in ("delta_mtl", "delta_i", "eta")}
    return {"metrics": row.metrics, **beside}


def _told(ratio: Ratio) -> dict[str, float | None]:
    """A ratio; without a value where the interval is too wide to tell one."""
    return {"value": ratio.value if ratio.told else None, "low": ratio.low, "high": ratio.high}


def _times(measured: Measurement) -> dict[str, Any]:
    percentiles = {f"p{percent}_ms": measured.percentile_ms(percent) for percent in (90, 99)}
    return {
        "median_ms": round(measured.median_ms, DIGITS),
        **{name: None if value is None else round(value, DIGITS) for name, value in percentiles.items()},
        "spread": measured.spread,
        "samples_ms": _rounded(measured.samples_ms),
        "cpu_ms": _rounded(measured.cpu_ms),
    }


def _offered(each: Offered) -> dict[str, Any]:
    percentiles = {f"p{percent}_ms": each.percentile_ms(percent) for percent in (50, 90, 99)}
    latencies = [round(sample, DIGITS) for sample in each.latencies_ms]
    return {"rate": each.rate, "busy": each.busy, "saturated": each.saturated, **percentiles, "latencies_ms": latencies}


def _rounded(turns: Sequence[Sequence[float]]) -> list[list[float]]:
    return [[round(sample, DIGITS) for sample in turn] for turn in turns]


def _collapse_parity(candidate: Candidate) -> dict[str, float]:
    parity = candidate.collapse.get("parity")
    error = parity.get("error") if isinstance(parity, dict) else None
    if not isinstance(error, dict):
        return {}
    return {str(task): float(value) for task, value in error.items() if isinstance(value, (int, float))}
