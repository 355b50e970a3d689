"""What a data set is: pictures, one label tensor per task, a training and a validation split, found by name."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gatedeploy.errors import InputError, closest, located
from gatedeploy.options import call_with_options, check_options
from gatedeploy.specs import IGNORED_CLASS, InputSpec, Task, check_tasks


class Split(abc.ABC):
    """A numbered list of pictures with their labels, read by batches of numbers because that is what training does."""

    @abc.abstractmethod
    def __len__(self) -> int:
        """How many pictures there are."""

    @abc.abstractmethod
    def batch(self, indices: Sequence[int]) -> tuple[Tensor, dict[str, Tensor]]:
        """The pictures `indices`, in that order, and their labels by task.

        Returns:
            images: (batch, channels, height, width) float32, normalised by the data set's `InputSpec`.
            labels: one tensor per task, as `Task.kind` says: classification (batch,) int64; segmentation
                (batch, height, width) int64, 255 ignored; depth (batch, 1, height, width) float32, NaN ignored;
                normals (batch, 3, height, width) float32 unit vectors, the zero vector ignored.

        Raises:
            InputError: there are no indices, one is outside 0 to len − 1, or a file cannot be used.
        """


@dataclass(frozen=True)
class DataSet:
    """Pictures to train and to validate on, with the questions asked of them.

    Args:
        name: what `load_data` calls it.
        input: the picture a network is fed, and how an 8-bit picture becomes it.
        tasks: one per label, in a stated order.
        train: pictures to learn from.
        val: pictures to measure on; none of them is in `train`.
    """

    name: str
    input: InputSpec
    tasks: tuple[Task, ...]
    train: Split
    val: Split

    def __post_init__(self) -> None:
        check_tasks(self.tasks)


class TensorSplit(Split):
    """A split that lies in memory whole, its pictures as 8-bit numbers.

    Args:
        data: the data set's name, for messages.
        split: "train" or "val", for messages.
        input: the picture a network is fed; gives mean and deviation.
        tasks: the tasks `labels` answers.
        images: (samples, channels, height, width) uint8.
        labels: one tensor per task, first axis the samples.

    Raises:
        InputError: a class label is none of its task's classes.
    """

    def __init__(
        self,
        data: str,
        split: str,
        input: InputSpec,
        tasks: Sequence[Task],
        images: Tensor,
        labels: Mapping[str, Tensor],
    ) -> None:
        for task in tasks:
            check_labels(data, split, task, labels[task.name].numpy())
        self._input = input
        self._images = images
        self._labels = dict(labels)

    def __len__(self) -> int:
        return len(self._images)

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Split.batch`."""
        chosen = check_indices(indices, len(self))
        return normalised(self._images[chosen], self._input), {
            name: values[chosen] for name, values in self._labels.items()
        }


def normalised(images: Tensor, input: InputSpec) -> Tensor:
    """`(pixel / 255 − mean) / std` of 8-bit pictures: (batch, channels, height, width) uint8 to float32."""
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in input.moments)
    return (images.float() / 255 - mean) / std


def check_indices(indices: Sequence[int], length: int) -> Tensor:
    """`indices` as an int64 tensor (batch,), or `InputError` when there are none or one is outside 0 to length − 1."""
    chosen = torch.as_tensor(indices, dtype=torch.int64)
    if chosen.numel() == 0:
        raise InputError("a batch of no pictures was asked for; give at least one index")
    outside = chosen[(chosen < 0) | (chosen >= length)]
    if outside.numel():
        raise InputError(f"picture {int(outside[0])} was asked for; the split holds pictures 0 to {length - 1}")
    return chosen


def check_labels(
    data: str, split: str, task: Task, labels: npt.NDArray[Any], samples: Sequence[str] | None = None
) -> None:
    """Raise `InputError` for the first class label that is none of its task's classes.

    Args:
        data: the data set's name.
        split: the split's name.
        task: what the labels answer; depth and normals have no classes and always pass.
        labels: (samples, ...) whole numbers; 255 is ignored in a segmentation.
        samples: the names of the samples, e.g. files; their numbers when None.
    """
    if task.kind in (None, "depth", "normals"):
        return
    classes = len(task.classes) or 2  # no and yes
    wrong = (labels < 0) | (labels >= classes)
    allowed = f"0 to {classes - 1}"
    if task.kind != "classification":
        wrong &= labels != IGNORED_CLASS
        allowed += f", or {IGNORED_CLASS} for pixels to ignore"
    if not wrong.any():
        return
    where = tuple(np.argwhere(wrong)[0])
    sample = samples[where[0]] if samples is not None else where[0]
    raise InputError(
        f"{data}: {split} split, sample {sample}: task {task.name}: {labels[where]} is no class; "
        f"expected {allowed}. Mend the label, or name {task.name}'s missing classes"
    )


@dataclass(frozen=True)
class Described:
    """What a data set's options say of it, without its files.

    Args:
        input: the picture a network is fed.
        tasks: one per label.
    """

    input: InputSpec
    tasks: tuple[Task, ...]


Builder = TypeVar("Builder", bound=Callable[..., DataSet])
_builders: dict[str, Callable[..., DataSet]] = {}
_describers: dict[str, Callable[..., Described]] = {}


def data_set(name: str, describe: Callable[..., Described] | None = None) -> Callable[[Builder], Builder]:
    """Decorate the function that builds the data set `name`; its parameters are the options a recipe may give.

    Args:
        name: what `load_data` calls it.
        describe: takes the same options and reads no file; None where a data set has to be built to be known.
    """

    def register(builder: Builder) -> Builder:
        _builders[name] = builder
        if describe is not None:
            _describers[name] = describe
        return builder

    return register


def data_sets() -> Mapping[str, Callable[..., DataSet]]:
    """What builds each data set, by name."""
    return MappingProxyType(_builders)


def load_data(name: str, **options: Any) -> DataSet:
    """The data set called `name`, built with `options`.

    Raises:
        InputError: no such data set, no such option, an option missing or of the wrong type, or files that cannot be
            used.

    >>> load_data("scenes", train=8, val=2).input.shape
    (3, 64, 64)
    """
    return call_with_options(_known(name), options, f"data {name}")


def describe_data(name: str, **options: Any) -> Described:
    """What the data set called `name` is, with `options`; its files need not be there where the options tell.

    Raises:
        InputError: as for `load_data`, but for files that need not be read.
    """
    builder = _known(name)
    if name not in _describers:
        data = call_with_options(builder, options, f"data {name}")
        return Described(data.input, data.tasks)
    check_options(builder, options, f"data {name}")
    with located(f"data {name}"):
        return _describers[name](**options)


def _known(name: str) -> Callable[..., DataSet]:
    if str(name) not in _builders:
        known = sorted(_builders)
        raise InputError(f"data {name!r}: no such data set; there are {', '.join(known)}{closest(str(name), known)}")
    return _builders[name]
