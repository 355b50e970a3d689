"""Measure a network on labelled pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from gatedeploy.specs import Task
from gatedeploy.training.batches import Pictures, prefetched, validation_batches
from gatedeploy.training.metrics import Meter


@torch.no_grad()
def measure(
    network: Callable[[Tensor], Mapping[str, Tensor]],
    pictures: Pictures,
    tasks: Sequence[Task],
    batch_size: int = 128,
    device: torch.device | str = "cpu",
) -> dict[str, dict[str, float]]:
    """Every metric of every task over all `pictures`.

    Args:
        network: anything that maps pictures (batch, channels, height, width) to predictions by task; one that
            has an evaluation mode must be in it.
        pictures: the validation split.
        tasks: what to measure.
        batch_size: pictures at a time; the figures do not depend on it.
        device: where the network is.

    Returns:
        Task → metric → value; see `gatedeploy.training.metrics.METRICS`.

    Raises:
        InputError: a prediction does not fit its labels.
        CheckError: a figure is no number.
    """
    meter = Meter(tasks, device)
    for images, labels in prefetched(pictures, validation_batches(len(pictures), batch_size), torch.device(device)):
        meter.update(network(images), labels)
    return meter.compute()
