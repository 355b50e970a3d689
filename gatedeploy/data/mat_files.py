"""Read the MATLAB files of PASCAL-Context and PASCAL-Part, which hold numbers and never code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gatedeploy.data.picture_files import Array
from gatedeploy.errors import InputError, MissingExtraError, UnreadableError

PERSON = 15
"""The number of the class person in PASCAL VOC."""


def read_label_map(path: Path) -> Array:
    """The class of each pixel, (height, width), of a file of PASCAL-Context: its variable `LabelMap`.

    Raises:
        InputError: the file holds something else, or is damaged.
        MissingExtraError: scipy is not installed.
    """
    labels = _variable(path, "LabelMap")
    if labels.ndim != 2 or labels.dtype.kind not in "uif":
        raise InputError(f"{path}: LabelMap is {labels.shape} of {labels.dtype}; expected numbers (height, width)")
    return labels


def read_parts(path: Path, numbers: Mapping[str, int], nobody: int) -> Array:
    """The parts of people, (height, width) uint8, of a file of PASCAL-Part: its variable `anno`.

    Args:
        path: the file.
        numbers: the number of each part that the file names, e.g. {"lfoot": 6}.
        nobody: the number of every pixel of a picture in which no part of a person is marked.

    Raises:
        InputError: the file holds something else, or is damaged.
        MissingExtraError: scipy is not installed.
    """
    annotation = _variable(path, "anno")
    try:
        objects = annotation["objects"][0, 0].ravel()
        marked = np.zeros(objects[0]["mask"].shape, np.uint8)
        for each in objects:
            if int(each["class_ind"].item()) == PERSON:
                for part in each["parts"].ravel():
                    marked[part["mask"].astype(bool)] = numbers[str(part["part_name"].item())]
    except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: anno is not an annotation of PASCAL-Part, whose objects have class_ind, mask and parts with "
            f"part_name and mask ({type(error).__name__}: {error}); fetch it again"
        ) from None
    return marked if marked.any() else np.full_like(marked, nobody)


def _variable(path: Path, name: str) -> Array:
    try:
        from scipy.io import loadmat
    except ImportError:
        raise MissingExtraError("reading .mat files", "scipy", "train") from None
    try:
        found: dict[str, Any] = loadmat(path, variable_names=[name])
    except Exception as error:  # scipy raises whatever it stumbles over
        raise UnreadableError(f"{path}: cannot be read as a .mat file ({error}); replace it or take it away") from None
    if name not in found:
        raise InputError(f"{path}: has no variable {name}; is it of another data set?")
    return np.asarray(found[name])
