"""NYUD-v2 as the archive NYUD_MT has it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from gatedeploy.data import describe_data, load_data
from gatedeploy.data.nyud import CLASSES
from gatedeploy.errors import InputError, UnreadableError
from tests.data.files import colours, jpg, npy, png, refused, text

NAMES = ("0001", "0002", "0003")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two pictures to train on and one to validate; each is 2×3 pixels of one grey."""
    base = tmp_path / "NYUD_MT"
    text(base / "gt_sets/train.txt", "0001\n0003\n")
    text(base / "gt_sets/val.txt", "0002\n")
    for number, name in enumerate(NAMES, start=1):
        jpg(base / f"images/{name}.jpg", np.full((2, 3, 3), 50 * number))
        png(base / f"segmentation/{name}.png", [[0, 1, 2], [40, number, 0]])
        npy(base / f"depth/{name}.npy", [[0, 0.5, 2], [3, number, 9]])
        npy(base / f"normals/{name}.npy", [[[0, 0, 0], [1, 0, 0], [0, 0.6, 0.8]]] * 2)
        npy(base / f"edge/{name}.npy", [[0, 1, 0], [1, 0, 0]])
    return base


def test_files_become_tensors(root: Path) -> None:
    data = load_data("nyud", root=root, size=[2, 3], tasks=["segmentation", "depth", "normals", "edges"])
    assert (len(data.train), len(data.val)) == (2, 1)
    images, labels = data.train.batch([1, 0])
    np.testing.assert_allclose(colours(images)[:, 0, 0], [[150] * 3, [50] * 3], atol=1)
    assert labels["segmentation"].tolist() == [[[255, 0, 1], [39, 2, 255]], [[255, 0, 1], [39, 0, 255]]]
    assert labels["segmentation"].dtype == torch.int64
    assert labels["depth"].nan_to_num(-1).tolist() == [[[[-1, 0.5, 2], [3, 3, 9]]], [[[-1, 0.5, 2], [3, 1, 9]]]]
    expected = torch.tensor([[0, 1, 0], [0, 0, 0.6], [0, 0, 0.8]])[:, None].expand(3, 2, 3)
    torch.testing.assert_close(labels["normals"][0], expected, check_stride=False)
    assert labels["edges"].tolist() == [[[0, 1, 0], [1, 0, 0]]] * 2
    assert colours(data.val.batch([0])[0])[0, 0, 0].tolist() == [100] * 3


def test_the_papers_tasks_unless_others_are_asked_for(root: Path) -> None:
    data = load_data("nyud", root=root)
    assert data.input.shape == (3, 480, 640)
    assert [task.name for task in data.tasks] == ["segmentation", "depth", "normals"]
    assert len(data.tasks[0].classes) == len(CLASSES) == 40
    assert describe_data("nyud", root="nowhere").tasks == data.tasks


def test_edges_and_normals_may_be_pictures(root: Path) -> None:
    for name in NAMES:
        (root / f"edge/{name}.npy").unlink()
        (root / f"normals/{name}.npy").unlink()
        png(root / f"edge/{name}.png", [[0, 255, 0], [255, 0, 0]])
        png(root / f"normals/{name}.png", [[[128, 128, 128], [255, 128, 128], [128, 128, 255]]] * 2)
    _, labels = load_data("nyud", root=root, size=[2, 3], tasks=["normals", "edges"]).val.batch([0])
    assert labels["edges"].tolist() == [[[0, 1, 0], [1, 0, 0]]]
    torch.testing.assert_close(labels["normals"][0, :, 0, 0], torch.zeros(3))
    torch.testing.assert_close(labels["normals"][0, 0, 0], torch.tensor([0, 1, 0.0039]), atol=1e-4, rtol=0)


def test_missing_files_are_counted_and_the_first_is_named(root: Path) -> None:
    (root / "depth/0003.npy").unlink()
    (root / "images/0001.jpg").unlink()
    refused(
        f"data nyud: {root}/gt_sets/train.txt: 2 of 2 pictures lack a file; the first is 0001, without "
        f"{root}/images/0001.jpg. Unpack the data set again, or take these names away",
        "nyud",
        root=root,
    )


def test_missing_edges_tell_both_places(root: Path) -> None:
    (root / "edge/0002.npy").unlink()
    refused(
        f"data nyud: {root}/gt_sets/val.txt: 1 of 1 pictures lack a file; the first is 0002, without "
        f"{root}/edge/0002.npy or {root}/edge/0002.png. Unpack the data set again, or take these names away",
        "nyud",
        root=root,
        tasks=["edges"],
    )


def test_missing_folders_and_lists(root: Path) -> None:
    (root / "normals").rename(root / "normal")
    refused(
        f"data nyud: task normals: {root}/normals: no such folder; {root} holds depth, edge, gt_sets, images, normal, "
        "segmentation",
        "nyud",
        root=root,
    )
    (root / "gt_sets/val.txt").unlink()
    refused(
        f"data nyud: {root}/gt_sets/val.txt: no such file; {root}/gt_sets holds train.txt",
        "nyud",
        root=root,
        tasks=["depth"],
    )
    refused(
        f"data nyud: root: {root}/nowhere: no such folder; {root} holds depth, edge, gt_sets, images, normal, "
        "segmentation",
        "nyud",
        root=root / "nowhere",
    )


@pytest.mark.parametrize(
    ("listing", "sentence"),
    [
        ("0001\n0001\n", "names 0001 twice; take one away"),
        ("\n", "names no picture; expected one name a line"),
    ],
)
def test_wrong_lists(root: Path, listing: str, sentence: str) -> None:
    text(root / "gt_sets/train.txt", listing)
    refused(f"data nyud: {root}/gt_sets/train.txt: {sentence}", "nyud", root=root)


@pytest.mark.parametrize("name", ["../0001", "/etc/passwd", "a/../../0001"])
def test_names_must_not_leave_the_folder(root: Path, name: str) -> None:
    text(root / "gt_sets/train.txt", name)
    refused(
        f"data nyud: {root}/gt_sets/train.txt: {name!r} leaves the data set's folder {root}; give a place inside it",
        "nyud",
        root=root,
    )


def test_wrong_options(root: Path) -> None:
    refused(
        "data nyud: no such option 'augmnt'; there are root, size, tasks, augment; did you mean 'augment'?",
        "nyud",
        root=root,
        augmnt={},
    )
    refused(
        "data nyud: tasks: no such task 'normal'; there are segmentation, depth, normals, edges; did you mean "
        "'normals'?",
        "nyud",
        root=root,
        tasks=["normal"],
    )
    refused("data nyud: tasks must name at least one task, and each once, got []", "nyud", root=root, tasks=[])
    refused(
        "data nyud: size must be [height, width] or one whole number, of at least 1, got [0, 3]",
        "nyud",
        root=root,
        size=[0, 3],
    )


def test_a_label_out_of_range_is_told_with_its_file(root: Path) -> None:
    png(root / "segmentation/0001.png", [[0, 1, 41], [2, 3, 99]])
    data = load_data("nyud", root=root, size=[2, 3])
    sentence = (
        f"{root}/segmentation/0001.png: task segmentation: holds the pixel value 41, which is no class; expected 1 to "
        "40, or 0 for pixels to ignore. Mend the label"
    )
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        data.train.batch([0])
    npy(root / "depth/0003.npy", [[-2, 1, 1], [1, 1, 1]])
    sentence = (
        f"{root}/depth/0003.npy: task depth: holds -2, which is no depth; expected numbers above 0. Mend the label"
    )
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        data.train.batch([1])


def test_edges_that_are_no_number_are_told(root: Path) -> None:
    npy(root / "edge/0001.npy", [[0, 1, np.nan], [1, 0, 0]])
    sentence = (
        f"{root}/edge/0001.npy: task edges: holds NaN, which is neither an edge nor none; expected numbers, those "
        "above 0 at edges"
    )
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        load_data("nyud", root=root, size=[2, 3], tasks=["edges"]).train.batch([0])


def test_a_label_of_another_size_is_told(root: Path) -> None:
    npy(root / "depth/0001.npy", np.ones((2, 2)))
    sentence = (
        f"{root}/depth/0001.npy: is 2×2 (height × width), its picture {root}/images/0001.jpg is 2×3; expected the same."
        " Resize the label to its picture, to the nearest pixel"
    )
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        load_data("nyud", root=root, size=[2, 3]).train.batch([0])


def test_damaged_files_are_told_apart_from_wrong_ones(root: Path) -> None:
    data = load_data("nyud", root=root, size=[2, 3])
    (root / "images/0001.jpg").write_bytes((root / "images/0001.jpg").read_bytes()[:200])
    with pytest.raises(UnreadableError, match=f"^{re.escape(str(root))}/images/0001.jpg: cannot be read as a picture"):
        data.train.batch([0])
    (root / "depth/0003.npy").unlink()
    with pytest.raises(
        UnreadableError, match=f"^{re.escape(str(root))}/depth/0003.npy: cannot be read as a .npy array"
    ):
        data.train.batch([1])
