"""Look at a picture and its labels anew in every epoch: mirrored, nearer or further away, cut out at another place.

In a recipe, for the data sets that read files:

    augment:
      flip: true                      # half of the pictures are mirrored, left to right
      scale: [0.5, 2.0]               # each is enlarged by a factor drawn from this range
      crop: true                      # what is cut out, or padded, is cut at random; in the middle if left out

With factor s, above 1 a part of the picture, 1/s as high and as wide, fills the window that the network sees; below 1
the whole picture fills a part of the window, s times as high and as wide, and labels around it are ignored. So does
DeepLabv3+ (Chen et al., ECCV 2018) does, which InterroGate's supplement (B.2) names for NYUD-v2 and PASCAL-Context.

Labels change with what is seen. Mirrored normals point the other way along x. What is s times as large is s times
nearer: depth is divided by s, as in the code of Maninis et al. (CVPR 2019), of the survey of Vandenhende et al. (TPAMI
2021) and of MTAN; disparity, which is its inverse, is multiplied. Normals stay under scaling, as in these.

What is drawn follows from the run's seed, the epoch and the picture's number alone, never from what was drawn before: a
training that is resumed sees the same pictures, whatever the batches and threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor
from typing import Any

import numpy as np
import numpy.typing as npt

from gatedeploy.errors import InputError
from gatedeploy.options import call_with_options

Box = tuple[slice, slice]
"""Rows and columns."""

_LEAST, _MOST = 0.1, 10.0
"""Between these a factor makes sense."""


@dataclass(frozen=True)
class Augment:
    """From what views are drawn.

    Args:
        flip: whether half of the pictures are mirrored.
        scale: smallest and largest factor.
        crop: whether the part that is cut out, or filled, lies at random; else in the middle.
    """

    flip: bool = False
    scale: tuple[float, float] = (1.0, 1.0)
    crop: bool = False


@dataclass(frozen=True)
class View:
    """How one picture is looked at in one epoch.

    Args:
        flip: whether it is mirrored.
        scale: the factor by which it is enlarged.
        down: where the part that is cut out, or filled, lies: 0 at the top, below 1.
        across: likewise, 0 at the left.
    """

    flip: bool = False
    scale: float = 1.0
    down: float = 0.5
    across: float = 0.5


WHOLE = View()
"""The picture as it is."""


def read_augment(entry: Mapping[str, Any] | None) -> Augment | None:
    """What a recipe says under `augment`; None where it says nothing.

    Raises:
        InputError: an unknown key, or a value that cannot be.
    """
    return None if entry is None else call_with_options(_augment, entry, "augment")


def _augment(flip: bool = False, scale: Sequence[float] = (1.0, 1.0), crop: bool = False) -> Augment:
    numbers = [factor for factor in scale if isinstance(factor, (int, float)) and not isinstance(factor, bool)]
    if len(scale) != 2 or len(numbers) != 2 or not _LEAST <= numbers[0] <= numbers[1] <= _MOST:
        raise InputError(f"scale must be [smallest, largest], from {_LEAST:g} to {_MOST:g}, got {list(scale)!r}")
    low, high = (float(factor) for factor in numbers)
    if crop and low == high == 1:
        raise InputError("crop needs scale, for at a factor of 1 the picture fills the window; add scale: [0.5, 2.0]")
    return Augment(flip, (low, high), crop)


def draw(augment: Augment, seed: int, epoch: int, number: int) -> View:
    """The view of picture `number` in `epoch` of a run of this seed."""
    flip, scale, down, across = np.random.default_rng([seed, epoch, number]).random(4).tolist()
    low, high = augment.scale
    return View(
        flip=augment.flip and flip < 0.5,
        scale=low + scale * (high - low),
        down=down if augment.crop else 0.5,
        across=across if augment.crop else 0.5,
    )


def boxes(view: View, size: tuple[int, int], window: tuple[int, int]) -> tuple[Box, Box]:
    """The part of a picture that is seen, and where in the window it comes to lie, mirrored if the view is.

    Args:
        view: how the picture is looked at.
        size: its height and width.
        window: height and width of what the network sees.
    """
    (height, width), (rows_seen, columns_seen) = size, window
    rows, to_rows = _along(view.scale, view.down, height, rows_seen)
    columns, to_columns = _along(view.scale, view.across, width, columns_seen)
    if view.flip:
        to_columns = slice(columns_seen - to_columns.stop, columns_seen - to_columns.start)
    return (rows, columns), (to_rows, to_columns)


def _along(scale: float, at: float, length: int, window: int) -> tuple[slice, slice]:
    """Along one axis: which pixels of the picture are seen, and which of the window they fill."""
    if scale >= 1:
        return _part(length, length / scale, at), slice(0, window)
    return slice(0, length), _part(window, window * scale, at)


def _part(length: int, part: float, at: float) -> slice:
    taken = max(1, round(part))
    begin = floor(at * (length - taken + 1))
    return slice(begin, begin + taken)


def framed(canvas: npt.NDArray[Any], place: Box, outside: float) -> npt.NDArray[Any]:
    """The part of a canvas into which a picture or its labels are to be written; around it is filled with `outside`.

    Args:
        canvas: (…, height, width), the window.
        place: where the picture comes to lie.
        outside: what stands where there is no picture.
    """
    rows, columns = place
    for around in (canvas[..., : rows.start, :], canvas[..., rows.stop :, :]):
        around[...] = outside
    for around in (canvas[..., rows, : columns.start], canvas[..., rows, columns.stop :]):
        around[...] = outside
    return np.asarray(canvas[(..., *place)])
