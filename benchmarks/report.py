"""What a benchmark found, as one value and as JSON.

The JSON's keys are stable; `version` grows when one of them changes its meaning or goes.

    format, version      "gatedeploy.report", 1
    created, command     when (UTC), and what to type to measure again
    paths                path, form and sha256 of what was measured
    tasks, input         the questions, and the picture
    baseline             the candidate that ratios refer to: uniform MTL ("mtl") where there is one
    candidates           by name, see `CandidateReport`
    sharing              by label: the gate sites, see `gatedeploy.graph.shares.SiteShare`
    accuracy             by label: metrics, delta_mtl, delta_i, eta
    latency              runtime, threads, rounds, seed, batch
    environment          see `Environment`
    warnings             what makes the latencies doubtful; empty when all was quiet
    notes                which rivals are missing and why
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gatedeploy.benchmarks.accuracy import Accuracy
from gatedeploy.benchmarks.candidates import Candidate, title
from gatedeploy.benchmarks.costs import NetworkCost
from gatedeploy.benchmarks.environment import Environment
from gatedeploy.benchmarks.latency import Latency, Measurement, Ratio
from gatedeploy.benchmarks.runners import Opened
from gatedeploy.graph.shares import SiteShare
from gatedeploy.specs import InputSpec, Task, to_plain

FORMAT = "gatedeploy.report"
VERSION = 1
DIGITS = 5
"""Decimal places of milliseconds: below them is the clock's own noise."""


@dataclass(frozen=True)
class CandidateReport:
    """One candidate, measured.

    Args:
        name: its key.
        kind: "stl", "mtl", "moe", "gated", "collapsed" or "bundle".
        title: what it is called in words.
        passes: how many networks one request runs.
        cost: of the request.
        size_bytes: of its ONNX files.
        measurement: its times.
        ratio: its latency over the baseline's.
        cpu_ratio: its processor time over the baseline's; None where the system cannot tell.
        macs_ratio: its MACs over the baseline's; None if the baseline has none.
        onnx_parity: per output, how far ONNX Runtime is from PyTorch, relative to the output's scale; for a bundle how
            far it is from what its manifest remembers.
        collapse_parity: per task, how far the collapsed network is from the gated one in float64, by the same measure;
            empty for what was not collapsed.
        flipped_gates: how many choices of gates were flipped after it was trained; the gated one's are flipped, too.
    """

    name: str
    kind: str
    title: str
    passes: int
    cost: NetworkCost
    size_bytes: int
    measurement: Measurement
    ratio: Ratio
    cpu_ratio: Ratio | None
    macs_ratio: float | None
    onnx_parity: dict[str, float]
    collapse_parity: dict[str, float]
    flipped_gates: int

    @property
    def realisation(self) -> float | None:
        """Latency ratio over MAC ratio: 1 is what the count promises. None without MACs."""
        return self.ratio.value / self.macs_ratio if self.macs_ratio else None

    def plain(self) -> dict[str, Any]:
        """The candidate in JSON types."""
        measured = self.measurement
        return {
            **{"kind": self.kind, "title": self.title, "passes": self.passes, "size_bytes": self.size_bytes},
            **self.cost.plain(),
            "macs_ratio": self.macs_ratio,
            "latency": {
                "median_ms": round(measured.median_ms, DIGITS),
                "p90_ms": round(measured.p90_ms, DIGITS),
                "spread": measured.spread,
                "drift": measured.drift,
                "waiting": measured.waiting,
                "ratio": asdict(self.ratio),
                "cpu_ratio": asdict(self.cpu_ratio) if self.cpu_ratio else None,
                "samples_ms": _rounded(measured.samples_ms),
                "cpu_ms": _rounded(measured.cpu_ms),
            },
            "realisation": self.realisation,
            "parity": {"onnx": self.onnx_parity, "collapse": self.collapse_parity},
            "flipped_gates": self.flipped_gates,
        }


@dataclass(frozen=True)
class Report:
    """What a benchmark found; the fields are the JSON's keys."""

    created: str
    command: str
    paths: tuple[dict[str, str], ...]
    tasks: tuple[Task, ...]
    input: InputSpec
    baseline: str
    candidates: tuple[CandidateReport, ...]
    sharing: dict[str, list[SiteShare]]
    accuracy: tuple[Accuracy, ...]
    latency: dict[str, Any]
    environment: Environment
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

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
            "sharing": {label: [asdict(site) for site in sites] for label, sites in self.sharing.items()},
            "accuracy": {row.name: _reached(row) for row in self.accuracy},
            "latency": self.latency,
            "environment": asdict(self.environment),
            **{"warnings": list(self.warnings), "notes": list(self.notes)},
        }


def candidate_reports(
    candidates: Sequence[Candidate], opened: Sequence[Opened], latency: Latency, tasks: int
) -> tuple[CandidateReport, ...]:
    """Put together what is known of each candidate.

    Args:
        candidates: in the order of the report.
        opened: the same, as they ran.
        latency: what was measured of them.
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
            )
        )
    return tuple(reports)


def _reached(row: Accuracy) -> dict[str, Any]:
    compared = row.compared
    beside = {name: getattr(compared, name, None) for name in ("delta_mtl", "delta_i", "eta")}
    return {"metrics": row.metrics, **beside}


def _rounded(turns: Sequence[Sequence[float]]) -> list[list[float]]:
    return [[round(sample, DIGITS) for sample in turn] for turn in turns]


def _collapse_parity(candidate: Candidate) -> dict[str, float]:
    parity = candidate.collapse.get("parity")
    error = parity.get("error") if isinstance(parity, dict) else None
    if not isinstance(error, dict):
        return {}
    return {str(task): float(value) for task, value in error.items() if isinstance(value, (int, float))}
