"""Splits in memory, the checks of labels, and data sets by name."""

from __future__ import annotations

import doctest
import re

import numpy as np
import pytest
import torch
from torch import Tensor

from gatedeploy.data import DataSet, base, load_data
from gatedeploy.data.base import TensorSplit, check_labels
from gatedeploy.errors import InputError
from gatedeploy.specs import InputSpec, Task

SHIRTS = Task("shirts", "classification", ("no", "yes"))
SCENE = Task("scene", "segmentation", ("floor", "wall"))
INPUT = InputSpec(1, 2, 2, mean=(0.5,), std=(0.25,))


def split(images: Tensor | None = None, labels: Tensor | None = None) -> TensorSplit:
    return TensorSplit(
        "wardrobe",
        "train",
        INPUT,
        [SHIRTS],
        torch.zeros(3, 1, 2, 2, dtype=torch.uint8) if images is None else images,
        {"shirts": torch.tensor([0, 1, 0]) if labels is None else labels},
    )


def test_pictures_are_normalised_and_labels_follow_the_indices() -> None:
    images = torch.arange(12, dtype=torch.uint8).view(3, 1, 2, 2) * 20
    batch, labels = split(images).batch([2, 1, 2])
    assert batch.dtype == torch.float32
    torch.testing.assert_close(batch, (images[[2, 1, 2]].double() / 255 - 0.5).float() / 0.25)
    assert labels["shirts"].tolist() == [0, 1, 0]


@pytest.mark.parametrize("indices", [[3], [0, -1], [7, 0]])
def test_indices_outside_are_refused(indices: list[int]) -> None:
    wrong = next(index for index in indices if not 0 <= index < 3)
    with pytest.raises(InputError, match=f"picture {wrong} was asked for; the split holds pictures 0 to 2"):
        split().batch(indices)


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(InputError, match="a batch of no pictures was asked for"):
        split().batch([])


def test_a_wrong_class_is_named_with_its_place() -> None:
    sentence = "wardrobe: train split, sample 1: task shirts: 2 is no class; expected 0 to 1"
    with pytest.raises(InputError, match=re.escape(sentence)):
        split(labels=torch.tensor([0, 2, 5]))


def test_255_is_ignored_in_a_segmentation_only() -> None:
    check_labels("rooms", "val", SCENE, np.array([[[0, 255], [1, 1]]]))
    with pytest.raises(InputError, match="rooms: val split, sample 0: task shirts: 255 is no class; expected 0 to 1"):
        check_labels("rooms", "val", SHIRTS, np.array([255]))
    sentence = "sample b.png: task scene: -1 is no class; expected 0 to 1, or 255 for pixels to ignore"
    with pytest.raises(InputError, match=sentence):
        check_labels("rooms", "val", SCENE, np.array([[[0]], [[-1]]]), ["a.png", "b.png"])


def test_depth_has_no_classes() -> None:
    check_labels("rooms", "val", Task("depth", "depth"), np.array([[[-7.0]]]))


def test_a_data_set_needs_tasks() -> None:
    with pytest.raises(InputError, match="no tasks were given"):
        DataSet("wardrobe", INPUT, (), split(), split())


def test_an_unknown_name_is_told_with_the_known_ones() -> None:
    known = "celeba, cityscapes, folder, multi_fashion, nyud, pascal_context, scenes, taskonomy"
    sentence = f"data 'scene': no such data set; there are {known}; did you mean 'scenes'?"
    with pytest.raises(InputError, match=re.escape(sentence)):
        load_data("scene")


def test_an_unknown_option_is_told_with_the_known_ones() -> None:
    sentence = "data scenes: no such option 'trian'; there are train, val, size, seed; did you mean 'train'?"
    with pytest.raises(InputError, match=re.escape(sentence)):
        load_data("scenes", trian=3)


def test_the_examples_run() -> None:
    assert doctest.testmod(base).attempted > 0
    assert doctest.testmod(base).failed == 0
