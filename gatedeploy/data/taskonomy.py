"""Data set `taskonomy`: rooms of scanned buildings (Zamir et al., CVPR 2018), in the layout in which it is published.

    rgb/BUILDING/point_P_view_V_domain_rgb.png            512×512
    segment_semantic/…_domain_segmentsemantic.png         0 uncertain, which is ignored; 1 background, 2 to 17 objects
    depth_euclidean/…_domain_depth_euclidean.png          16 bits: 512ths of a metre; 65535 where there is none
    normal/…_domain_normal.png                            n = 2·v/255 − 1
    edge_texture/…_domain_edge_texture.png                16 bits: how strongly the picture's texture changes
    splits_taskonomy/train_val_test_tiny.csv              id,train,val,test: the part of each building

omnidata-tools puts a folder `taskonomy` before the buildings; it is found. The published edges are numbers that others
regress. Here the task is yes or no: an edge is where the number is more than a standard deviation above its mean, 718
and 1070 (Standley et al., ICML 2020, whose code scales by these). Safe MTL (appendix D.1) takes five buildings; it
predicts keypoints too, a kind of task that does not exist here.

In a recipe:

    data:
      name: taskonomy
      root: ~/data/taskonomy
      size: [256, 256]
      train: [allensville, mifflinburg, onaga]            # buildings; left out, as the split file says
      val: [collierville, noxapater]
      tasks: [segmentation, depth, edges, normals]
      augment: {flip: true}
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gatedeploy.data.augment import read_augment
from gatedeploy.data.base import DataSet, Described, data_set
from gatedeploy.data.label_files import Maps, lookup, metres, unit
from gatedeploy.data.layout import Labels, Size, chosen, data_of_files, input_of, read_lines, samples
from gatedeploy.data.pairing import Sample, folder_at, inside
from gatedeploy.data.picture_files import Array, read_depth, read_mask, read_normals
from gatedeploy.errors import InputError
from gatedeploy.specs import IGNORED_CLASS, Task

CLASSES = (
    *("background", "bottle", "chair", "couch", "potted plant", "bed", "dining table", "toilet", "tv", "microwave"),
    *("oven", "toaster", "sink", "refrigerator", "book", "clock", "vase"),
)

UNITS_A_METRE = 512
NO_DEPTH = 65535

EDGE = 718 + 1070
"""From this on a number is an edge."""

SPLIT_FILE = "splits_taskonomy/train_val_test_tiny.csv"

DEFAULT = ("segmentation", "depth", "edges", "normals")


def _metres(numbers: Array) -> Array:
    return metres(np.where(numbers == 0, NO_DEPTH, numbers), 1 / UNITS_A_METRE, NO_DEPTH)


_classes = lookup(
    {0: IGNORED_CLASS, **{value: value - 1 for value in range(1, len(CLASSES) + 1)}},
    f"which is no class; expected 1 to {len(CLASSES)}, or 0 for pixels to ignore. Mend the label",
)


def _offered(middle: str) -> tuple[Labels, ...]:
    """The tasks; `middle` is the folder between that of a task and those of the buildings, if there is one."""

    def places(folder: str, *domains: str) -> tuple[str, ...]:
        return tuple(f"{folder}/{middle}{{name}}_domain_{domain}.png" for domain in domains)

    return (
        Labels(
            Task("segmentation", "segmentation", CLASSES),
            Maps(CLASSES, read_mask, _classes),
            places("segment_semantic", "segmentsemantic", "segment_semantic"),
        ),
        Labels(Task("depth", "depth"), Maps((), read_depth, _metres, -1), places("depth_euclidean", "depth_euclidean")),
        Labels(
            Task("edges", "edges"),
            Maps((), read_mask, lambda numbers: numbers >= EDGE),
            places("edge_texture", "edge_texture"),
        ),
        Labels(Task("normals", "normals"), Maps((), read_normals, unit), places("normal", "normal")),
    )


def _described(size: Size = (256, 256), tasks: Sequence[str] = DEFAULT, **files: object) -> Described:
    return Described(input_of(size), tuple(labels.task for labels in chosen(_offered(""), tasks)))


@data_set("taskonomy", describe=_described)
def taskonomy(
    root: str | Path,
    size: Size = (256, 256),
    tasks: Sequence[str] = DEFAULT,
    train: Sequence[str] | None = None,
    val: Sequence[str] | None = None,
    splits: str = SPLIT_FILE,
    augment: Mapping[str, Any] | None = None,
) -> DataSet:
    """Taskonomy, with the tasks segmentation, depth, edges and normals.

    Args:
        root: the folder that holds rgb and those of the tasks.
        size: height and width in pixels that pictures and labels are resized to, or one number for both.
        tasks: those whose labels are read.
        train: buildings to train on; left out, as the split file says.
        val: buildings to validate on; likewise.
        splits: the split file, inside `root`.
        augment: how training pictures look anew in every epoch, e.g. `{flip: true}`.

    Raises:
        InputError: an option is wrong, or folders, buildings or files are missing.
    """
    input = input_of(size)
    base = folder_at(Path(root).expanduser(), "root")
    pictures = folder_at(base / "rgb", "pictures")
    middle = "taskonomy/" if (pictures / "taskonomy").is_dir() else ""
    labels = chosen(_offered(middle), tasks)
    parts = {} if train and val else read_splits(inside(base, splits, "splits"))
    buildings = {"train": train or parts["train"], "val": val or parts["val"]}
    both = set(buildings["train"]) & set(buildings["val"])
    if both:
        raise InputError(f"val: the building {min(both)} is one to train on too; name another")
    found = {split: _samples(base, pictures, middle, split, names, labels) for split, names in buildings.items()}
    return data_of_files("taskonomy", input, labels, found["train"], found["val"], read_augment(augment))


def read_splits(path: Path) -> dict[str, list[str]]:
    """The buildings to train on and to validate on, of a split file.

    Raises:
        InputError: there is no such file, it has other columns, or one of the two is empty.
    """
    rows = list(csv.DictReader(line for line in read_lines(path) if line.strip()))
    columns = list(rows[0]) if rows else []
    if not {"id", "train", "val"} <= set(columns):
        raise InputError(
            f"{path}: expected the columns id, train, val, test, got {', '.join(map(str, columns)) or 'none'}"
        )
    parts = {split: [row["id"] for row in rows if row[split] == "1"] for split in ("train", "val")}
    for split, names in parts.items():
        if not names:
            raise InputError(f"{path}: no building has a 1 under {split}")
    return parts


def _samples(
    base: Path, pictures: Path, middle: str, split: str, buildings: Sequence[str], labels: Sequence[Labels]
) -> list[Sample]:
    end = "_domain_rgb.png"
    there = pictures / middle
    folders = {building: inside(there, str(building), split) for building in buildings}
    missing = [building for building, folder in folders.items() if not folder.is_dir()]
    if missing:
        told = f"{len(missing)} of the {len(buildings)} buildings of {split} are missing"
        raise InputError(
            f"{there}: {told}: {', '.join(missing[:8])}. Fetch them, or name those that are there under {split}"
        )
    names = [
        f"{building}/{path.name.removesuffix(end)}"
        for building, folder in folders.items()
        for path in sorted(folder.glob(f"*{end}"))
    ]
    if not names:
        raise InputError(f"{there}: the buildings of {split} hold no pictures; expected BUILDING/NAME{end}")
    return samples(base, there, names, f"rgb/{middle}{{name}}{end}", labels)
