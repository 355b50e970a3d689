"""What a recipe says of a task's labels, and how their files become tensors.

One function per kind of task; its parameters are the keys that the task's entry in the recipe may have.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gatedeploy.data.picture_files import MAPS, MASKS, Array, read_depth, read_mask, read_normals
from gatedeploy.errors import InputError, closest, located
from gatedeploy.options import call_with_options
from gatedeploy.specs import IGNORED_CLASS, TASK_KINDS, Task

_HEADER = ("filename", "class")

_MOST_OF_A_MASK = 65535
"""A PNG's pixels have 16 bits at most."""


@dataclass(frozen=True)
class Maps:
    """Labels of a dense task: one file per picture.

    Args:
        classes: the class names; empty for a task without.
        read: a file to numbers (height, width, ...), as stored.
        convert: those, cut out and resized, to the task's label (height, width) or (3, height, width).
        power: a label of a picture that is enlarged s times is multiplied by s to this power: −1 for depth.
        place: of the data set `folder`: the folder, relative to the data set's, whose files have their pictures' names
            but for the ending.
        suffixes: likewise, the endings that label files have.
    """

    classes: tuple[str, ...]
    read: Callable[[Path], Array]
    convert: Callable[[Array], Array]
    power: int = 0
    place: str = ""
    suffixes: tuple[str, ...] = ()


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
        return Maps(names, read_mask, np.asarray, place=labels, suffixes=MASKS)
    assert mask is not None
    if not values:
        raise InputError("mask needs values: which class each pixel value is, e.g. {0: 0, 1: 1, 2: ignore}")
    classes_of = _value_map(values, names)
    known = ", ".join(str(value) for value in classes_of)
    advice = f"which values does not mention; expected {known}. Add it, with a class number or ignore"
    return Maps(names, read_mask, lookup(classes_of, advice), place=mask, suffixes=MASKS)


def _depth(labels: str, scale: float = 1.0, invalid: float = 0.0) -> Source:
    if not (np.isfinite(scale) and scale > 0):
        raise InputError(f"scale must be a positive number, the metres of one unit in the files, got {scale}")
    advice = "If it marks pixels without depth, say so with invalid: {wrong:g}"
    return Maps((), read_depth, partial(metres, scale=scale, invalid=invalid, advice=advice), -1, labels, MAPS)


def metres(numbers: Array, scale: float = 1.0, invalid: float = 0.0, advice: str = "Mend the label") -> Array:
    """Depth in metres, NaN where there is none.

    Args:
        numbers: (height, width), in the file's own unit.
        scale: the metres of one unit.
        invalid: the number of pixels without depth; NaN and infinity are without it anyway.
        advice: what to do about a number that is no depth; `{wrong}` in it stands for the number.

    Raises:
        InputError: a number is no depth.
    """
    depth = np.asarray(numbers * float(scale), dtype=np.float32)
    missing = (numbers == invalid) | ~np.isfinite(depth)
    depth[missing] = np.nan
    if (depth <= 0).any():
        wrong = float(numbers[depth <= 0][0])
        told = f"holds {wrong:g}, which is no depth; expected numbers above 0."
        raise InputError(f"{told} {advice.format(wrong=wrong)}")
    return depth


def _normals(labels: str) -> Source:
    return Maps((), read_normals, unit, place=labels, suffixes=MAPS)


def _yes_or_no(labels: str, ignore: int | None = None) -> Source:
    def numbers(pixels: Array) -> Array:
        yes = (pixels != 0).astype(np.uint8)
        return yes if ignore is None else np.where(pixels == ignore, np.uint8(IGNORED_CLASS), yes)

    return Maps((), read_mask, numbers, place=labels, suffixes=MASKS)


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


def lookup(classes_of: Mapping[int, int], advice: str) -> Callable[[Array], Array]:
    """A function from pixel values (height, width) to class numbers.

    Args:
        classes_of: the class number of each pixel value.
        advice: how the sentence ends with which the function refuses any other: `holds the pixel value 9, …`.
    """
    known = {value: number for value, number in classes_of.items() if value <= _MOST_OF_A_MASK}
    table = np.full(max(known, default=0) + 2, -1, np.int16)
    table[list(known)] = list(known.values())

    def classes(pixels: Array) -> Array:
        found = table[np.minimum(pixels, len(table) - 1)]
        if (found < 0).any():
            raise InputError(f"holds the pixel value {pixels[found < 0].min()}, {advice}")
        return found

    return classes


def unit(vectors: Array) -> Array:
    """Unit vectors (3, height, width) of coded ones (height, width, 3).

    8-bit numbers are n = 2·v/255 − 1, others the vector itself. What is no vector of about unit length marks a pixel
    without normal (grey, black, zero, NaN): it becomes the zero vector.

    Raises:
        InputError: no vector that is not 8-bit has about unit length, though some are longer: they mean something else.
    """
    planes = np.moveaxis(vectors, -1, 0)
    # Each component lies by itself from here on: three at a time are too few for quick loops.
    decoded = np.empty(planes.shape, np.float32)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # such vectors are of no use, and found below
        np.copyto(decoded, planes, casting="same_kind")
        if vectors.dtype == np.uint8:
            decoded *= np.float32(2 / 255)
            decoded -= 1
        length, square = decoded[0] * decoded[0], np.empty(planes.shape[1:], np.float32)
        for component in decoded[1:]:
            length += np.multiply(component, component, out=square)
        np.sqrt(length, out=length)
        usable = (length > 0.5) & (length < 1.5)
        longest = length[np.isfinite(length)].max(initial=0) if vectors.dtype != np.uint8 and not usable.any() else 0
        if longest > 1:
            raise InputError(f"holds no unit vector, but vectors as long as {longest:g}; divide them by their length")
        np.multiply(decoded, np.where(usable, np.divide(1, length, out=square), np.float32(0)), out=decoded)
    if not np.isfinite(length).all():  # 0 times such a component is none either
        decoded[:, ~usable] = 0
    return decoded


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
