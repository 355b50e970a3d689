"""Data set `multi_fashion`: two pieces of clothing in one picture, after the Multi-MNIST of Sener & Koltun (2018).

Two pictures of Fashion-MNIST, 28×28, share a canvas of 36×36: the first in the upper left, the second in the lower
right, the brighter pixel wins. Task `left` asks for the class of the first, `right` for that of the second. Pairs are
drawn with replacement from a fixed seed: for training from the training part (60,000 pictures), for validation from
the test part (10,000), so that no picture is in both.

In a recipe:

    data:
      name: multi_fashion
      root: /data/fashion_mnist      # fashion_mnist.npz, or the four idx files as published
      train: 30000
      val: 10000
      seed: 0
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gatedeploy.data.base import DataSet, TensorSplit, data_set
from gatedeploy.data.fashion_files import SIDE, Pictures, read_fashion
from gatedeploy.options import at_least
from gatedeploy.specs import InputSpec, Task

CANVAS = 36

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

TASKS = (Task("left", "classification", CLASSES), Task("right", "classification", CLASSES))

INPUT = InputSpec(1, CANVAS, CANVAS, mean=(0.3042,), std=(0.3639,))
"""Mean and deviation of 200,000 overlays of the training part. Constants, so that networks trained on other seeds and
counts take the same input and may be compared and exchanged."""


@data_set("multi_fashion")
def multi_fashion(root: str | Path, train: int = 30_000, val: int = 10_000, seed: int = 0) -> DataSet:
    """Two pieces of clothing in one picture, with the tasks left and right.

    Args:
        root: Fashion-MNIST's npz archive, or a folder with it or with the four idx files.
        train: pairs to train on.
        val: pairs to validate on.
        seed: another seed, other pairs.

    Raises:
        InputError: a count below 1, a negative seed, files missing or damaged, or a label that is no class.
    """
    at_least(1, train=train, val=val)
    at_least(0, seed=seed)
    train_part, val_part = read_fashion(Path(root).expanduser())
    return DataSet(
        "multi_fashion",
        INPUT,
        TASKS,
        _split(train_part, "train", train, seed, 0),
        _split(val_part, "val", val, seed, 1),
    )


def _split(pictures: Pictures, split: str, count: int, seed: int, stream: int) -> TensorSplit:
    pairs = np.random.default_rng([seed, stream]).integers(0, len(pictures.images), (count, 2))
    images, labels = torch.from_numpy(pictures.images), torch.from_numpy(pictures.labels.astype(np.int64))
    left, right = torch.from_numpy(pairs).unbind(1)
    return TensorSplit(
        "multi_fashion",
        split,
        INPUT,
        TASKS,
        overlay(images[left], images[right]).unsqueeze(1),
        {"left": labels[left], "right": labels[right]},
    )


def overlay(upper_left: Tensor, lower_right: Tensor) -> Tensor:
    """Two stacks of pictures (pairs, 28, 28) on one canvas, the brighter pixel wins: (pairs, 36, 36)."""
    canvas = upper_left.new_zeros(len(upper_left), CANVAS, CANVAS)
    canvas[:, :SIDE, :SIDE] = upper_left
    corner = canvas[:, -SIDE:, -SIDE:]
    torch.maximum(corner, lower_right, out=corner)
    return canvas
