"""What gathers the figures of a task."""

from __future__ import annotations

import abc

from torch import Tensor


class Accumulator(abc.ABC):
    """What a task's predictions and labels come to; labels are as `Task.kind` says."""

    @abc.abstractmethod
    def update(self, prediction: Tensor, labels: Tensor) -> None:
        """Take in one batch."""

    @abc.abstractmethod
    def compute(self) -> dict[str, float]:
        """The figures by name, the headline first; NaN where nothing was labelled or predictions are no numbers."""
