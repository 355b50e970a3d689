"""Real pictures, by which a network of reduced precision is calibrated and judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gatedeploy.errors import CheckError, InputError
from gatedeploy.runners.base import Array
from gatedeploy.specs import InputSpec

Predict = Callable[[Array], Mapping[str, Array]]
"""Predictions by task, of pictures (batch, channels, height, width) float32."""

Metrics = dict[str, dict[str, float]]
"""Figures by task and metric."""


@dataclass(frozen=True)
class Headline:
    """The metric that a task is judged by, and whether it is an error, so that less is better."""

    metric: str
    lower_is_better: bool


@dataclass(frozen=True)
class Samples:
    """What a reduced network is calibrated and judged by.

    Args:
        calibration: batches of pictures, (batch, channels, height, width) float32, that ranges of values are taken
            from; none of them should be among those that `measure` looks at.
        measure: runs a network on pictures with labels and returns its figures by task and metric.
        headlines: by task, the metric that may not drop.
        source: where the pictures come from, for people.
        pictures: how many pictures `measure` looks at.
    """

    calibration: Sequence[Array]
    measure: Callable[[Predict], Metrics]
    headlines: Mapping[str, Headline]
    source: str
    pictures: int

    def some(self, count: int) -> Array:
        """The first `count` pictures to calibrate by, or all where there are fewer."""
        chosen: list[Array] = []
        for batch in self.calibration:
            chosen.append(batch[: count - sum(map(len, chosen))])
        return np.concatenate(chosen)

    def check(self, input: InputSpec) -> None:
        """Raise `InputError` unless there are pictures to calibrate by and all of them are numbers and fit."""
        if not self.headlines:
            raise InputError(f"{self.source}: names no metric to judge a task by; expected a headline for each task")
        if not self.calibration:
            raise InputError(f"{self.source}: no pictures to calibrate by")
        seen = 0
        for batch in self.calibration:
            if batch.dtype != np.float32 or batch.ndim != 4 or batch.shape[1:] != input.shape:
                raise InputError(
                    f"{self.source}: a batch to calibrate by is {batch.dtype} {batch.shape}; expected float32 "
                    f"(batch, {', '.join(map(str, input.shape))})"
                )
            finite = np.isfinite(batch).reshape(len(batch), -1).all(1)
            if not finite.all():
                raise InputError(
                    f"{self.source}: picture {seen + int(finite.argmin())} to calibrate by holds NaN or infinity; mend "
                    "it or leave it out"
                )
            seen += len(batch)


def drops(headlines: Mapping[str, Headline], before: Metrics, after: Metrics) -> dict[str, float]:
    """What each task loses, in percent of its headline metric; negative where it gains.

    Raises:
        CheckError: a figure is missing.
    """
    lost = {}
    for task, headline in headlines.items():
        try:
            old, new = before[task][headline.metric], after[task][headline.metric]
        except KeyError:
            raise CheckError(f"task {task}: {headline.metric} was not measured") from None
        worse = new - old if headline.lower_is_better else old - new
        lost[task] = 100 * worse / abs(old) if old else (0.0 if worse <= 0 else float("inf"))
    return lost
