"""Reduce the precision of an exported network, and judge by its tasks' own metrics what that costs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gatedeploy.errors import CheckError, InputError, check_known
from gatedeploy.exporters.half import TYPES
from gatedeploy.exporters.int8 import METHODS
from gatedeploy.exporters.layer_errors import layer_errors
from gatedeploy.exporters.manifest import Reduction
from gatedeploy.exporters.progress import Progress
from gatedeploy.exporters.reducers import LOOKED_AT, Reducer, eight_bit_reducer, half_reducer
from gatedeploy.exporters.samples import Metrics, Samples, drops
from gatedeploy.exporters.surgery import opened
from gatedeploy.exporters.to_onnx import write_model
from gatedeploy.specs import InputSpec

EIGHT_BITS = ("int8", "fp8")
REDUCED = (*TYPES, *EIGHT_BITS)
MAX_DROP = 1.0


@dataclass(frozen=True)
class PrecisionOptions:
    """How far a network may be reduced.

    Args:
        calibration: how the ranges of 8 bits are chosen, of `METHODS`.
        max_drop: what a task may lose of its headline metric, in percent.
        mixed: keep in float32 as few layers as it takes to lose no more than that, those first that err most.
        layers: measure the error that every layer makes alone.
    """

    calibration: str = METHODS[0]
    max_drop: float = MAX_DROP
    mixed: bool = False
    layers: bool = False

    def __post_init__(self) -> None:
        check_known("the calibration", self.calibration, METHODS)
        if not self.max_drop >= 0:
            raise InputError(f"a drop of at most {self.max_drop} %: expected 0 or more")


@dataclass(frozen=True)
class _Judged:
    """A network of reduced precision and what it reaches."""

    kept: tuple[str, ...]
    metrics: Metrics
    lost: dict[str, float]


def reduce_precision(
    model: Path, input: InputSpec, precision: str, options: PrecisionOptions, samples: Samples, progress: Progress
) -> Reduction:
    """Replace an ONNX file in float32 by one of reduced precision.

    Args:
        model: the file; for bfloat16 of opset 22 or later.
        input: the picture.
        precision: one of `REDUCED`.
        options: how far it may be reduced.
        samples: what it is calibrated and judged by.
        progress: is told how far the errors of single layers are.

    Returns:
        What was done and what it costs, for the manifest.

    Raises:
        InputError: the pictures cannot be used.
        CheckError: a task loses more than it may; the file is unchanged then.
    """
    import onnx
    import onnx_ir

    samples.check(input)
    original = onnx.load(str(model))
    if precision in EIGHT_BITS:
        reducer = eight_bit_reducer(model, original, input, precision, options.calibration, samples)
    else:
        reducer = half_reducer(original, input, precision, samples)
    before = _measured(original, input, samples)
    judged = _judge(reducer, (), before, input, samples)
    errors: dict[str, float] = {}
    if options.layers or (options.mixed and not _holds(judged.lost, options)):
        errors = layer_errors(original, reducer, {input.name: samples.some(LOOKED_AT)}, progress)
    while options.mixed and not _holds(judged.lost, options) and len(judged.kept) < len(reducer.layers) - 1:
        # Twice as many each time: a network is judged some seven times for a hundred layers.
        count = min(max(1, 2 * len(judged.kept)), len(reducer.layers) - 1)
        judged = _judge(reducer, tuple(errors)[:count], before, input, samples)
    if not _holds(judged.lost, options):
        raise CheckError(_refused(precision, judged, before, options, samples, errors))
    write_model(onnx_ir.from_proto(reducer.reduce(judged.kept)), model)
    return Reduction(
        calibration=options.calibration if precision in EIGHT_BITS else "",
        calibrated_on=sum(map(len, samples.calibration)),
        judged_on=samples.pictures,
        data=samples.source,
        float32=before,
        reduced=judged.metrics,
        lost=judged.lost,
        max_drop=options.max_drop,
        kept=(*reducer.never, *judged.kept),
        layer_errors=errors,
    )


def _measured(model: Any, input: InputSpec, samples: Samples, optimized: bool = True) -> Metrics:
    with opened(model, optimized=optimized) as runner:
        return samples.measure(lambda pictures: runner.infer({input.name: pictures}))


def _judge(reducer: Reducer, kept: Collection[str], before: Metrics, input: InputSpec, samples: Samples) -> _Judged:
    metrics = _measured(reducer.twin(kept), input, samples, reducer.optimized)
    return _Judged(tuple(kept), metrics, drops(samples.headlines, before, metrics))


def _holds(lost: Mapping[str, float], options: PrecisionOptions) -> bool:
    return all(drop <= options.max_drop for drop in lost.values())


def _refused(
    precision: str,
    judged: _Judged,
    before: Metrics,
    options: PrecisionOptions,
    samples: Samples,
    errors: Mapping[str, float],
) -> str:
    told = []
    for task, drop in judged.lost.items():
        metric = samples.headlines[task].metric
        change = f"{metric} {before[task][metric]:.4g} → {judged.metrics[task][metric]:.4g}"
        told.append(f"{task} {'loses' if drop > 0 else 'gains'} {abs(drop):.2f} % ({change})")
    worst = ", ".join(f"{layer} ({error:.1e})" for layer, error in list(errors.items())[:3])
    remedies = ["allow more (--max-drop)"]
    if not options.mixed:
        remedies.insert(0, "keep the layers that err most in float32 (--mixed)")
    if precision in EIGHT_BITS:
        other = next(method for method in METHODS if method != options.calibration)
        remedies.append(f"choose ranges otherwise (--calibration {other})")
    return (
        f"{precision}, measured on {samples.pictures} pictures of {samples.source}: {'; '.join(told)}. Refused, for a "
        f"task may lose {options.max_drop:g} %{f'; layers that err most: {worst}' if worst else ''}. "
        f"To go on, {', or '.join(remedies)}"
    )
