"""Data set `pascal_context`: PASCAL-Context with five tasks, in the layout of the multi-task archive `PASCAL_MT`.

    ImageSets/Context/train.txt, val.txt      names, 4,998 and 5,105
    JPEGImages/NAME.jpg                       of any sizes
    semseg/VOC12/NAME.png                     20 classes and background, 255 ignored; where there is none of these,
    semseg/pascal-context/NAME.png            this is taken
    human_parts/NAME.mat                      PASCAL-Part's annotation; a picture in which nobody is marked is ignored
    normals_distill/NAME.png                  what a network predicted, n = 2·v/255 − 1
    sal_distill/NAME.png                      likewise, yes above one half
    pascal-context/trainval/NAME.mat          LabelMap, 459 classes: edges, and where normals count

The archive is that of Maninis et al. (CVPR 2019), which the code of the survey of Vandenhende et al. (TPAMI 2021) reads
too. As in these, parts are six, normals count where a pixel's class is one that NYUD-v2 has as well, for on NYUD-v2 was
the network trained, and edges are where classes meet. There, the Laplacian of the map is thinned to lines; here, a
pixel is an edge when that to its right or that below it is of another class. Both are lines of one pixel, which may lie
a pixel apart. Reading .mat files takes scipy, which the extra `train` brings.

In a recipe:

    data:
      name: pascal_context
      root: ~/data/PASCAL_MT
      size: [512, 512]
      tasks: [segmentation, human_parts, saliency, normals, edges]
      augment: {flip: true, scale: [0.5, 2.0], crop: true}
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gatedeploy.data.augment import read_augment
from gatedeploy.data.base import DataSet, Described, data_set
from gatedeploy.data.label_files import Maps, unit
from gatedeploy.data.layout import Labels, Size, chosen, data_of_files, input_of, of_lists
from gatedeploy.data.mat_files import read_label_map, read_parts
from gatedeploy.data.pairing import folder_at
from gatedeploy.data.picture_files import Array, read_mask, read_normals
from gatedeploy.errors import InputError
from gatedeploy.specs import IGNORED_CLASS, Task

CLASSES = tuple(
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor".split()
)

PARTS = ("background", "head", "torso", "upper arm", "lower arm", "upper leg", "lower leg")

_PART_NAMES = (
    "hair head lear lebrow leye mouth nose rear rebrow reye",
    "neck torso",
    "luarm ruarm",
    "lhand llarm rhand rlarm",
    "luleg ruleg",
    "lfoot llleg rfoot rlleg",
)
PART_OF = {name: number for number, names in enumerate(_PART_NAMES, start=1) for name in names.split()}
"""PASCAL-Part's names. Left and right, l and r, are not told apart, so that a picture may be mirrored."""

CLASSES_OF_NORMALS = tuple(
    int(number)
    for number in (
        "3 4 6 9 10 11 13 15 17 18 22 23 29 30 33 34 36 37 38 39 41 43 46 49 50 51 53 55 56 59 61 62 65 66 68 69 "
        "72 73 78 83 84 85 87 88 95 96 101 104 105 107 111 113 115 122 124 135 141 142 143 146 150 154 157 158 "
        "159 165 172 174 181 183 184 191 193 195 197 199 202 213 215 216 219 220 223 225 228 230 232 233 238 239 "
        "242 243 246 250 251 252 255 260 261 263 269 272 273 275 281 283 284 285 286 287 288 290 291 292 293 295 "
        "304 307 309 310 314 315 319 323 329 330 331 336 342 345 349 350 351 352 355 357 368 370 371 374 379 380 "
        "383 384 397 401 403 405 407 408 411 412 413 414 417 419 421 423 427 429 430 432 440 441 442 443 444 446 "
        "454 457 "
    ).split()
)
"""PASCAL-Context's numbers of the classes whose names NYUD-v2 has too, and of `tvmonitor` (Maninis et al.)."""

_OF_NORMALS = np.isin(np.arange(460), CLASSES_OF_NORMALS).astype(np.uint8)

_LABEL_MAP = "pascal-context/trainval/{name}.mat"

DEFAULT = ("segmentation", "human_parts", "saliency", "normals", "edges")


class _LastRead(threading.local):
    """What a thread read last: the tasks of a picture are read one after the other, and two of them read this map."""

    def __init__(self) -> None:
        self.file: tuple[object, ...] = ()
        self.classes: Array = np.empty((0, 0))

    def label_map(self, path: Path) -> Array:
        """The class of each pixel, (height, width)."""
        state = path.stat() if path.is_file() else None
        file = (path, state and state.st_mtime_ns, state and state.st_size)
        if self.file != file:
            self.classes = read_label_map(path).astype(np.intp)
            self.file = file
        return self.classes


_last = _LastRead()


def read_human_parts(path: Path) -> Array:
    """The numbers of `PARTS`, (height, width) uint8; 255 everywhere where nobody is marked."""
    return read_parts(path, PART_OF, IGNORED_CLASS)


def read_masked_normals(path: Path) -> Array:
    """Coded normals (height, width, 3) uint8, black where the pixel's class has none that could be trusted."""
    normals = read_normals(path)
    classes = _last.label_map(path.parent.parent / _LABEL_MAP.format(name=path.stem))
    if classes.shape != normals.shape[:2]:
        raise InputError(f"{path}: is {normals.shape[:2]}, its map of classes {classes.shape}; expected the same")
    return normals * _OF_NORMALS.take(classes, mode="clip")[..., None]


def read_edges(path: Path) -> Array:
    """Where classes meet, (height, width): the last pixel of a class before that to the right or below."""
    classes = _last.label_map(path)
    edges = np.zeros(classes.shape, np.uint8)
    edges[:, :-1] |= classes[:, :-1] != classes[:, 1:]
    edges[:-1] |= classes[:-1] != classes[1:]
    return edges


OFFERED = (
    Labels(
        Task("segmentation", "segmentation", CLASSES),
        Maps(CLASSES, read_mask, np.asarray),
        ("semseg/VOC12/{name}.png", "semseg/pascal-context/{name}.png"),
    ),
    Labels(
        Task("human_parts", "segmentation", PARTS),
        Maps(PARTS, read_human_parts, np.asarray),
        ("human_parts/{name}.mat",),
    ),
    Labels(Task("saliency", "saliency"), Maps((), read_mask, lambda pixels: pixels > 127), ("sal_distill/{name}.png",)),
    Labels(Task("normals", "normals"), Maps((), read_masked_normals, unit), ("normals_distill/{name}.png",)),
    Labels(Task("edges", "edges"), Maps((), read_edges, np.asarray), (_LABEL_MAP,)),
)


def _described(size: Size = (512, 512), tasks: Sequence[str] = DEFAULT, **files: object) -> Described:
    return Described(input_of(size), tuple(labels.task for labels in chosen(OFFERED, tasks)))


@data_set("pascal_context", describe=_described)
def pascal_context(
    root: str | Path,
    size: Size = (512, 512),
    tasks: Sequence[str] = DEFAULT,
    augment: Mapping[str, Any] | None = None,
) -> DataSet:
    """PASCAL-Context from the archive `PASCAL_MT`: segmentation, human parts, saliency, normals and edges.

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
    train, val = of_lists(base, "ImageSets/Context", "JPEGImages/{name}.jpg", labels)
    return data_of_files("pascal_context", input, labels, train, val, read_augment(augment))
