"""Which layer is to blame: what the network's outputs would be off if that layer alone were of reduced precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gatedeploy.exporters.precision.reducers import Reducer
from gatedeploy.exporters.precision.surgery import run_model
from gatedeploy.exporters.progress import Progress
from gatedeploy.runners.base import Array


def layer_errors(original: Any, reducer: Reducer, feed: Mapping[str, Array], progress: Progress) -> dict[str, float]:
    """The error that each layer makes alone, the largest first.

    Args:
        original: the network in float32, an `onnx.ModelProto`.
        reducer: makes networks in which some layers are of reduced precision.
        feed: pictures, by the input's name.
        progress: is told how many layers are done.

    Returns:
        For each layer ‖output − exact‖ / ‖exact‖ of the output that is off most.
    """
    exact = run_model(original, feed)
    errors = {}
    for number, layer in enumerate(reducer.layers):
        progress("layer by layer", number, len(reducer.layers))
        alone = reducer.twin([other for other in reducer.layers if other != layer])
        errors[layer] = largest_error(exact, run_model(alone, feed, optimized=reducer.optimized))
    progress("layer by layer", len(reducer.layers), len(reducer.layers))
    return dict(sorted(errors.items(), key=lambda item: item[1], reverse=True))


def largest_error(exact: Mapping[str, Array], got: Mapping[str, Array]) -> float:
    """‖got − exact‖ / ‖exact‖ of the output that is off most."""
    return max(_relative(values.astype(np.float64), got[name]) for name, values in exact.items())


def _relative(exact: Array, got: Array) -> float:
    norm = float(np.linalg.norm(exact))
    difference = float(np.linalg.norm(got.astype(np.float64) - exact))
    return difference / norm if norm else difference
