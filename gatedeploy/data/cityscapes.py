"""Data set `cityscapes`: streets with classes and disparity (Cordts et al., CVPR 2016), in either of two layouts.

As it is published, 2,975 pictures to train on and 500 to validate:

    leftImg8bit/train/CITY/NAME_leftImg8bit.png           1024×2048; and val
    gtFine/train/CITY/NAME_gtFine_labelIds.png            the published numbers of classes, 0 to 33
    disparity/train/CITY/NAME_disparity.png               16 bits: (value − 1) / 256 pixels; 0 where there is none

Or as MTAN (Liu et al., CVPR 2019) made it smaller, which LibMTL reads too:

    train/image/0.npy                                     (height, width, 3), 0 to 1; and val
    train/label/0.npy                                     (height, width), 0 to 6, or 0 to 18; −1 ignored
    train/depth/0.npy                                     (height, width, 1), inverse depth; 0 where there is none

`classes: 7` are the published categories without void, as MTAN and Safe MTL (appendix D.1) take them; `19` those of
the Cityscapes benchmark. Task `disparity` is the inverse depth that these predict: of kind depth, large where things
are near, in pixels of the published pictures or, in the second layout, in the files' unit. 0, infinitely far, is
ignored too, for relative errors have no meaning there. MTAN's code divides it by the scale when a picture is enlarged;
here it is multiplied, for what is nearer has more of it.

In a recipe:

    data:
      name: cityscapes
      root: ~/data/cityscapes
      size: [128, 256]
      classes: 7
      augment: {flip: true, scale: [1.0, 1.5], crop: true}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gatedeploy.data.augment import read_augment
from gatedeploy.data.base import DataSet, Described, data_set
from gatedeploy.data.label_files import Maps, lookup
from gatedeploy.data.layout import Labels, Size, chosen, data_of_files, input_of, samples
from gatedeploy.data.pairing import Sample, folder_at
from gatedeploy.data.picture_files import Array, read_array, read_depth, read_mask
from gatedeploy.errors import InputError
from gatedeploy.specs import IGNORED_CLASS, Task

CATEGORIES = {
    "flat": (7, 8, 9, 10),
    "construction": (11, 12, 13, 14, 15, 16),
    "object": (17, 18, 19, 20),
    "nature": (21, 22),
    "sky": (23,),
    "human": (24, 25),
    "vehicle": (26, 27, 28, 29, 30, 31, 32, 33),
}
BENCHMARK = {
    **{"road": (7,), "sidewalk": (8,), "building": (11,), "wall": (12,), "fence": (13,), "pole": (17,)},
    **{"traffic light": (19,), "traffic sign": (20,), "vegetation": (21,), "terrain": (22,), "sky": (23,)},
    **{"person": (24,), "rider": (25,), "car": (26,), "truck": (27,), "bus": (28,), "train": (31,)},
    **{"motorcycle": (32,), "bicycle": (33,)},
}
"""The published numbers that a class has (cityscapesScripts, `labels.py`); all others up to 33 are ignored."""

DEFAULT = ("segmentation", "disparity")


def _classes(count: int) -> Mapping[str, tuple[int, ...]]:
    for classes in (CATEGORIES, BENCHMARK):
        if len(classes) == count:
            return classes
    raise InputError(f"classes must be 7 or 19, got {count}")


def _published(classes: Mapping[str, tuple[int, ...]]) -> tuple[Labels, ...]:
    names = tuple(classes)
    numbers = {value: number for number, values in enumerate(classes.values()) for value in values}
    advice = "which is no class; expected 0 to 33. Take the files that end in _gtFine_labelIds.png"
    to_class = lookup({value: numbers.get(value, IGNORED_CLASS) for value in range(34)}, advice)
    return (
        Labels(
            Task("segmentation", "segmentation", names),
            Maps(names, read_mask, to_class),
            ("gtFine/{name}_gtFine_labelIds.png",),
        ),
        Labels(Task("disparity", "depth"), Maps((), read_depth, pixels_apart, 1), ("disparity/{name}_disparity.png",)),
    )


def _made_smaller(classes: Mapping[str, tuple[int, ...]], split: str) -> tuple[Labels, ...]:
    names = tuple(classes)
    return (
        Labels(
            Task("segmentation", "segmentation", names),
            Maps(names, read_depth, lambda numbers: np.where(numbers == -1, IGNORED_CLASS, numbers).astype(np.int64)),
            (f"{split}/label/{{name}}.npy",),
        ),
        Labels(Task("disparity", "depth"), Maps((), _read_one_channel, _above_0, 1), (f"{split}/depth/{{name}}.npy",)),
    )


def pixels_apart(numbers: Array) -> Array:
    """Disparity in pixels of the numbers of a published file; NaN for 0, no measurement, and 1, infinitely far."""
    return _above_0((numbers.astype(np.float32) - 1) / 256)


def _above_0(numbers: Array) -> Array:
    return np.where(numbers > 0, numbers, np.nan).astype(np.float32)


def _read_one_channel(path: Path) -> Array:
    """Numbers (height, width) of a .npy file of these, or of (height, width, 1)."""
    numbers = read_array(path, "(height, width, 1)", lambda shape: len(shape) == 2 or shape[2:] == (1,))
    return numbers.reshape(numbers.shape[:2])


def _described(size: Size = (128, 256), tasks: Sequence[str] = DEFAULT, classes: int = 7, **files: object) -> Described:
    return Described(input_of(size), tuple(each.task for each in chosen(_published(_classes(classes)), tasks)))


@data_set("cityscapes", describe=_described)
def cityscapes(
    root: str | Path,
    size: Size = (128, 256),
    tasks: Sequence[str] = DEFAULT,
    classes: int = 7,
    augment: Mapping[str, Any] | None = None,
) -> DataSet:
    """Cityscapes as it is published, or as MTAN made it smaller, with the tasks segmentation and disparity.

    Args:
        root: the folder that holds leftImg8bit, gtFine and disparity; or train and val.
        size: height and width in pixels that pictures and labels are resized to, or one number for both.
        tasks: those whose labels are read.
        classes: 7 categories, or the 19 classes of the benchmark.
        augment: how training pictures look anew in every epoch, e.g. `{flip: true, scale: [1.0, 1.5], crop: true}`.

    Raises:
        InputError: an option is wrong, or folders or files are missing.
    """
    input, of_classes = input_of(size), _classes(classes)
    base = folder_at(Path(root).expanduser(), "root")
    labels = chosen(_published(of_classes), tasks)
    if (base / "train" / "image").is_dir():
        train, val = (_small_samples(base, split, chosen(_made_smaller(of_classes, split), tasks)) for split in _SPLITS)
        labels = chosen(_made_smaller(of_classes, "train"), tasks)
    else:
        train, val = (_published_samples(base, split, labels) for split in _SPLITS)
    return data_of_files("cityscapes", input, labels, train, val, read_augment(augment))


_SPLITS = ("train", "val")


def _published_samples(base: Path, split: str, labels: Sequence[Labels]) -> list[Sample]:
    folder = folder_at(base / "leftImg8bit" / split, f"{split} pictures")
    end = "_leftImg8bit.png"
    names = sorted(f"{split}/{path.parent.name}/{path.name.removesuffix(end)}" for path in folder.glob(f"*/*{end}"))
    if not names:
        raise InputError(f"{folder}: holds no pictures; expected CITY/NAME{end}")
    return samples(base, folder, names, f"leftImg8bit/{{name}}{end}", labels)


def _small_samples(base: Path, split: str, labels: Sequence[Labels]) -> list[Sample]:
    folder = folder_at(base / split / "image", f"{split} pictures")
    names = sorted((path.stem for path in folder.glob("*.npy")), key=lambda name: (len(name), name))
    if not names:
        raise InputError(f"{folder}: holds no pictures; expected 0.npy, 1.npy, …")
    return samples(base, folder, names, f"{split}/image/{{name}}.npy", labels)
