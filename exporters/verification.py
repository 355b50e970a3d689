"""Compare what was exported with PyTorch in float64, before anybody gets it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from gatedeploy.errors import CheckError
from gatedeploy.exporters.manifest import Errors, Reduction, Reference, largest
from gatedeploy.exporters.pieces import Batches, batches_to_try, cycled
from gatedeploy.exporters.precision.table import PRECISIONS
from gatedeploy.exporters.reference import fingerprint, reference_picture
from gatedeploy.parity import FLOAT32, compare
from gatedeploy.program import Program, evaluate, flat_predictions
from gatedeploy.runners.base import Array, Runner
from gatedeploy.specs import InputSpec

BATCHES = (1, 3)
"""Batch sizes that an exported network is verified at; neither is the one it was traced with."""

SEED = 0

APART = 4
"""How many times its own rounding a network of reduced precision may be off in another runtime: two that round in
different places are apart by as much as both are off, and one may be off by more than the other."""


@dataclass(frozen=True)
class Case:
    """Pictures, and what is expected of them.

    Args:
        picture: (batch, channels, height, width) float32.
        outputs: by name.
    """

    picture: Array
    outputs: Mapping[str, Array]

    @property
    def batch(self) -> int:
        """How many pictures."""
        return len(self.picture)

    def cycled(self, count: int) -> Case:
        """So many pictures: all of these in turn, again and again."""
        again = {name: cycled(values, count) for name, values in self.outputs.items()}
        return Case(cycled(self.picture, count), again)


def expected_cases(program: Program, spec: InputSpec) -> tuple[Case, ...]:
    """What PyTorch computes in float64 of made-up pictures, preprocessed as `spec` says, for each of `BATCHES`.

    Raises:
        CheckError: it is no number.
    """
    cases = []
    for batch in BATCHES:
        picture = reference_picture(spec, batch, SEED)
        exact = flat_predictions(evaluate(program, torch.from_numpy(picture)))
        cases.append(Case(picture, {name: tensor.numpy() for name, tensor in exact.items()}))
        for name, values in cases[-1].outputs.items():
            if not math.isfinite(values.sum()):
                raise CheckError(f"prediction {name!r} is not finite for a picture of noise; train the network again")
    return tuple(cases)


def answered(cases: Sequence[Case], runner: Runner, spec: InputSpec) -> tuple[Case, ...]:
    """The same pictures, and what a runner answers to them."""
    return tuple(Case(case.picture, runner.infer({spec.name: case.picture})) for case in cases)


def for_batches(cases: Sequence[Case], batches: Batches) -> tuple[Case, ...]:
    """The cases that an engine takes, and its smallest and its largest batch."""
    sizes = [size for case in cases for size in batches_to_try(case.batch, batches)]
    known = {case.batch: case for case in cases}
    return tuple(known.get(size) or cases[-1].cycled(size) for size in sorted(set(sizes)))


def differences(cases: Sequence[Case], runner: Runner, spec: InputSpec, tolerance: float | None, what: str) -> Errors:
    """How far a runner is from what is expected.

    Raises:
        CheckError: that is further than `tolerance`, or, where that is None, it is no number.
    """
    errors: Errors = {}
    for case in cases:
        where = f"{what} at batch size {case.batch}"
        parity = compare(case.outputs, runner.infer({spec.name: case.picture}), tolerance or math.inf)
        parity.check(where)
        for name, error in parity.error.items():
            if not math.isfinite(error):
                raise CheckError(f"{where} answers {name!r} with NaN or infinity to a picture of noise")
        errors[str(case.batch)] = dict(parity.error)
    return errors


def reference_of(cases: Sequence[Case], precision: str, reduction: Reduction | None) -> Reference:
    """What the manifest remembers, to compare with on another machine: of the case with the most pictures."""
    most = max(cases, key=lambda case: case.batch)
    prints = {name: fingerprint(values) for name, values in most.outputs.items()}
    return Reference(SEED, most.batch, _tolerance(precision, reduction), prints)


def _tolerance(precision: str, reduction: Reduction | None) -> float:
    """How far another runtime may be off; a network of which most stayed in float32 is held to that."""
    most = PRECISIONS[precision].tolerance
    error = largest(reduction.error) if reduction else None
    return most if error is None else min(most, max(FLOAT32, APART * error))
