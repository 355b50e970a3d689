"""Data set `folder`: the user's own pictures, with the labels of each task in files beside them.

In a recipe:

    data:
      name: folder
      root: ~/data/street               # all places below are inside it
      pictures: images                  # PNG, JPEG, BMP, WebP, TIFF, PPM; any sizes, grey or colour
      size: [256, 320]                  # height, width that pictures and labels are resized to; or one number
      val_fraction: 0.1                 # a tenth of the pictures, drawn by `seed`, validates
      seed: 0
      tasks:
        scene:                          # classification: lines `filename,class`, the class a name or a number
          kind: classification
          classes: [indoor, outdoor]
          labels: scene.csv
        segmentation:                   # one PNG per picture, its pixels class numbers, 255 ignored
          kind: segmentation
          classes: [road, building, sky]
          labels: masks
        nerve:                          # one PNG for several tasks: what its pixel values mean for this one
          kind: segmentation
          classes: [background, nerve]
          mask: shared_masks
          values: {0: 0, 1: 1, 2: 0, 9: ignore}
        depth:                          # 8- or 16-bit grey PNG, or .npy (height, width)
          kind: depth
          labels: depth
          scale: 0.001                  # metres of one unit; 1 if left out
          invalid: 65535                # the number of pixels without depth; 0 if left out. NaN never counts
        normals:                        # RGB PNG, n = 2·v/255 − 1, or .npy (height, width, 3)
          kind: normals
          labels: normals

Instead of `val_fraction`, `val` names a place of its own for validation. What it leaves out is as for training:

      val: {root: test}                                                   # test/images, test/masks, …
      val: {pictures: images/val, labels: {segmentation: masks/val}}      # the other labels where they are

A label file has its picture's name but for the ending. Each picture has a label for every task, each label a picture;
a label is as large as its picture. Pictures are resized bilinearly with antialiasing, labels to the nearest pixel, so
only pixels that survive are looked at. The pixels are taken as they are stored: a camera's note that the picture is
to be turned is not followed. Files are read for every batch, nothing is kept. Links are followed: they are the
user's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gatedeploy.data.augment import read_augment
from gatedeploy.data.base import DataSet, Described, data_set
from gatedeploy.data.file_split import FileSplit
from gatedeploy.data.label_files import read_tasks
from gatedeploy.data.layout import Size, input_of
from gatedeploy.data.pairing import Places, Sample, folder_at, inside, pair
from gatedeploy.errors import InputError
from gatedeploy.options import at_least, call_with_options


def _described(tasks: Mapping[str, Any], size: Size, **places: object) -> Described:
    """Where pictures and labels are does not matter for what they are."""
    return Described(input_of(size), tuple(read_tasks(tasks)))


@data_set("folder", describe=_described)
def folder(
    root: str | Path,
    pictures: str,
    tasks: Mapping[str, Any],
    size: Size,
    val_fraction: float | None = None,
    val: Mapping[str, Any] | None = None,
    seed: int = 0,
    augment: Mapping[str, Any] | None = None,
) -> DataSet:
    """The user's own pictures.

    The module's text shows every option.

    Args:
        root: the folder that holds everything.
        pictures: the folder of pictures in it.
        tasks: for each task its kind and where its labels are.
        size: height and width in pixels, or one number for both.
        val_fraction: the share of the pictures that validates, between 0 and 1.
        val: where the pictures that validate are, and their labels.
        seed: of the draw that `val_fraction` asks for.
        augment: how training pictures look anew in every epoch, e.g. `{flip: true, scale: [0.5, 2.0], crop: true}`.

    Raises:
        InputError: an option is wrong, a folder is missing, or pictures and labels do not match one to one.
    """
    at_least(0, seed=seed)
    input = input_of(size)
    sources = read_tasks(tasks)
    base = folder_at(Path(root).expanduser(), "root")
    labels = {task.name: source.place for task, source in sources.items()}
    train_places = _places(base, pictures, labels)
    if (val_fraction is None) == (val is None):
        raise InputError("expected either val_fraction (a share of the pictures) or val (a place of its own)")
    if val is None:
        (samples,) = pair([train_places], sources)
        train_samples, val_samples = _divide(samples, float(val_fraction or 0), seed)
    else:
        val_places = _val_places(base, pictures, labels, val)
        if val_places.pictures == train_places.pictures:
            raise InputError(f"val: its pictures are those of training, {val_places.pictures}; name another folder")
        train_samples, val_samples = pair([train_places, val_places], sources)
    return DataSet(
        "folder",
        input,
        tuple(sources),
        FileSplit("folder", "train", input, sources, train_samples, read_augment(augment)),
        FileSplit("folder", "val", input, sources, val_samples),
    )


def _places(base: Path, pictures: str, labels: Mapping[str, str]) -> Places:
    return Places(
        folder_at(inside(base, pictures, "pictures"), "pictures"),
        {name: inside(base, place, f"tasks.{name}") for name, place in labels.items()},
    )


def _val_places(base: Path, pictures: str, labels: Mapping[str, str], val: Mapping[str, Any]) -> Places:
    """Where the pictures that validate are; what `val` leaves out is as for training."""
    training_pictures, training_labels = pictures, labels

    def places(root: str = ".", pictures: str = training_pictures, labels: Mapping[str, str] | None = None) -> Places:
        for name, place in (labels or {}).items():
            if name not in training_labels:
                raise InputError(f"labels: no such task {name!r}; there are {', '.join(training_labels)}")
            if not isinstance(place, str):
                raise InputError(f"labels.{name} must be text, got {place!r}")
        return _places(folder_at(inside(base, root, "root"), "root"), pictures, {**training_labels, **(labels or {})})

    return call_with_options(places, val, "val")


def _divide(samples: Sequence[Sample], fraction: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Split by a seeded draw; both parts keep the order of the names and hold at least one picture."""
    if not 0 < fraction < 1:
        raise InputError(f"val_fraction must lie between 0 and 1, got {fraction:g}")
    if len(samples) < 2:
        raise InputError("val_fraction needs at least 2 pictures, one to train and one to validate on, got 1")
    count = min(max(round(len(samples) * fraction), 1), len(samples) - 1)
    drawn = set(np.random.default_rng(seed).permutation(len(samples))[:count].tolist())
    train = [sample for index, sample in enumerate(samples) if index not in drawn]
    return train, [samples[index] for index in sorted(drawn)]
