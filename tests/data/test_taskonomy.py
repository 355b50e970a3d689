"""Taskonomy as it is published."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from gatedeploy.data import describe_data, load_data
from gatedeploy.errors import InputError
from tests.data.files import colours, png, refused, text

SPLIT_FILE = "splits_taskonomy/train_val_test_tiny.csv"


def fill(base: Path, building: str, point: int, middle: str = "") -> None:
    def place(folder: str, domain: str) -> Path:
        return base / f"{folder}/{middle}{building}/point_{point}_view_0_domain_{domain}.png"

    png(place("rgb", "rgb"), np.full((2, 3, 3), 100 + point))
    png(place("segment_semantic", "segmentsemantic"), [[0, 1, 2], [17, 1, 1]])
    png(place("depth_euclidean", "depth_euclidean"), [[512, 256, 65535], [5120, 0, 1024]], np.uint16)
    png(place("normal", "normal"), [[[255, 128, 128], [127, 127, 127], [128, 128, 255]]] * 2)
    png(place("edge_texture", "edge_texture"), [[0, 1787, 1788], [9000, 718, 0]], np.uint16)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    base = tmp_path / "taskonomy"
    for building, points in (("onaga", (0, 1)), ("darden", (0,)), ("ihlen", (0,))):
        for point in points:
            fill(base, building, point)
    text(base / SPLIT_FILE, "id,train,val,test\ronaga,1,0,0\rdarden,0,1,0\rihlen,0,0,1\r")
    return base


def test_files_become_tensors(root: Path) -> None:
    data = load_data("taskonomy", root=root, size=[2, 3])
    assert (len(data.train), len(data.val)) == (2, 1)
    images, labels = data.train.batch([1, 0])
    assert colours(images)[:, 0, 0, 0].tolist() == [101, 100]
    assert labels["segmentation"][0].tolist() == [[255, 0, 1], [16, 0, 0]]
    assert labels["depth"].nan_to_num(-1)[0, 0].tolist() == [[1, 0.5, -1], [10, -1, 2]]
    assert labels["edges"][0].tolist() == [[0, 0, 1], [1, 0, 0]]
    assert (labels["normals"][0] != 0).any(0).tolist() == [[True, False, True]] * 2
    torch.testing.assert_close(labels["normals"][0, :, 0, 0], torch.tensor([1, 0.0039, 0.0039]), atol=1e-4, rtol=0)


def test_what_it_is_needs_no_files(root: Path) -> None:
    described = describe_data("taskonomy", root="nowhere")
    assert described.input.shape == (3, 256, 256)
    assert described.tasks == load_data("taskonomy", root=root).tasks
    assert [task.name for task in described.tasks] == ["segmentation", "depth", "edges", "normals"]
    assert len(described.tasks[0].classes) == 17


def test_buildings_by_name_need_no_split_file(root: Path) -> None:
    (root / SPLIT_FILE).unlink()
    data = load_data("taskonomy", root=root, train=["darden", "onaga"], val=["ihlen"])
    assert (len(data.train), len(data.val)) == (3, 1)


def test_the_folders_of_omnidata_and_another_name_of_classes(tmp_path: Path) -> None:
    fill(tmp_path, "onaga", 0, "taskonomy/")
    fill(tmp_path, "darden", 0, "taskonomy/")
    folder = tmp_path / "segment_semantic/taskonomy/onaga"
    (folder / "point_0_view_0_domain_segmentsemantic.png").rename(folder / "point_0_view_0_domain_segment_semantic.png")
    data = load_data("taskonomy", root=tmp_path, size=[2, 3], train=["onaga"], val=["darden"])
    for split in (data.train, data.val):
        assert split.batch([0])[1]["segmentation"].tolist() == [[[255, 0, 1], [16, 0, 0]]]


def test_missing_files_are_counted(root: Path) -> None:
    missing = "normal/onaga/point_1_view_0_domain_normal.png"
    (root / missing).unlink()
    refused(
        f"data taskonomy: {root}/rgb: 1 of 2 pictures lack a file; the first is onaga/point_1_view_0, without "
        f"{root}/{missing}. Unpack the data set again, or take these names away",
        "taskonomy",
        root=root,
    )


def test_missing_buildings_and_folders(root: Path) -> None:
    text(root / SPLIT_FILE, "id,train,val,test\nonaga,1,0,0\nhanson,1,0,0\nmerom,1,0,0\ndarden,0,1,0\n")
    refused(
        f"data taskonomy: {root}/rgb: 2 of the 3 buildings of train are missing: hanson, merom. Fetch them, or name "
        "those that are there under train",
        "taskonomy",
        root=root,
    )
    (root / "edge_texture").rename(root / "edges")
    refused(
        f"data taskonomy: task edges: {root}/edge_texture: no such folder; {root} holds depth_euclidean, edges, "
        "normal, rgb, segment_semantic, splits_taskonomy",
        "taskonomy",
        root=root,
        train=["onaga"],
        val=["darden"],
    )
    (root / SPLIT_FILE).unlink()
    refused(f"data taskonomy: {root}/{SPLIT_FILE}: no such file", "taskonomy", root=root)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("name,train\nonaga,1\n", "expected the columns id, train, val, test, got name, train"),
        ("", "expected the columns id, train, val, test, got none"),
        ("id,train,val,test\nonaga,1,0,0\n", "no building has a 1 under val"),
    ],
)
def test_wrong_split_files(root: Path, content: str, sentence: str) -> None:
    text(root / SPLIT_FILE, content)
    refused(f"data taskonomy: {root}/{SPLIT_FILE}: {sentence}", "taskonomy", root=root)


def test_wrong_buildings(root: Path) -> None:
    refused(
        "data taskonomy: val: the building onaga is one to train on too; name another",
        "taskonomy",
        root=root,
        train=["onaga"],
        val=["onaga"],
    )
    refused(
        f"data taskonomy: train: '../onaga' leaves the data set's folder {root}/rgb; give a place inside it",
        "taskonomy",
        root=root,
        train=["../onaga"],
    )
    refused(
        f"data taskonomy: splits: '/etc/passwd' leaves the data set's folder {root}; give a place inside it",
        "taskonomy",
        root=root,
        splits="/etc/passwd",
    )


def test_a_label_out_of_range(root: Path) -> None:
    path = root / "segment_semantic/onaga/point_0_view_0_domain_segmentsemantic.png"
    png(path, [[18, 1, 1], [1, 1, 1]])
    sentence = (
        f"{path}: task segmentation: holds the pixel value 18, which is no class; expected 1 to 17, or 0 for pixels to "
        "ignore. Mend the label"
    )
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        load_data("taskonomy", root=root, size=[2, 3]).train.batch([0])
