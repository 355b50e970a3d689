"""Decode pictures and labels from files, a batch at a time, several at once."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gatedeploy.data.augment import WHOLE, Augment, View, boxes, draw, framed
from gatedeploy.data.base import Split, check_indices, check_labels
from gatedeploy.data.label_files import Maps, Source
from gatedeploy.data.pairing import Sample
from gatedeploy.data.picture_files import Array, nearest, read_picture, resized
from gatedeploy.errors import InputError, located
from gatedeploy.specs import IGNORED_CLASS, InputSpec, Task


class FileSplit(Split):
    """Samples in files, decoded anew for every batch.

    Args:
        data: the data set's name, for messages.
        split: "train" or "val", for messages.
        input: the picture a network is fed; files are resized to it.
        sources: how each task's labels are read.
        samples: the files.
        augment: what `of_epoch` draws from; None where pictures look the same in every epoch.
    """

    def __init__(
        self,
        data: str,
        split: str,
        input: InputSpec,
        sources: Mapping[Task, Source],
        samples: Sequence[Sample],
        augment: Augment | None = None,
    ) -> None:
        self._data, self._split, self._input = data, split, input
        self._sources, self._samples, self._augment = sources, samples, augment
        self._drawn: tuple[int, int] | None = None
        mean, std = (np.array(values, np.float32) for values in input.moments)
        self._gain, self._offset = 1 / (255 * std), -mean / std

    def __len__(self) -> int:
        return len(self._samples)

    def of_epoch(self, seed: int, epoch: int) -> FileSplit:
        """The same pictures as they look in this epoch of a run of this seed."""
        seen = copy.copy(self)
        seen._drawn = (seed, epoch)
        return seen

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Split.batch`."""
        chosen = check_indices(indices, len(self)).tolist()
        count, height, width = len(chosen), self._input.height, self._input.width
        images = np.empty((count, 3, height, width), np.float32)
        labels = {task.name: _room(task, count, height, width) for task in self._sources}

        def fill(position: int) -> None:
            self._read(chosen[position], images[position], {name: each[position, ...] for name, each in labels.items()})

        for _ in _decoders().map(fill, range(count)):  # the first error in the batch's order is raised
            pass
        return torch.from_numpy(images), {name: torch.from_numpy(each) for name, each in labels.items()}

    def _read(self, number: int, image: Array, labels: Mapping[str, Array]) -> None:
        """Decode one picture and its labels into their places in a batch.

        Args:
            number: which picture.
            image: (3, height, width).
            labels: by task, (…, height, width), or () for a classification.
        """
        sample, view = self._samples[number], self._view(number)
        picture = read_picture(sample.picture)
        size = picture.shape[0], picture.shape[1]
        part, place = boxes(view, size, (self._input.height, self._input.width))
        # What lies around a picture is of the mean colour, which is 0.
        self._normalise(picture[part], view.flip, framed(image, place, 0))
        rows, columns = (
            old.start + nearest(new.stop - new.start, old.stop - old.start)
            for old, new in zip(part, place, strict=True)
        )
        if view.flip:
            columns = columns[::-1]
        decoded: dict[tuple[Path, object], Array] = {}  # a file that several tasks share is decoded once
        for task, source in self._sources.items():
            label = sample.labels[task.name]
            if not (isinstance(source, Maps) and isinstance(label, Path)):
                labels[task.name][...] = label
                continue
            key = (label, source.read)
            if key not in decoded:
                decoded[key] = self._of_the_picture(source.read(label), label, sample.picture, size)
            canvas = framed(labels[task.name], place, _IGNORED.get(task.kind or "", IGNORED_CLASS))
            for strip in _strips(len(rows)):
                numbers = decoded[key][rows[strip]].take(columns, axis=1)
                canvas[..., strip, :] = self._converted(numbers, label, task, source, view)

    def _view(self, number: int) -> View:
        if self._augment is None or self._drawn is None:
            return WHOLE
        return draw(self._augment, *self._drawn, number)

    def _normalise(self, part: npt.NDArray[np.uint8], flip: bool, canvas: Array) -> None:
        """`(pixel / 255 − mean) / std` of a part of a picture (…, …, 3), resized to the canvas (3, height, width)."""
        picture = resized(part, *canvas.shape[1:])
        picture = picture[:, ::-1] if flip else picture
        for strip in _strips(len(picture)):
            for channel, (gain, offset) in enumerate(zip(self._gain, self._offset, strict=True)):
                np.multiply(picture[strip, :, channel], gain, out=canvas[channel, strip])
                canvas[channel, strip] += offset

    def _of_the_picture(self, numbers: Array, path: Path, picture: Path, size: tuple[int, int]) -> Array:
        if numbers.shape[:2] != size:
            got = "×".join(str(side) for side in numbers.shape[:2])
            raise InputError(
                f"{path}: is {got} (height × width), its picture {picture} is {size[0]}×{size[1]}; expected the same. "
                "Resize the label to its picture, to the nearest pixel"
            )
        return numbers

    def _converted(self, numbers: Array, path: Path, task: Task, source: Maps, view: View) -> Array:
        with located(f"{path}: task {task.name}"):
            label = source.convert(numbers)
        check_labels(self._data, self._split, task, label[None], [str(path)])
        if source.power and view.scale != 1:
            label = label * np.float32(view.scale**source.power)
        if task.kind == "normals" and view.flip:
            label[0] *= -1  # x points the other way
        return label


_IGNORED: Mapping[str, float] = {"depth": np.nan, "normals": 0.0}
"""By kind of task, the label that counts nowhere; `IGNORED_CLASS` for others."""


def _room(task: Task, count: int, height: int, width: int) -> Array:
    """Where the labels of a batch go, see `Split.batch`; classifications have one number for each picture."""
    if task.kind == "classification":
        return np.empty((count,), np.int64)
    if task.kind in ("depth", "normals"):
        return np.empty((count, task.channels, height, width), np.float32)
    return np.empty((count, height, width), np.int64)


def _strips(rows: int) -> list[slice]:
    """So many rows in strips. One after the other they stay in a core's cache, of which whole pictures take several."""
    return [slice(top, min(top + _STRIP, rows)) for top in range(0, rows, _STRIP)]


_STRIP = 64
"""Rows; of the papers' widths a strip of normals is half a megabyte."""


@functools.cache
def _decoders() -> ThreadPoolExecutor:
    """One thread for each core that this process may use; decoders and numpy let them run side by side."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return ThreadPoolExecutor(cores, "decode")
