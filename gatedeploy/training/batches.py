"""Batches of pictures: their order, drawn anew each epoch and the same on every run, and the thread that prepares them.

What is asked of a data set is written down as protocols: training takes any object that answers so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from gatedeploy.errors import InputError
from gatedeploy.specs import InputSpec, Task

Batch = tuple[Tensor, dict[str, Tensor]]
"""Pictures `(batch, channels, height, width)` float32, normalised, and the labels of each task (see `Task.kind`)."""


class Pictures(Protocol):
    """A numbered list of pictures with their labels."""

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int], /) -> Batch:
        """The pictures of these numbers, in that order, and their labels by task."""
        ...


@runtime_checkable
class Augmented(Protocol):
    """Pictures that look otherwise in every epoch."""

    def of_epoch(self, seed: int, epoch: int, /) -> Pictures:
        """The same pictures as they look in an epoch; how follows from seed, epoch and a picture's number alone."""
        ...


def of_epoch(pictures: Pictures, seed: int, epoch: int) -> Pictures:
    """Training pictures as they look in an epoch, from 0, of a run of this seed; most look the same in each."""
    return pictures.of_epoch(seed, epoch) if isinstance(pictures, Augmented) else pictures


class Data(Protocol):
    """Pictures to learn from and others to measure on."""

    @property
    def input(self) -> InputSpec:
        """The picture that the network is fed."""
        ...

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The questions that the labels answer."""
        ...

    @property
    def train(self) -> Pictures:
        """Pictures to learn from."""
        ...

    @property
    def val(self) -> Pictures:
        """Pictures to measure on."""
        ...


def training_batches(count: int, size: int, seed: int, epoch: int) -> list[list[int]]:
    """The pictures of one epoch, batch by batch, in an order that follows from seed and epoch alone.

    Pictures that fill no batch are left out, so that no batch is too small for batch norm; others each epoch.

    Args:
        count: pictures there are.
        size: pictures a batch.
        seed: of the run.
        epoch: from 0.

    Raises:
        InputError: there are fewer pictures than one batch takes.
    """
    if count < size:
        raise InputError(f"train.batch_size: {size} is more than the {count} pictures there are to train on")
    order = np.random.default_rng([seed, epoch]).permutation(count)
    return order[: count - count % size].reshape(-1, size).tolist()


def divided(count: int, share: float, seed: int) -> tuple[list[int], list[int]]:
    """The training pictures in two, by a seeded draw: those to learn from, and a share that is held out.

    Args:
        count: pictures there are.
        share: of them that is held out, from 0 on and below 1.
        seed: of the run.

    Raises:
        InputError: nothing would be left on one side.
    """
    if not share:
        return list(range(count)), []
    held = round(count * share)
    if not 0 < held < count:
        raise InputError(f"train.hold_out: {share:g} of {count} pictures leaves one side without any")
    order = np.random.default_rng([seed, count]).permutation(count).tolist()
    return sorted(order[held:]), sorted(order[:held])


def further_batches(pictures: Sequence[int], size: int, seed: int, epoch: int, steps: int) -> list[list[int]]:
    """As many batches as an epoch has steps, drawn from these pictures, in rounds of which each takes every picture.

    Args:
        pictures: numbers to draw from.
        size: pictures a batch.
        seed: of the run.
        epoch: from 0.
        steps: batches to make.

    Raises:
        InputError: there are fewer pictures than one batch takes.
    """
    if len(pictures) < size:
        raise InputError(f"train.hold_out: {len(pictures)} pictures are held out, fewer than a batch of {size}")
    batches: list[list[int]] = []
    while len(batches) < steps:
        order = np.random.default_rng([seed, epoch, len(batches) + 1]).permutation(len(pictures))
        chosen = np.asarray(pictures)[order[: len(order) - len(order) % size]]
        batches += chosen.reshape(-1, size).tolist()
    return batches[:steps]


def validation_batches(count: int, size: int) -> list[list[int]]:
    """All pictures in their order, the last batch as large as it comes out."""
    return [list(range(start, min(start + size, count))) for start in range(0, count, size)]


def prefetched(pictures: Pictures, batches: Sequence[Sequence[int]], device: torch.device) -> Iterator[Batch]:
    """The batches on `device`; a background thread prepares the next one while one is being used.

    An error of the data set is raised where its batch was asked for.
    """

    def prepare(indices: Sequence[int]) -> Batch:
        images, labels = pictures.batch(indices)
        if device.type == "cuda":  # from pinned memory the copy runs beside the computation
            return images.pin_memory(), {task: values.pin_memory() for task, values in labels.items()}
        return images, labels

    threads = torch.get_num_threads()
    # One thread is enough to copy pictures; a second team of them would take the cores from the step that runs.
    with ThreadPoolExecutor(1, "batches", initializer=torch.set_num_threads, initargs=(1,)) as thread:
        thread.submit(int).result()  # it has begun
        # What it was told would else hold for threads that begin later. Told once: it is no matter of single batches.
        torch.set_num_threads(threads)
        upcoming = [thread.submit(prepare, indices) for indices in batches[:1]]
        for following in [*batches[1:], None]:
            if not upcoming:
                return
            images, labels = upcoming.pop().result()
            if following is not None:
                upcoming = [thread.submit(prepare, following)]
            yield (
                images.to(device, non_blocking=True),
                {task: values.to(device, non_blocking=True) for task, values in labels.items()},
            )
