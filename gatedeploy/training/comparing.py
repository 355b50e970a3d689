"""How a network compares with single-task ones, and with others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from gatedeploy.errors import InputError
from gatedeploy.specs import Task
from gatedeploy.training.metrics import Metric, Metrics, headline, metrics_of


@dataclass(frozen=True)
class Comparison:
    """A network beside the single-task networks of its tasks.

    Args:
        delta_mtl: Δ_MTL, the mean relative gain of the headline metrics, in percent (InterroGate eq. 6).
        delta_i: Δ_I, the mean over tasks of the mean relative gain over all their metrics (Safe MTL section 4.1).
        eta: η̂, the mean over tasks of the share of their metrics that are no worse, in percent (same place).

    Of the first two each is None where a single-task network reached 0, to which nothing is relative.
    """

    delta_mtl: float | None
    delta_i: float | None
    eta: float

    @property
    def safe(self) -> bool:
        """Whether no metric of any task is worse: then no negative sharing was seen (Safe MTL definition 2)."""
        return self.eta == 100

    @property
    def percents(self) -> tuple[float | None, float | None, float]:
        """Δ_MTL, Δ_I and η̂, all in percent, for tables."""
        return self.delta_mtl, None if self.delta_i is None else 100 * self.delta_i, self.eta


def compare(tasks: Sequence[Task], model: Metrics, single: Metrics) -> Comparison | None:
    """How a network compares; None where the headline of a task was not measured of both.

    Args:
        tasks: what is compared.
        model: figure by task and metric, of the network.
        single: likewise, of the single-task networks. Of a task, those metrics count that are numbers in both.
    """
    changes = []
    for task in tasks:
        ours, theirs = model.get(task.name, {}), single.get(task.name, {})
        usual = metrics_of(task) if task.kind else ()
        known = [metric for metric in usual if _measured(ours, metric) and _measured(theirs, metric)]
        if not known or known[0] != headline(task):
            return None
        changes.append([Change.of(metric, ours[metric.name], theirs[metric.name]) for metric in known])
    return combined(changes) if changes else None


def _measured(figures: Mapping[str, float], metric: Metric) -> bool:
    return math.isfinite(figures.get(metric.name, math.nan))


@dataclass(frozen=True)
class Change:
    """What one figure gains over that of a single-task network.

    Args:
        gain: positive where it is better, in the metric's unit (Δ_{t,j} of Safe MTL section 4.1).
        before: the single-task network's.
    """

    gain: float
    before: float

    @classmethod
    def of(cls, metric: Metric, ours: float, theirs: float) -> Change:
        """The change from `theirs` to `ours`."""
        return cls(theirs - ours if metric.lower_is_better else ours - theirs, theirs)


def combined(changes: Sequence[Sequence[Change]]) -> Comparison:
    """The comparison that these changes make: of each task those of its metrics, the headline first."""

    def relative(some: Sequence[Sequence[Change]]) -> float | None:
        if any(change.before == 0 for task in some for change in task):
            return None
        return fmean(fmean(change.gain / abs(change.before) for change in task) for task in some)

    of_headlines = relative([task[:1] for task in changes])
    return Comparison(
        None if of_headlines is None else 100 * of_headlines,
        relative(changes),
        100 * fmean(fmean(change.gain >= 0 for change in task) for task in changes),
    )


def mean_ranks(tasks: Sequence[Task], networks: Mapping[str, Metrics]) -> dict[str, float]:
    """By network, its mean rank over the tasks' headline metrics, 1 being best (InterroGate section 4.1).

    Networks that are equal share the mean of their places.

    Args:
        tasks: what is compared.
        networks: figure by task and metric, of each network.

    Raises:
        InputError: there are no tasks, or a network was not measured on one.
    """
    if not tasks:
        raise InputError("a mean rank needs at least one task")
    ranks: dict[str, list[float]] = {name: [] for name in networks}
    for task in tasks:
        metric = headline(task)
        figures = {}
        for name, metrics in networks.items():
            if not _measured(metrics.get(task.name, {}), metric):
                raise InputError(f"{name}: {metric.name} of task {task.name} was not measured, so it has no rank")
            figures[name] = metrics[task.name][metric.name] * (1 if metric.lower_is_better else -1)
        for name, figure in figures.items():
            better = sum(other < figure for other in figures.values())
            equal = sum(other == figure for other in figures.values())
            ranks[name].append(better + (equal + 1) / 2)
    return {name: fmean(each) for name, each in ranks.items()}
