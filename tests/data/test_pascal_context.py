"""PASCAL-Context as the archive PASCAL_MT has it, .mat files and all."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat

from gatedeploy.data import describe_data, load_data
from gatedeploy.data.pascal_context import CLASSES_OF_NORMALS, PARTS, read_edges, read_human_parts
from gatedeploy.errors import InputError, UnreadableError
from tests.data.files import Array, jpg, png, refused, text

FLOOR, SKY = 158, 360
"""A class of PASCAL-Context that rooms have too, and one that they have not."""

CONTEXT = np.array([[SKY, SKY, FLOOR, FLOOR], [SKY, FLOOR, FLOOR, FLOOR]])


def parts_mat(path: Path, *objects: tuple[int, dict[str, Any]], shape: tuple[int, int] = (2, 4)) -> None:
    """PASCAL-Part's structure: objects of a class, with masks of their parts."""
    kind = np.dtype([("class", object), ("class_ind", object), ("mask", object), ("parts", object)])
    made = np.zeros((1, len(objects)), kind)
    for index, (number, parts) in enumerate(objects):
        listed = np.zeros((1, len(parts)), np.dtype([("part_name", object), ("mask", object)]))
        for place, (name, mask) in enumerate(parts.items()):
            listed[0, place] = (name, np.asarray(mask, np.uint8))
        empty = np.zeros((0, 0))
        made[0, index] = ("thing", number, np.ones(shape, np.uint8), listed if parts else empty)
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"anno": {"imname": path.stem, "objects": made}})


def fill(base: Path, name: str) -> None:
    jpg(base / f"JPEGImages/{name}.jpg", np.full((2, 4, 3), 90))
    png(base / f"semseg/VOC12/{name}.png", [[0, 1, 20, 255], [15, 15, 0, 0]])
    png(base / f"sal_distill/{name}.png", [[0, 127, 128, 255], [0, 0, 0, 0]])
    png(base / f"normals_distill/{name}.png", np.full((2, 4, 3), (255, 128, 128)))
    path = base / f"pascal-context/trainval/{name}.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"LabelMap": CONTEXT.astype(np.uint16)}, do_compression=True)
    head = [[1, 0, 0, 0], [0, 0, 0, 0]]
    feet = [[0, 0, 0, 0], [0, 0, 1, 1]]
    dog = [[1, 1, 1, 1], [1, 1, 1, 1]]
    parts_mat(base / f"human_parts/{name}.mat", (12, {"head": dog}), (15, {"nose": head, "lfoot": feet}), (15, {}))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    base = tmp_path / "PASCAL_MT"
    text(base / "ImageSets/Context/train.txt", "2008_000002\n2008_000003\n")
    text(base / "ImageSets/Context/val.txt", "2008_000004")
    for number in (2, 3, 4):
        fill(base, f"2008_00000{number}")
    return base


def test_files_become_tensors(root: Path) -> None:
    data = load_data("pascal_context", root=root, size=[2, 4])
    assert (len(data.train), len(data.val)) == (2, 1)
    kinds = {task.name: task.kind for task in data.tasks}
    assert kinds == {
        "segmentation": "segmentation",
        "human_parts": "segmentation",
        "saliency": "saliency",
        "normals": "normals",
        "edges": "edges",
    }
    images, labels = data.train.batch([1])
    assert images.shape == (1, 3, 2, 4)
    assert labels["segmentation"].tolist() == [[[0, 1, 20, 255], [15, 15, 0, 0]]]
    assert labels["human_parts"].tolist() == [[[1, 0, 0, 0], [0, 0, 6, 6]]]
    assert labels["saliency"].tolist() == [[[0, 0, 1, 1], [0, 0, 0, 0]]]
    assert (labels["normals"] != 0).any(1).tolist() == [[[False, False, True, True], [False, True, True, True]]]
    torch.testing.assert_close(labels["normals"][0, :, 0, 2], torch.tensor([1, 0.0039, 0.0039]), atol=1e-4, rtol=0)
    assert labels["edges"].tolist() == [[[0, 1, 0, 0], [1, 0, 0, 0]]]


def test_what_it_is_needs_no_files() -> None:
    described = describe_data("pascal_context", root="nowhere", tasks=["human_parts", "edges"])
    assert described.input.shape == (3, 512, 512)
    assert [task.classes for task in described.tasks] == [PARTS, ()]


def test_edges_lie_between_classes(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"LabelMap": np.array([[1, 1, 2], [1, 1, 2], [3, 3, 3]])})
    assert read_edges(tmp_path / "a.mat").tolist() == [[0, 1, 0], [1, 1, 1], [0, 0, 0]]


def test_left_and_right_are_the_same_part(tmp_path: Path) -> None:
    def mirrored(left: str, right: str) -> tuple[Array, Array]:
        one, other = [[1, 0, 0, 0], [0] * 4], [[0, 0, 0, 1], [0] * 4]
        parts_mat(tmp_path / "a.mat", (15, {left: one, right: other}))
        parts_mat(tmp_path / "b.mat", (15, {right: one, left: other}))
        return read_human_parts(tmp_path / "a.mat"), read_human_parts(tmp_path / "b.mat")

    for left, right in (("luarm", "ruarm"), ("llleg", "rlleg"), ("leye", "reye"), ("lhand", "rhand")):
        a, b = mirrored(left, right)
        np.testing.assert_array_equal(a, b[:, ::-1])
        assert a.max() > 0


@pytest.mark.parametrize(
    "objects", [[], [(12, {"head": np.ones((2, 4))})], [(15, {})]], ids=["none", "dog", "no parts"]
)
def test_a_picture_without_a_person_is_ignored(tmp_path: Path, objects: list[tuple[int, dict[str, Any]]]) -> None:
    parts_mat(tmp_path / "a.mat", *(objects or [(3, {})]))
    assert (read_human_parts(tmp_path / "a.mat") == 255).all()


def test_classes_of_voc_before_those_of_context(root: Path) -> None:
    for split in ("2008_000002", "2008_000003"):
        png(root / f"semseg/pascal-context/{split}.png", np.full((2, 4), 7))
    (root / "semseg/VOC12/2008_000003.png").unlink()
    _, labels = load_data("pascal_context", root=root, size=[2, 4], tasks=["segmentation"]).train.batch([0, 1])
    assert labels["segmentation"][0, 0].tolist() == [0, 1, 20, 255]
    assert (labels["segmentation"][1] == 7).all()
    (root / "semseg/pascal-context/2008_000003.png").unlink()
    refused(
        f"data pascal_context: {root}/ImageSets/Context/train.txt: 1 of 2 pictures lack a file; the first is "
        f"2008_000003, without {root}/semseg/VOC12/2008_000003.png or {root}/semseg/pascal-context/2008_000003.png. "
        "Unpack the data set again, or take these names away",
        "pascal_context",
        root=root,
        tasks=["segmentation"],
    )


def test_the_classes_of_normals() -> None:
    assert len(CLASSES_OF_NORMALS) == len(set(CLASSES_OF_NORMALS)) == 170
    assert {FLOOR, 427} < set(CLASSES_OF_NORMALS)  # 427 is tvmonitor
    assert SKY not in CLASSES_OF_NORMALS


def told(root: Path, task: str) -> str:
    with pytest.raises(InputError) as caught:
        load_data("pascal_context", root=root, size=[2, 4], tasks=[task]).train.batch([0])
    return str(caught.value)


def test_a_label_out_of_range(root: Path) -> None:
    path = root / "semseg/VOC12/2008_000002.png"
    png(path, [[0, 21, 0, 0], [0, 0, 0, 0]])
    assert told(root, "segmentation") == (
        f"pascal_context: train split, sample {path}: task segmentation: 21 is no class; expected 0 to 20, or 255 for "
        "pixels to ignore. Mend the label, or name segmentation's missing classes"
    )


def test_wrong_mat_files(root: Path) -> None:
    path = root / "pascal-context/trainval/2008_000002.mat"
    savemat(path, {"labels": CONTEXT})
    assert told(root, "edges") == f"{path}: has no variable LabelMap; is it of another data set?"
    savemat(path, {"LabelMap": "text"})
    assert told(root, "edges") == f"{path}: LabelMap is (1,) of <U4; expected numbers (height, width)"
    savemat(path, {"LabelMap": CONTEXT[:, :2]})
    normals = root / "normals_distill/2008_000002.png"
    assert told(root, "normals") == f"{normals}: is (2, 4), its map of classes (2, 2); expected the same"
    path.write_bytes(b"MATLAB 5.0 MAT-file but cut short")
    with pytest.raises(UnreadableError, match=f"^{re.escape(str(path))}: cannot be read as a .mat file"):
        load_data("pascal_context", root=root, size=[2, 4], tasks=["edges"]).train.batch([0])
    parts = root / "human_parts/2008_000002.mat"
    savemat(parts, {"anno": {"objects": 3}})
    assert told(root, "human_parts").startswith(f"{parts}: anno is not an annotation of PASCAL-Part, ")
    parts_mat(parts, (15, {"antenna": np.ones((2, 4))}))
    assert told(root, "human_parts") == (
        f"{parts}: anno is not an annotation of PASCAL-Part, whose objects have class_ind, mask and parts with "
        "part_name and mask (KeyError: 'antenna'); fetch it again"
    )
