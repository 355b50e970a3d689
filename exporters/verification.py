"""Compare what was exported with PyTorch in float64, before anybody gets it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gatedeploy.errors import CheckError
from gatedeploy.exporters.manifest import Errors, Reference
from gatedeploy.exporters.reference import fingerprint, reference_picture
from gatedeploy.parity import FLOAT32, compare
from gatedeploy.program import Program, evaluate, flat_predictions
from gatedeploy.runners.base import Array, Runner
from gatedeploy.specs import InputSpec

BATCHES = (1, 3)
"""Batch sizes that an exported network is verified at; neither is the one it was traced with."""

SEED = 0
TOLERANCE = {"fp32": FLOAT32, "tf32": 1e-2, "fp16": 1e-2, "bf16": 5e-2, "int8": 1e-1, "fp8": 1e-1}
"""How far two runtimes may be apart that compute the same network: float32 as everywhere; 8 to 10 roundings of 2⁻¹¹
(tf32, fp16) and of 2⁻⁸ (bf16); in int8 a value on the border of two steps falls this way here and that way there,
and each step is a hundredth of the range, in fp8 up to a thirtieth."""


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

    def repeated(self, times: int) -> Case:
        """The same pictures so many times, in one batch."""
        again = {name: np.concatenate([values] * times) for name, values in self.outputs.items()}
        return Case(np.concatenate([self.picture] * times), again)


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


def for_batches(cases: Sequence[Case], batches: tuple[int, int, int] | None) -> tuple[Case, ...]:
    """The cases that an engine takes, and its smallest and its largest batch."""
    if batches is None:
        return tuple(cases)
    fitting = [case for case in cases if batches[0] <= case.batch <= batches[-1]]
    known = {case.batch for case in fitting}
    more = [cases[0].repeated(size) for size in sorted({batches[0], batches[-1]} - known)]
    return (*fitting, *more)


def differences(cases: Sequence[Case], runner: Runner, spec: InputSpec, tolerance: float | None, what: str) -> Errors:
    """How far a runner is from what is expected; `CheckError` if that is further than `tolerance`, None being any."""
    errors: Errors = {}
    for case in cases:
        got = runner.infer({spec.name: case.picture})
        parity = compare(case.outputs, got, math.inf if tolerance is None else tolerance)
        parity.check(f"{what} at batch size {case.batch}")
        errors[str(case.batch)] = dict(parity.error)
    return errors


def reference_of(cases: Sequence[Case], precision: str) -> Reference:
    """What the manifest remembers, to compare with on another machine."""
    prints = {name: fingerprint(values) for name, values in cases[0].outputs.items()}
    return Reference(SEED, cases[0].batch, TOLERANCE[precision], prints)
