"""Cityscapes as it is published, and as MTAN made it smaller."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from gatedeploy.data import describe_data, load_data
from gatedeploy.data.cityscapes import BENCHMARK, CATEGORIES
from gatedeploy.errors import InputError
from tests.data.files import colours, npy, png, refused

AACHEN = ("train/aachen/aachen_000000_000019", "train/aachen/aachen_000001_000019")
ULM, LINDAU = "train/ulm/ulm_000000_000019", "val/lindau/lindau_000000_000019"

IDS = [[0, 7, 11, 33], [26, 24, 23, 6]]


def fill(base: Path, name: str, grey: int) -> None:
    png(base / f"leftImg8bit/{name}_leftImg8bit.png", np.full((2, 4, 3), grey))
    png(base / f"gtFine/{name}_gtFine_labelIds.png", IDS)
    png(base / f"disparity/{name}_disparity.png", [[0, 1, 257, 513], [2561, 65535, 129, 1281]], np.uint16)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    base = tmp_path / "cityscapes"
    for number, name in enumerate((*AACHEN, ULM, LINDAU), start=1):
        fill(base, name, 50 * number)
    return base


def test_published_files_become_tensors(root: Path) -> None:
    data = load_data("cityscapes", root=root, size=[2, 4])
    assert (len(data.train), len(data.val)) == (3, 1)
    assert [(task.name, task.kind) for task in data.tasks] == [("segmentation", "segmentation"), ("disparity", "depth")]
    assert data.tasks[0].classes == ("flat", "construction", "object", "nature", "sky", "human", "vehicle")
    images, labels = data.train.batch([2, 0, 1])
    assert colours(images)[:, 1, 1, 1].tolist() == [150, 50, 100]
    assert labels["segmentation"][0].tolist() == [[255, 0, 1, 6], [6, 5, 4, 255]]
    expected = torch.tensor([[torch.nan, torch.nan, 1, 2], [10, 65534 / 256, 0.5, 5]])
    torch.testing.assert_close(labels["disparity"][0, 0], expected, equal_nan=True)


def test_the_classes_of_the_benchmark(root: Path) -> None:
    data = load_data("cityscapes", root=root, size=[2, 4], classes=19)
    assert len(data.tasks[0].classes) == 19
    assert data.train.batch([0])[1]["segmentation"].tolist() == [[[255, 0, 2, 18], [13, 11, 10, 255]]]
    assert describe_data("cityscapes", root="nowhere", classes=19).tasks == data.tasks


def test_no_number_is_of_two_classes() -> None:
    for classes in (CATEGORIES, BENCHMARK):
        numbers = [number for values in classes.values() for number in values]
        assert len(numbers) == len(set(numbers))
    assert sorted(number for values in CATEGORIES.values() for number in values) == list(range(7, 34))


def test_arrays_become_tensors(tmp_path: Path) -> None:
    for split, count in (("train", 11), ("val", 1)):
        for number in range(count):
            npy(tmp_path / f"{split}/image/{number}.npy", np.full((2, 4, 3), 0.2 + number / 100))
            npy(tmp_path / f"{split}/label/{number}.npy", [[-1, 0, 6, 3], [1, 1, 2, 2]])
            npy(tmp_path / f"{split}/depth/{number}.npy", np.reshape([0, 0.5, 1, 2, 3, 4, 5, 6], (2, 4, 1)))
    data = load_data("cityscapes", root=tmp_path, size=[2, 4])
    assert (len(data.train), len(data.val)) == (11, 1)
    images, labels = data.train.batch([10, 2])
    assert colours(images)[:, 0, 0, 0].tolist() == [round(0.3 * 255), round(0.22 * 255)]
    assert labels["segmentation"][0].tolist() == [[255, 0, 6, 3], [1, 1, 2, 2]]
    assert labels["disparity"].nan_to_num(-1)[0, 0].tolist() == [[-1, 0.5, 1, 2], [3, 4, 5, 6]]
    npy(tmp_path / "train/label/0.npy", [[7, 0, 0, 0], [0, 0, 0, 0]])
    npy(tmp_path / "train/image/1.npy", np.full((2, 4, 3), 200))
    label, image = tmp_path / "train/label/0.npy", tmp_path / "train/image/1.npy"
    sentences = (
        f"cityscapes: train split, sample {label}: task segmentation: 7 is no class; expected 0 to 6, or 255 for "
        "pixels to ignore. Mend the label, or name segmentation's missing classes",
        f"{image}: holds numbers from 200 to 200; a picture of float32 must lie between 0 and 1",
    )
    for number, sentence in enumerate(sentences):
        with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
            data.train.batch([number])


def test_missing_labels_are_counted(root: Path) -> None:
    (root / f"disparity/{AACHEN[1]}_disparity.png").unlink()
    (root / f"gtFine/{ULM}_gtFine_labelIds.png").unlink()
    refused(
        f"data cityscapes: {root}/leftImg8bit/train: 2 of 3 pictures lack a file; the first is {AACHEN[1]}, without "
        f"{root}/disparity/{AACHEN[1]}_disparity.png. Unpack the data set again, or take these names away",
        "cityscapes",
        root=root,
    )


def test_missing_folders_and_wrong_options(root: Path) -> None:
    refused("data cityscapes: classes must be 7 or 19, got 8", "cityscapes", root=root, classes=8)
    (root / "disparity").rename(root / "depth")
    refused(
        f"data cityscapes: task disparity: {root}/disparity: no such folder; {root} holds depth, gtFine, leftImg8bit",
        "cityscapes",
        root=root,
    )
    (root / "leftImg8bit/val").rename(root / "leftImg8bit/test")
    refused(
        f"data cityscapes: val pictures: {root}/leftImg8bit/val: no such folder; {root}/leftImg8bit holds test, train",
        "cityscapes",
        root=root,
        tasks=["segmentation"],
    )
    (root / "leftImg8bit/val").mkdir()
    refused(
        f"data cityscapes: {root}/leftImg8bit/val: holds no pictures; expected CITY/NAME_leftImg8bit.png",
        "cityscapes",
        root=root,
        tasks=["segmentation"],
    )


def test_a_number_of_no_class(root: Path) -> None:
    path = root / f"gtFine/{AACHEN[0]}_gtFine_labelIds.png"
    png(path, [[34, 0, 0, 0], [0, 0, 0, 0]])
    sentence = (
        f"{path}: task segmentation: holds the pixel value 34, which is no class; expected 0 to 33. Take the files "
        "that end in _gtFine_labelIds.png"
    )
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        load_data("cityscapes", root=root, size=[2, 4]).train.batch([0])
