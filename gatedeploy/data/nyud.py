"""Data set `nyud`: NYUD-v2 (Silberman et al., ECCV 2012), in the layout of the multi-task archive `NYUD_MT`.

    gt_sets/train.txt, gt_sets/val.txt        names, 795 and 654
    images/NAME.jpg                           480×640
    segmentation/NAME.png                     0 is nothing, which is ignored; 1 to 40 are the classes
    depth/NAME.npy                            (480, 640), metres; 0 where there is none
    normals/NAME.npy                          (480, 640, 3), unit vectors; zero where there is none. Or NAME.png
    edge/NAME.npy                             (480, 640), 0, or above for an edge. Or NAME.png

This is what the code of the survey of Vandenhende et al. (TPAMI 2021) reads, and that of Maninis et al. (CVPR 2019)
before it; the classes are those of Gupta et al. (CVPR 2013). InterroGate takes the first three tasks.

In a recipe:

    data:
      name: nyud
      root: ~/data/NYUD_MT
      size: [480, 640]
      tasks: [segmentation, depth, normals]                       # and edges
      augment: {flip: true, scale: [0.5, 2.0], crop: true}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gatedeploy.data.augment import read_augment
from gatedeploy.data.base import DataSet, Described, data_set
from gatedeploy.data.label_files import Maps, lookup, metres, unit
from gatedeploy.data.layout import Labels, Size, chosen, data_of_files, input_of, of_lists
from gatedeploy.data.pairing import folder_at
from gatedeploy.data.picture_files import Array, read_depth, read_mask, read_normals
from gatedeploy.errors import InputError
from gatedeploy.specs import IGNORED_CLASS, Task

CLASSES = tuple(
    "wall,floor,cabinet,bed,chair,sofa,table,door,window,bookshelf,picture,counter,blinds,desk,shelves,curtain,dresser,"
    "pillow,mirror,floor mat,clothes,ceiling,books,refrigerator,television,paper,towel,shower curtain,box,whiteboard,"
    "person,night stand,toilet,sink,lamp,bathtub,bag,otherstructure,otherfurniture,otherprop".split(",")
)

DEFAULT = ("segmentation", "depth", "normals")


def read_edges(path: Path) -> Array:
    """Edges (height, width), as numbers that are above 0, of a .npy file or a grey PNG."""
    return read_depth(path) if path.suffix == ".npy" else read_mask(path)


def edges(numbers: Array) -> Array:
    """Where a number is above 0.

    Raises:
        InputError: one is no number.
    """
    if np.isnan(numbers).any():
        raise InputError("holds NaN, which is neither an edge nor none; expected numbers, those above 0 at edges")
    return numbers > 0


_classes = lookup(
    {0: IGNORED_CLASS, **{value: value - 1 for value in range(1, len(CLASSES) + 1)}},
    f"which is no class; expected 1 to {len(CLASSES)}, or 0 for pixels to ignore. Mend the label",
)

OFFERED = (
    Labels(
        Task("segmentation", "segmentation", CLASSES), Maps(CLASSES, read_mask, _classes), ("segmentation/{name}.png",)
    ),
    Labels(Task("depth", "depth"), Maps((), read_depth, metres, -1), ("depth/{name}.npy",)),
    Labels(Task("normals", "normals"), Maps((), read_normals, unit), ("normals/{name}.npy", "normals/{name}.png")),
    Labels(
        Task("edges", "edges"),
        Maps((), read_edges, edges),
        ("edge/{name}.npy", "edge/{name}.png"),
    ),
)


def _described(size: Size = (480, 640), tasks: Sequence[str] = DEFAULT, **files: object) -> Described:
    return Described(input_of(size), tuple(labels.task for labels in chosen(OFFERED, tasks)))


@data_set("nyud", describe=_described)
def nyud(
    root: str | Path,
    size: Size = (480, 640),
    tasks: Sequence[str] = DEFAULT,
    augment: Mapping[str, Any] | None = None,
) -> DataSet:
    """NYUD-v2 from the archive `NYUD_MT`, with the tasks segmentation, depth, normals and edges.

    Args:
        root: the folder that the archive becomes.
        size: height and width in pixels that pictures and labels are resized to, or one number for both.
        tasks: those whose labels are read.
        augment: how training pictures look anew in every epoch, e.g. `{flip: true, scale: [0.5, 2.0], crop: true}`.

    Raises:
        InputError: an option is wrong, or folders, lists or files are missing.
    """
    input, labels = input_of(size), chosen(OFFERED, tasks)
    base = folder_at(Path(root).expanduser(), "root")
    train, val = of_lists(base, "gt_sets", "images/{name}.jpg", labels)
    return data_of_files("nyud", input, labels, train, val, read_augment(augment))
