"""Ways to answer all tasks, each tried with several seeds: what their networks cost, timed in turns."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from gatedeploy.artifact import ModelInfo
from gatedeploy.benchmarks.candidates import Candidate
from gatedeploy.benchmarks.latency import Latency, Ratio
from gatedeploy.benchmarks.runners import measure_in_turns
from gatedeploy.benchmarks.timing import Plan
from gatedeploy.training.metrics import Metrics


@dataclass(frozen=True)
class Way:
    """One way to answer all tasks.

    Args:
        title: what it is called; no other is called so.
        ours: whether its networks are gated ones, collapsed, which cost something else with each seed.
        info: the tasks and the picture.
        candidates: per seed, what is deployed; without networks where only figures were kept.
        metrics: per seed, what it reached by task and metric; empty where nobody asks.
    """

    title: str
    ours: bool
    info: ModelInfo
    candidates: tuple[Candidate, ...]
    metrics: tuple[Metrics, ...] = ()

    @property
    def macs(self) -> float:
        """Multiply-adds of what is deployed, the mean over seeds."""
        return statistics.fmean(each.cost.macs for each in self.candidates)

    @property
    def params(self) -> float:
        """Its parameters, likewise."""
        return statistics.fmean(each.cost.params for each in self.candidates)

    @property
    def named(self) -> dict[str, Candidate]:
        """What is timed, by name: each seed's of ours; of others one, for a seed does not change what they cost."""
        known = {
            f"{self.title}, network {number}": each
            for number, each in enumerate(self.candidates, start=1)
            if each.networks
        }
        return known if self.ours else dict(list(known.items())[:1])


@dataclass(frozen=True)
class Times:
    """What was timed, in turns in one process."""

    latency: Latency

    def median_ms(self, way: Way) -> float:
        """The median request, the mean over seeds."""
        return statistics.fmean(self.latency.of(name).median_ms for name in way.named)

    def ratio(self, way: Way, other: Way) -> Ratio:
        """How long one way takes over another: within a round, the means over seeds; then the median over rounds."""
        return self.latency.ratio_of(list(way.named), list(other.named))


def time_ways(ways: Sequence[Way], plan: Plan) -> Times | None:
    """Time single requests in ONNX Runtime on one thread, in turns; None where of a way only figures were kept.

    Args:
        ways: what takes turns.
        plan: how long.
    """
    if not all(way.named for way in ways):
        return None
    known = {name: (each, way.info) for way in ways for name, each in way.named.items()}
    return Times(measure_in_turns(known, next(iter(known)), plan))
