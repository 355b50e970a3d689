"""What a network must answer to a picture that everybody can make: how a bundle proves itself on another machine.

A bundle holds no PyTorch network to compare with. So its manifest says, for a few pictures made of a seed, what PyTorch
computed in float64: of each output the shape, its first values, and a few numbers that depend on all of its values. A
wrong network moves them; an error in one value alone may be too small in them to be seen. Whoever runs the bundle, in
whatever language, makes the same pictures (`reference_picture` is integer arithmetic), runs them, and compares. A hash
of the output would not do: runtimes round differently.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gatedeploy.specs import InputSpec

FIRST = 8
"""How many of an output's values a fingerprint quotes."""

EDGES = (1, 4, 16)
"""How large the squares are that made-up pictures consist of, picture by picture."""


@dataclass(frozen=True)
class Fingerprint:
    """What is remembered of one output.

    Args:
        shape: its shape, batch included.
        mean: the mean of its values.
        std: their standard deviation.
        max_abs: the largest absolute value, the scale that errors are measured by.
        projection: Σ value × sign / √count, `sign` being `noise(…, seed=1)` as a number in [−1, 1). It depends on every
            value and on where it stands, and yet rounding errors, which fall as they fall, hardly move it.
        first: the first values in memory order.
    """

    shape: tuple[int, ...]
    mean: float
    std: float
    max_abs: float
    projection: float
    first: tuple[float, ...]


def noise(count: int, seed: int) -> npt.NDArray[np.uint32]:
    """`count` evenly spread 32-bit numbers: number i is a mix (MurmurHash3's last step) of i + seed · 0x9E3779B9."""
    bits = np.arange(count, dtype=np.uint32) + np.uint32(seed * 0x9E3779B9 & 0xFFFFFFFF)
    bits = (bits ^ (bits >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    mixed: npt.NDArray[np.uint32] = bits ^ (bits >> np.uint32(16))
    return mixed


def reference_picture(spec: InputSpec, batch: int, seed: int) -> npt.NDArray[np.float32]:
    """8-bit pictures of noise, preprocessed as `spec` says: (batch, channels, height, width) float32.

    Pixels of a picture are alike in squares, of edges 1, 4 and 16 in turn: deep in a network one picture of noise is
    like the other, and what is coarse moves features that fine noise leaves at rest. A square is the highest byte of
    number i of `noise`, where i is the place, in memory order, of its first pixel.
    """
    shape = (batch, *spec.shape)
    edges = np.array([EDGES[picture % len(EDGES)] for picture in range(batch)]).reshape(-1, 1, 1, 1)
    rows, columns = np.arange(spec.height).reshape(-1, 1), np.arange(spec.width)
    places = np.arange(math.prod(shape)).reshape(shape) - rows % edges * spec.width - columns % edges
    pixels = (noise(math.prod(shape), seed) >> np.uint32(24))[places]
    mean, std = (np.array(values).reshape(-1, 1, 1) for values in spec.moments)
    picture: npt.NDArray[np.float32] = ((pixels / 255 - mean) / std).astype(np.float32)
    return picture


def fingerprint(output: npt.NDArray[Any]) -> Fingerprint:
    """What to remember of an output; taken in float64."""
    values = np.asarray(output, dtype=np.float64).reshape(-1)
    if not values.size:
        return Fingerprint(output.shape, 0.0, 0.0, 0.0, 0.0, ())
    signs = noise(values.size, 1) / 2.0**31 - 1
    return Fingerprint(
        output.shape,
        float(values.mean()),
        float(values.std()),
        float(np.abs(values).max()),
        float((values * signs).sum() / math.sqrt(values.size)),
        tuple(values[:FIRST].tolist()),
    )


def difference(expected: Fingerprint, got: Fingerprint) -> float:
    """The largest difference of any of their numbers, relative to the scale of the expected output.

    Shapes must agree; a NaN anywhere gives NaN.
    """
    pairs = [
        *((expected.mean, got.mean), (expected.std, got.std), (expected.max_abs, got.max_abs)),
        (expected.projection, got.projection),
        *zip(expected.first, got.first, strict=True),
    ]
    differences = [abs(one - other) for one, other in pairs]
    largest = math.nan if any(math.isnan(each) for each in differences) else max(differences)
    return largest / expected.max_abs if expected.max_abs > 0 else largest
