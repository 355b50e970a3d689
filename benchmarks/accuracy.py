"""What the networks of a benchmark reached on their validation split, as their files say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gatedeploy.benchmarks.subjects import Subject
from gatedeploy.errors import InputError, located
from gatedeploy.training.comparing import Comparison, compare
from gatedeploy.training.metrics import Metrics

SINGLE = "single-task networks"


@dataclass(frozen=True)
class Accuracy:
    """One row of the table of accuracies.

    Args:
        name: the file, or `SINGLE` for the single-task networks together.
        metrics: figure by metric and task.
        compared: beside the single-task networks; None without them.
    """

    name: str
    metrics: Metrics
    compared: Comparison | None


def accuracies(subjects: Sequence[Subject]) -> list[Accuracy]:
    """One row for each subject that was measured; the first single-task network of each task makes one row together.

    Raises:
        InputError: a file's metrics are no numbers by task.
    """
    read = [(subject, _metrics(subject)) for subject in subjects]
    single: Metrics = {}
    for subject, metrics in read:
        if subject.form == "single":
            single = {**metrics, **single}
    tasks = list(dict.fromkeys(task for subject in subjects for task in subject.info.tasks))
    rows = [Accuracy(SINGLE, single, None)] if single else []
    for subject, metrics in read:
        if subject.form != "single" and metrics:
            rows.append(Accuracy(subject.label, metrics, compare(tasks, metrics, single)))
    return rows


def _metrics(subject: Subject) -> Metrics:
    with located(str(subject.path)):
        return {str(task): _figures(task, values) for task, values in subject.info.metrics.items()}


def _figures(task: str, values: Any) -> dict[str, float]:
    if not isinstance(values, Mapping) or not all(isinstance(value, (int, float)) for value in values.values()):
        raise InputError(f"its metrics of task {task!r} are {values!r}; expected numbers by name")
    return {str(name): float(value) for name, value in values.items() if math.isfinite(value)}
