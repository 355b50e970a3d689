"""What a recipe says of a task's labels, and how their files become tensors.

One function per kind of task; its parameters are the keys that the task's entry in the recipe may have.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gatedeploy.data.picture_files import MAPS, MASKS, Array, read_depth, read_mask, read_normals
from gatedeploy.errors import InputError, closest, located
from gatedeploy.options import call_with_options
from gatedeploy.specs import IGNORED_CLASS, TASK_KINDS, Task

_HEADER = ("filename", "class")


@dataclass(frozen=True)
class Maps:
    """Labels of a dense task: a folder with one file per picture, of the same name but for the ending.

    Args:
        classes: the class names; empty for a task without.
        place: the folder, relative to the data set's.
        suffixes: the endings that label files have.
        read: a file to numbers (height, width, ...), as stored.
        convert: those, resized, to the task's label (height, width) or (3, height, width).
    """

    classes: tuple[str, ...]
    place: str
    suffixes: tuple[str, ...]
    read: Callable[[Path], Array]
    convert: Callable[[Array], Array]


@dataclass(frozen=True)
class Table:
    """Labels of a classification: a text file of lines `filename,class`."""

    classes: tuple[str, ...]
    place: str


Source = Maps | Table


def read_tasks(tasks: Mapping[str, Any]) -> dict[Task, Source]:
    """The tasks of a recipe, in its order, with the source of their labels.

    Raises:
        InputError: an entry is not as its kind wants it.
    """
    sources: dict[Task, Source] = {}
    for name, entry in tasks.items():
        where = f"tasks.{name}"
        if not isinstance(entry, Mapping):
            raise InputError(f"{where} must be a mapping with the key kind, got {entry!r}")
        kind = entry.get("kind")
        if kind not in _KINDS:
            near = closest(str(kind), TASK_KINDS)
            raise InputError(f"{where}: no such kind {kind!r}; there are {', '.join(_KINDS)}{near}")
        rest = {key: value for key, value in entry.items() if key != "kind"}
        source = call_with_options(_KINDS[kind], rest, where)
        sources[Task(str(name), kind, source.classes)] = source
    if not sources:
        raise InputError("tasks is empty; name at least one")
    return sources


def _classification(classes: Sequence[str], labels: str) -> Source:
    return Table(_names(classes), labels)


def _segmentation(
    classes: Sequence[str],
    labels: str | None = None,
    mask: str | None = None,
    values: Mapping[Any, Any] | None = None,
) -> Source:
    names = _names(classes)
    if len(names) > IGNORED_CLASS:
        raise InputError(f"{len(names)} classes are too many: pixel value {IGNORED_CLASS} means ignore")
    if (labels is None) == (mask is None):
        raise InputError("expected either labels (a folder of masks of class numbers) or mask and values")
    if labels is not None:
        if values is not None:
            raise InputError("values goes with mask, not with labels, whose pixels are class numbers")
        return Maps(names, labels, MASKS, read_mask, np.asarray)
    assert mask is not None
    if not values:
        raise InputError("mask needs values: which class each pixel value is, e.g. {0: 0, 1: 1, 2: ignore}")
    classes_of = _value_map(values, names)
    return Maps(names, mask, MASKS, read_mask, lambda pixels: _mapped(pixels, classes_of))


def _depth(labels: str, scale: float = 1.0, invalid: float = 0.0) -> Source:
    if not (np.isfinite(scale) and scale > 0):
        raise InputError(f"scale must be a positive number, the metres of one unit in the files, got {scale}")

    def metres(numbers: Array) -> Array:
        depth = np.where(np.isfinite(numbers) & (numbers != invalid), numbers * float(scale), np.nan)
        if (depth <= 0).any():
            wrong = float(numbers[depth <= 0][0])
            raise InputError(
                f"holds {wrong:g}, which is no depth; expected numbers above 0. If it marks pixels without depth, "
                f"say so with invalid: {wrong:g}"
            )
        return depth.astype(np.float32)

    return Maps((), labels, MAPS, read_depth, metres)


def _normals(labels: str) -> Source:
    return Maps((), labels, MAPS, read_normals, _unit)


def _yes_or_no(labels: str, ignore: int | None = None) -> Source:
    def numbers(pixels: Array) -> Array:
        yes = (pixels != 0).astype(np.int64)
        return yes if ignore is None else np.where(pixels == ignore, IGNORED_CLASS, yes)

    return Maps((), labels, MASKS, read_mask, numbers)


_KINDS: dict[str, Callable[..., Source]] = {
    "classification": _classification,
    "segmentation": _segmentation,
    "depth": _depth,
    "normals": _normals,
    "saliency": _yes_or_no,
    "edges": _yes_or_no,
}


def _names(classes: Sequence[str]) -> tuple[str, ...]:
    for name in classes:
        if not isinstance(name, str):
            raise InputError(
                f"classes must be a list of names, got {name!r}; put it in quotes (YAML reads no as False)"
            )
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if twice:
        raise InputError(f"classes holds {twice[0]!r} twice; names must differ")
    return tuple(classes)


def _value_map(values: Mapping[Any, Any], classes: tuple[str, ...]) -> dict[int, int]:
    """Pixel value, as a number or in digits, to class number, `ignore` to 255."""
    mapped: dict[int, int] = {}
    for key, target in values.items():
        value = int(key) if isinstance(key, str) and key.isascii() and key.isdecimal() else key
        number = IGNORED_CLASS if target == "ignore" else target
        whole = all(isinstance(n, int) and not isinstance(n, bool) for n in (value, number))
        if not whole or value < 0 or not (target == "ignore" or 0 <= number < len(classes)):
            raise InputError(
                f"values: {key!r}: {target!r}: expected a pixel value and a class number 0 to {len(classes) - 1} "
                "or ignore"
            )
        mapped[value] = number
    return mapped


def _mapped(pixels: Array, classes_of: Mapping[int, int]) -> Array:
    """Class numbers (height, width) for pixel values; `InputError` for a value that is not mentioned."""
    found, where = np.unique(pixels, return_inverse=True)
    unknown = [int(value) for value in found if int(value) not in classes_of]
    if unknown:
        known = ", ".join(str(value) for value in classes_of)
        raise InputError(
            f"holds the pixel value {unknown[0]}, which values does not mention; expected {known}. "
            "Add it, with a class number or ignore"
        )
    return np.array([classes_of[int(value)] for value in found])[where.reshape(pixels.shape)]


def _unit(vectors: Array) -> Array:
    """Unit vectors (3, height, width) of coded ones (height, width, 3).

    8-bit numbers are n = 2·v/255 − 1, others the vector itself. What is no vector of about unit length marks a pixel
    without normal (grey, black, zero, NaN): it becomes the zero vector.
    """
    decoded = 2.0 * vectors / 255 - 1 if vectors.dtype == np.uint8 else vectors.astype(np.float64)
    length = np.sqrt((decoded * decoded).sum(-1, keepdims=True))
    usable = (length > 0.5) & (length < 1.5)
    unit = np.where(usable, decoded / np.where(usable, length, 1), 0)
    return np.moveaxis(unit, -1, 0).astype(np.float32)


def read_table(path: Path, classes: Sequence[str]) -> dict[str, int]:
    """The class numbers of a table by file name; a first line `filename,class` is a heading.

    A class is given by its name or, if it is no name, by its number.

    Raises:
        InputError: the table cannot be read, a line has no two columns, a name stands twice, or a class is none.
    """
    labels: dict[str, int] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file, strict=True)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a table of filename,class ({error})") from None
    for number, row in enumerate(rows, start=1):
        if not row or (number == 1 and tuple(row) == _HEADER):
            continue
        with located(f"{path}, row {number}"):
            if len(row) != 2:
                raise InputError(f"expected filename,class, got {','.join(row)!r}")
            name, label = row
            if name in labels:
                raise InputError(f"{name} stands in an earlier row too; keep one")
            labels[name] = _class_number(label, classes)
    return labels


def _class_number(label: str, classes: Sequence[str]) -> int:
    if label in classes:
        return classes.index(label)
    if label.isdecimal() and int(label) < len(classes):
        return int(label)
    near = closest(label, tuple(classes))
    raise InputError(f"no such class {label!r}; expected {', '.join(classes)}, or 0 to {len(classes) - 1}{near}")
