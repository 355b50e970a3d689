"""Data set `celeba`: faces with 40 attributes each (Liu et al., ICCV 2015), in the layout in which it is published.

    img_align_celeba/000001.jpg               178 × 218
    list_attr_celeba.txt                      a line of the number of pictures, one of the attributes' names, then one
                                              for each picture: its name, and 1 or −1 for each attribute
    list_eval_partition.txt                   a line for each picture: its name, and 0 (trains), 1 (validates) or 2

The folders `Img`, `Anno` and `Eval` of the official archive are looked into, and tables may be the .csv files that
Kaggle makes of them. Pictures of part 1 validate; those of part 2, the test, are left alone.

InterroGate (supplement A) takes "the age, gender, and clothes attributes" and names none; Young, Male and
Wearing_Necktie are our reading. It resizes pictures to 32×32 and says nothing of augmentation.

In a recipe:

    data:
      name: celeba
      root: ~/data/celeba
      size: 32
      tasks: {age: Young, gender: Male, clothes: Wearing_Necktie}  # for each task the attribute that it asks for
      augment: {flip: true}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from gatedeploy.data.augment import read_augment
from gatedeploy.data.base import DataSet, Described, data_set
from gatedeploy.data.file_split import FileSplit
from gatedeploy.data.label_files import Table
from gatedeploy.data.layout import Size, input_of, read_lines, samples
from gatedeploy.data.pairing import Sample, folder_at, neighbours
from gatedeploy.errors import InputError, closest
from gatedeploy.specs import Task

DEFAULT: Mapping[str, str] = MappingProxyType({"age": "Young", "gender": "Male", "clothes": "Wearing_Necktie"})


def _tasks(tasks: Mapping[str, Any]) -> tuple[Task, ...]:
    """A classification for each; its classes are named by the attribute."""
    for name, attribute in tasks.items():
        if not isinstance(attribute, str):
            raise InputError(f"tasks.{name} must be the name of an attribute, got {attribute!r}")
    if not tasks:
        raise InputError("tasks is empty; name at least one, e.g. {age: Young}")
    return tuple(Task(str(name), "classification", (f"not {of}", of)) for name, of in tasks.items())


def _described(size: Size = 32, tasks: Mapping[str, Any] = DEFAULT, **files: object) -> Described:
    return Described(input_of(size), _tasks(tasks))


@data_set("celeba", describe=_described)
def celeba(
    root: str | Path,
    size: Size = 32,
    tasks: Mapping[str, Any] = DEFAULT,
    augment: Mapping[str, Any] | None = None,
) -> DataSet:
    """CelebA, faces with an attribute for each task.

    Args:
        root: the folder that holds pictures and tables.
        size: height and width in pixels that pictures are resized to, or one number for both.
        tasks: for each task the attribute that it asks for.
        augment: how training pictures look anew in every epoch, e.g. `{flip: true}`.

    Raises:
        InputError: an option is wrong, there is no such attribute, or tables or pictures are missing or damaged.
    """
    input, asked = input_of(size), _tasks(tasks)
    base = folder_at(Path(root).expanduser(), "root")
    pictures = next((place for place in _PICTURES if (base / place).is_dir()), _PICTURES[-1])
    listing = _table(base, "Eval", "list_eval_partition")
    parts = read_parts(listing)
    labels = read_attributes(_table(base, "Anno", "list_attr_celeba"), [str(of) for of in tasks.values()])
    splits = []
    for split, part in (("train", 0), ("val", 1)):
        names = [name for name, of in parts.items() if of == part]
        if not names:
            raise InputError(f"{listing}: no picture is of part {part}, which the {split} split takes")
        found = samples(base, listing, names, f"{pictures}/{{name}}", ())
        splits.append([_labelled(sample, labels, asked) for sample in found])
    sources = {task: Table(task.classes, "") for task in asked}
    return DataSet(
        "celeba",
        input,
        asked,
        FileSplit("celeba", "train", input, sources, splits[0], read_augment(augment)),
        FileSplit("celeba", "val", input, sources, splits[1]),
    )


_PICTURES = ("img_align_celeba/img_align_celeba", "Img/img_align_celeba", "img_align_celeba")
"""Where pictures lie, the first that is there: as Kaggle packs them, in the official archive, and alone."""


def _table(base: Path, folder: str, name: str) -> Path:
    places = [base / place for place in (f"{name}.txt", f"{folder}/{name}.txt", f"{name}.csv")]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise InputError(f"{places[0]}: no such file, nor {places[1]} or {places[2]}{neighbours(places[0])}")
    return found


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The numbered rows of a table, .txt or .csv."""
    for number, line in enumerate(read_lines(path), start=1):
        if cells := line.replace(",", " ").split():
            yield number, cells


def read_parts(path: Path) -> dict[str, int]:
    """The part, 0, 1 or 2, of each picture, by its name."""
    parts: dict[str, int] = {}
    for number, row in _rows(path):
        if number == 1 and row[0] == "image_id":
            continue
        if len(row) != 2 or row[1] not in ("0", "1", "2"):
            raise InputError(
                f"{path}, row {number}: expected a picture's name and 0, 1 or 2, got {' '.join(row)!r:.80}"
            )
        parts[row[0]] = int(row[1])
    return parts


def read_attributes(path: Path, asked: list[str]) -> dict[str, npt.NDArray[np.int64]]:
    """By picture, 1 for yes and 0 for no for each attribute that is asked for.

    Raises:
        InputError: there is no such attribute, or a row is none.
    """
    rows = _rows(path)
    header = next(rows, (0, [""]))[1]
    if len(header) == 1:  # the number of pictures
        header = next(rows, (0, [""]))[1]
    known = header[1:] if header[0] == "image_id" else header
    for attribute in asked:
        if attribute not in known:
            raise InputError(
                f"{path}: has no attribute {attribute!r}; it has {', '.join(known)}{closest(attribute, known)}"
            )
    columns = [known.index(attribute) + 1 for attribute in asked]
    labels: dict[str, npt.NDArray[np.int64]] = {}
    for number, row in rows:
        values = [row[column] for column in columns] if len(row) == len(known) + 1 else [f"{len(row) - 1} columns"]
        wrong = [value for value in values if value not in ("1", "-1")]
        if wrong:
            raise InputError(
                f"{path}, row {number}: expected a name and 1 or -1 for each of {len(known)} attributes, got {wrong[0]}"
            )
        labels[row[0]] = np.array([value == "1" for value in values], np.int64)
    return labels


def _labelled(sample: Sample, labels: Mapping[str, npt.NDArray[np.int64]], tasks: tuple[Task, ...]) -> Sample:
    name = sample.picture.name
    if name not in labels:
        raise InputError(f"{sample.picture}: has no row in the table of attributes; add it, or take the picture away")
    return Sample(sample.picture, {task.name: int(label) for task, label in zip(tasks, labels[name], strict=True)})
