"""What a study holds, read: trials, and the networks that they are compared with."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from gatedeploy.specs import Task
from gatedeploy.sweep.grid import Point, Value
from gatedeploy.training.comparing import compare

Metrics = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Measured:
    """What a network reached and what it costs, collapsed to the fewest multiply-adds.

    Args:
        metrics: figure by task and metric.
        macs: multiply-adds for one picture.
        params: parameters.
    """

    metrics: Metrics
    macs: int
    params: int

    def plain(self) -> dict[str, Any]:
        """The same as JSON values; `Measured(**plain)` makes it again."""
        return asdict(self)


@dataclass(frozen=True)
class Trial:
    """One training of a study.

    Args:
        number: in the study.
        state: waiting, running, complete or fail.
        point: what was varied.
        seed: of the training.
        values: Δ_MTL in percent and multiply-adds, once it is complete.
        measured: what it reached, likewise.
        error: why it failed, where it did.
    """

    number: int
    state: str
    point: dict[str, Value]
    seed: int
    values: tuple[float, float] | None = None
    measured: Measured | None = None
    error: str = ""


@dataclass(frozen=True)
class Rivals:
    """What the networks of one seed are compared with.

    Args:
        single: the single-task networks, all of them.
        shared: uniform multi-task learning, if the recipe asks for rivals.
    """

    single: Measured
    shared: Measured | None = None


@dataclass(frozen=True)
class Found:
    """Everything that a study holds so far.

    Args:
        tasks: what every network was trained on.
        trials: by number.
        rivals: by seed.
    """

    tasks: tuple[Task, ...]
    trials: tuple[Trial, ...]
    rivals: Mapping[int, Rivals] = field(default_factory=dict)

    def count(self, state: str) -> int:
        """How many trials are in a state."""
        return sum(trial.state == state for trial in self.trials)

    @property
    def lines(self) -> list[Line]:
        """The points of which some trial is complete, the cheapest first."""
        lines: list[Line] = []
        for trial in (trial for trial in self.trials if trial.measured is not None):
            line = next((line for line in lines if line.point == trial.point), None)
            if line is None:
                lines.append(Line(trial.point, self, [trial]))
            else:
                line.trials.append(trial)
        return sorted(lines, key=lambda line: line.mean("macs"))


@dataclass(frozen=True)
class Line:
    """A point with all the seeds that it was trained with so far."""

    point: Point
    found: Found
    trials: list[Trial]

    @property
    def measured(self) -> list[tuple[int, Measured]]:
        """What each seed reached."""
        return [(trial.seed, trial.measured) for trial in self.trials if trial.measured is not None]

    def each(self, what: str) -> list[float]:
        """By seed: `delta_mtl`, `delta_i`, `eta`, all in %, `macs`, `params`, `share` (% of single-task nets' MACs)."""
        return figures(self.found, self.measured, what)

    def mean(self, what: str) -> float:
        """The mean over seeds of what `each` says."""
        return statistics.fmean(self.each(what))


def figures(found: Found, measured: Sequence[tuple[int, Measured]], what: str) -> list[float]:
    """What `Line.each` says, of any network that was trained with several seeds; nothing where nothing is known."""
    read: dict[str, Callable[[int, Measured], float | None]] = {
        "macs": lambda _, each: each.macs,
        "params": lambda _, each: each.params,
        "share": lambda seed, each: 100 * each.macs / found.rivals[seed].single.macs,
        **{name: _compared(found, number) for number, name in enumerate(("delta_mtl", "delta_i", "eta"))},
    }
    values = [read[what](seed, each) for seed, each in measured]
    return [value for value in values if value is not None]


def _compared(found: Found, number: int) -> Callable[[int, Measured], float | None]:
    def gain(seed: int, measured: Measured) -> float | None:
        compared = compare(found.tasks, measured.metrics, found.rivals[seed].single.metrics)
        return None if compared is None else compared.percents[number]

    return gain
