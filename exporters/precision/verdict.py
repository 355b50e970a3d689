"""What a network of reduced precision loses, in its tasks' own metrics on real pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gatedeploy.exporters.pieces import Batches, in_pieces
from gatedeploy.exporters.precision.samples import Metrics, Samples, drops
from gatedeploy.exporters.progress import Progress
from gatedeploy.runners.base import Array, Runner
from gatedeploy.specs import InputSpec


@dataclass(frozen=True)
class Verdict:
    """What a network reaches.

    Args:
        metrics: by task and metric.
        lost: by task, what its headline metric lost in percent; negative where it gained.
    """

    metrics: Metrics
    lost: dict[str, float]

    def holds(self, max_drop: float) -> bool:
        """Whether no task loses more than that, in percent; a NaN is a loss."""
        return all(drop <= max_drop for drop in self.lost.values())


@dataclass(frozen=True)
class Judge:
    """Measures networks on pictures with labels.

    Args:
        input: the picture that they take.
        samples: the pictures, the metrics, and which of them a task is judged by.
        progress: is told how many pictures are done.
    """

    input: InputSpec
    samples: Samples
    progress: Progress

    def measure(self, runner: Runner, what: str, batches: Batches = None) -> Metrics:
        """What a network reaches, by task and metric; `what` is called in the progress."""
        seen = 0

        def predict(pictures: Array) -> Mapping[str, Array]:
            nonlocal seen
            smallest, _, largest = batches or (1, 1, len(pictures))
            found = in_pieces(runner, self.input.name, pictures, smallest, largest)
            seen += len(pictures)
            self.progress(f"judging {what}", seen, max(seen, self.samples.pictures))
            return found

        return self.samples.measure(predict)

    def verdict(self, runner: Runner, before: Metrics, what: str, batches: Batches = None) -> Verdict:
        """What a network reaches, and loses of what it reached `before`."""
        metrics = self.measure(runner, what, batches)
        return Verdict(metrics, drops(self.samples.headlines, before, metrics))

    def told(self, verdict: Verdict, before: Metrics, what: str, max_drop: float) -> str:
        """Why `what` is refused."""
        told = []
        for task, drop in verdict.lost.items():
            metric = self.samples.headlines[task].metric
            change = f"{metric} {before[task][metric]:.4g} → {verdict.metrics[task][metric]:.4g}"
            told.append(f"{lost_told(task, drop)} ({change})")
        return (
            f"{what}, measured on {self.samples.pictures} pictures of {self.samples.source}: {'; '.join(told)}. "
            f"Refused, for a task may lose {max_drop:g} %"
        )


def lost_told(task: str, drop: float) -> str:
    """What a task loses, in percent, for people."""
    if round(abs(drop), 2) == 0:
        return f"{task} loses nothing"
    return f"{task} {'loses' if drop > 0 else 'gains'} {abs(drop):.2f} %"
