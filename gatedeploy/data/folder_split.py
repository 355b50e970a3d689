"""Decode the pictures and labels of a folder, a batch at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gatedeploy.data.base import Split, check_indices, check_labels, normalised
from gatedeploy.data.label_files import Maps, Source
from gatedeploy.data.pairing import Sample
from gatedeploy.data.picture_files import Array, nearest, read_picture
from gatedeploy.errors import InputError, located
from gatedeploy.specs import InputSpec, Task


class FolderSplit(Split):
    """Samples in files, decoded anew for every batch.

    Args:
        split: "train" or "val", for messages.
        input: the picture a network is fed; files are resized to it.
        sources: how each task's labels are read.
        samples: the files.
    """

    def __init__(self, split: str, input: InputSpec, sources: Mapping[Task, Source], samples: Sequence[Sample]) -> None:
        self._split, self._input, self._sources, self._samples = split, input, sources, samples

    def __len__(self) -> int:
        return len(self._samples)

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Split.batch`."""
        images: list[Tensor] = []
        labels: dict[str, list[Tensor]] = {task.name: [] for task in self._sources}
        for index in check_indices(indices, len(self)).tolist():
            sample = self._samples[index]
            image, size = read_picture(sample.picture, self._input.height, self._input.width)
            images.append(torch.from_numpy(image.copy()))
            for name, label in self._labels(sample, size).items():
                labels[name].append(label)
        return normalised(torch.stack(images), self._input), {
            name: torch.stack(values) for name, values in labels.items()
        }

    def _labels(self, sample: Sample, size: tuple[int, int]) -> dict[str, Tensor]:
        """One picture's labels; a file that several tasks share is decoded once.

        Args:
            sample: the picture's files.
            size: its height and width in its file.
        """
        decoded: dict[tuple[Path, object], Array] = {}
        labels: dict[str, Tensor] = {}
        for task, source in self._sources.items():
            label = sample.labels[task.name]
            if isinstance(source, Maps) and isinstance(label, Path):
                key = (label, source.read)
                if key not in decoded:
                    decoded[key] = self._resized(source.read(label), label, sample.picture, size)
                labels[task.name] = self._converted(decoded[key], label, task, source)
            else:
                labels[task.name] = torch.tensor(label)
        return labels

    def _resized(self, numbers: Array, path: Path, picture: Path, size: tuple[int, int]) -> Array:
        if numbers.shape[:2] != size:
            got = "×".join(str(side) for side in numbers.shape[:2])
            raise InputError(
                f"{path}: is {got} (height × width), its picture {picture} is {size[0]}×{size[1]}; expected the same. "
                "Resize the label to its picture, to the nearest pixel"
            )
        return nearest(numbers, self._input.height, self._input.width)

    def _converted(self, numbers: Array, path: Path, task: Task, source: Maps) -> Tensor:
        with located(f"{path}: task {task.name}"):
            label = source.convert(numbers)
        check_labels("folder", self._split, task, label[None], [str(path)])
        if task.kind == "depth":
            label = label[None]
        return torch.from_numpy(np.ascontiguousarray(label))
