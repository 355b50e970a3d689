"""Reduce the precision of an exported network, and judge by its tasks' own metrics what that costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gatedeploy.errors import CheckError, InputError, check_known, check_type
from gatedeploy.exporters.manifest import Reduction
from gatedeploy.exporters.precision.int8 import METHODS
from gatedeploy.exporters.precision.layer_errors import layer_errors
from gatedeploy.exporters.precision.reducers import LOOKED_AT, eight_bit_reducer, half_reducer
from gatedeploy.exporters.precision.samples import Samples
from gatedeploy.exporters.precision.surgery import opened
from gatedeploy.exporters.precision.table import EIGHT_BITS
from gatedeploy.exporters.precision.verdict import Judge, Verdict
from gatedeploy.exporters.progress import Progress
from gatedeploy.exporters.to_onnx import write_model
from gatedeploy.specs import InputSpec

MAX_DROP = 1.0


@dataclass(frozen=True)
class PrecisionOptions:
    """How far a network may be reduced.

    Args:
        calibration: how the ranges of 8 bits are chosen, of `METHODS`.
        max_drop: what a task may lose of its headline metric, in percent.
        mixed: keep in float32 the layers that err most, as many as it takes to lose no more than that.
        layers: measure the error that every layer makes alone.
    """

    calibration: str = METHODS[0]
    max_drop: float = MAX_DROP
    mixed: bool = False
    layers: bool = False

    def __post_init__(self) -> None:
        check_known("the calibration", self.calibration, METHODS)
        check_type("max_drop", self.max_drop, int, float)
        check_type("mixed", self.mixed, bool)
        check_type("layers", self.layers, bool)
        if not 0 <= self.max_drop < math.inf:
            raise InputError(f"a drop of at most {self.max_drop} %: expected 0 or more")


def reduce_precision(
    model: Path, input: InputSpec, precision: str, options: PrecisionOptions, samples: Samples, progress: Progress
) -> Reduction:
    """Replace an ONNX file in float32 by one of reduced precision.

    Args:
        model: the file; for bfloat16 of opset 22 or later.
        input: the picture.
        precision: one of `gatedeploy.exporters.precision.table.REDUCED`.
        options: how far it may be reduced.
        samples: what it is calibrated and judged by.
        progress: is told how far the work is.

    Returns:
        What was done and what it costs, for the manifest; what it makes of a picture of noise is not in it.

    Raises:
        InputError: the pictures cannot be used.
        CheckError: a task loses more than it may; the file is unchanged then.
    """
    import onnx
    import onnx_ir

    samples.check(input)
    original = onnx.load(str(model))
    if precision in EIGHT_BITS:
        reducer = eight_bit_reducer(model, original, input, precision, options.calibration, samples, progress)
    else:
        reducer = half_reducer(original, input, precision, samples)
    if not reducer.layers:
        raise CheckError(f"no layer of the network can be {precision}; export it in fp32")
    judge = Judge(input, samples, progress)
    with opened(original) as runner:
        before = judge.measure(runner, "fp32")

    def judged(kept: Collection[str]) -> Verdict:
        what = f"{precision}, {len(kept)} layers in fp32" if kept else precision
        with opened(reducer.twin(kept), optimized=reducer.optimized) as runner:
            return judge.verdict(runner, before, what)

    kept: Sequence[str] = ()
    verdict = judged(kept)
    errors: dict[str, float] = {}
    if options.layers or (options.mixed and not verdict.holds(options.max_drop)):
        errors = layer_errors(original, reducer, {input.name: samples.some(LOOKED_AT)}, progress)
    if options.mixed and not verdict.holds(options.max_drop):
        kept, verdict = mixed(judged, tuple(errors), options.max_drop)
    if not verdict.holds(options.max_drop):
        refused = judge.told(verdict, before, precision, options.max_drop)
        raise CheckError(f"{refused}{_remedies(precision, options, errors)}")
    write_model(onnx_ir.from_proto(reducer.reduce(kept)), model)
    return Reduction(
        calibration=options.calibration if precision in EIGHT_BITS else "",
        calibrated_on=sum(map(len, samples.calibration)),
        judged_on=samples.pictures,
        data=samples.source,
        float32=before,
        reduced=verdict.metrics,
        lost=verdict.lost,
        max_drop=options.max_drop,
        layers=len(reducer.layers) - len(kept),
        kept=(*reducer.never, *kept),
        layer_errors=errors,
        runtime="",
        error={},
    )


def mixed(
    judged: Callable[[Sequence[str]], Verdict], worst: Sequence[str], max_drop: float
) -> tuple[Sequence[str], Verdict]:
    """Keep layers in float32, the worst first: twice as many each time until it holds, then as few as that needs.

    A network of a hundred layers is judged some seven times to find enough of them, and some six to leave the rest.

    Args:
        judged: the verdict on a network with these layers in float32.
        worst: all layers, that first which errs most; one at least is reduced.
        max_drop: what a task may lose, in percent.
    """
    too_few, count = 0, 1
    verdict = judged(worst[:count])
    while not verdict.holds(max_drop) and count < len(worst) - 1:
        too_few, count = count, min(2 * count, len(worst) - 1)
        verdict = judged(worst[:count])
    while verdict.holds(max_drop) and count - too_few > 1:
        middle = (too_few + count) // 2
        tried = judged(worst[:middle])
        if tried.holds(max_drop):
            count, verdict = middle, tried
        else:
            too_few = middle
    return worst[:count], verdict


def _remedies(precision: str, options: PrecisionOptions, errors: Mapping[str, float]) -> str:
    worst = ", ".join(f"{layer} ({error:.1e})" for layer, error in list(errors.items())[:3])
    remedies = ["allow more (--max-drop)"]
    if not options.mixed:
        remedies.insert(0, "keep the layers that err most in float32 (--mixed)")
    if precision in EIGHT_BITS:
        other = next(method for method in METHODS if method != options.calibration)
        remedies.append(f"choose ranges otherwise (--calibration {other})")
    return f"{f'; layers that err most: {worst}' if worst else ''}. To go on, {', or '.join(remedies)}"
