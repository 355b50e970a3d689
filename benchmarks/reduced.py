"""What reduced precision costs the bundles of a benchmark, as their manifests say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gatedeploy.benchmarks.subjects import Subject
from gatedeploy.exporters.manifest import Reduction


@dataclass(frozen=True)
class Reduced:
    """One bundle of reduced precision.

    Args:
        label: the bundle's.
        precision: of weights and arithmetic, e.g. "int8".
        reduction: how it was reduced, and what that costs.
    """

    label: str
    precision: str
    reduction: Reduction

    def plain(self) -> dict[str, Any]:
        """In JSON types; metrics that are no numbers are left out."""
        said = self.reduction
        figures = {
            when: {task: {name: value for name, value in of.items() if value == value} for task, of in metrics.items()}
            for when, metrics in (("float32", said.float32), ("reduced", said.reduced))
        }
        beside = {"calibration": said.calibration, "judged_on": said.judged_on, "data": said.data}
        layers = {"layers": said.layers, "kept": list(said.kept)}
        return {"precision": self.precision, **beside, **figures, "lost": said.lost, **layers}


def reductions(subjects: Sequence[Subject]) -> list[Reduced]:
    """Of all bundles that are not in float32."""
    bundles = [(subject.label, subject.bundle.manifest) for subject in subjects if subject.bundle]
    return [Reduced(label, said.precision, said.reduction) for label, said in bundles if said.reduction]
