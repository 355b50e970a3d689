"""CelebA as it is published, and as Kaggle packs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gatedeploy.data import describe_data, load_data
from tests.data.files import colours, jpg, refused, text

HEADER = "5_o_Clock_Shadow Male Wearing_Necktie Young"

ROWS = ("000001.jpg -1  1 -1  1", "000002.jpg -1 -1  1 -1", "000003.jpg  1 -1 -1  1", "000004.jpg 1 1 1 -1")

PARTS = "000001.jpg 0\n000002.jpg 1\n000003.jpg 0\n000004.jpg 2\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    base = tmp_path / "celeba"
    for number in range(1, 5):
        jpg(base / f"img_align_celeba/00000{number}.jpg", np.full((218, 178, 3), 40 * number))
    text(base / "list_attr_celeba.txt", "\n".join(("4", HEADER, *ROWS)))
    text(base / "list_eval_partition.txt", PARTS)
    return base


def test_the_papers_three_tasks(root: Path) -> None:
    data = load_data("celeba", root=root)
    assert data.input.shape == (3, 32, 32)
    assert {task.name: task.classes for task in data.tasks} == {
        "age": ("not Young", "Young"),
        "gender": ("not Male", "Male"),
        "clothes": ("not Wearing_Necktie", "Wearing_Necktie"),
    }
    assert (len(data.train), len(data.val)) == (2, 1)
    images, labels = data.train.batch([1, 0])
    np.testing.assert_allclose(colours(images)[:, 5, 5, 0], [120, 40], atol=1)
    assert {name: label.tolist() for name, label in labels.items()} == {
        "age": [1, 1],
        "gender": [0, 1],
        "clothes": [0, 0],
    }
    assert {name: label.tolist() for name, label in data.val.batch([0])[1].items()} == {
        "age": [0],
        "gender": [0],
        "clothes": [1],
    }


def test_attributes_by_name(root: Path) -> None:
    data = load_data("celeba", root=root, size=[218, 178], tasks={"shadow": "5_o_Clock_Shadow"})
    assert data.train.batch([0, 1])[1]["shadow"].tolist() == [0, 1]
    described = describe_data("celeba", root="nowhere", tasks={"shadow": "5_o_Clock_Shadow"})
    assert described.tasks == data.tasks


def test_the_folders_of_the_archive(root: Path) -> None:
    expected = load_data("celeba", root=root).train.batch([0])
    for name, folder in (
        ("list_attr_celeba.txt", "Anno"),
        ("list_eval_partition.txt", "Eval"),
        ("img_align_celeba", "Img"),
    ):
        (root / folder).mkdir()
        (root / name).rename(root / folder / name)
    images, labels = load_data("celeba", root=root).train.batch([0])
    assert images.equal(expected[0])
    assert labels == expected[1]


def test_the_tables_of_kaggle(root: Path) -> None:
    rows = "\n".join(",".join(row.split()) for row in (f"image_id {HEADER}", *ROWS))
    parts = "image_id,partition\n" + PARTS.replace(" ", ",")
    for name, content in (("list_attr_celeba", rows), ("list_eval_partition", parts)):
        (root / f"{name}.txt").unlink()
        text(root / f"{name}.csv", content)
    (root / "img_align_celeba").rename(root / "inner")
    (root / "img_align_celeba").mkdir()
    (root / "inner").rename(root / "img_align_celeba/img_align_celeba")
    data = load_data("celeba", root=root)
    assert (len(data.train), len(data.val)) == (2, 1)
    assert data.train.batch([0])[1]["gender"].tolist() == [1]


def test_missing_pictures_are_counted(root: Path) -> None:
    (root / "img_align_celeba/000003.jpg").unlink()
    refused(
        f"data celeba: {root}/list_eval_partition.txt: 1 of 2 pictures lack a file; the first is 000003.jpg, without "
        f"{root}/img_align_celeba/000003.jpg. Unpack the data set again, or take these names away",
        "celeba",
        root=root,
    )


def test_missing_tables_and_folders(root: Path) -> None:
    (root / "img_align_celeba").rename(root / "images")
    refused(
        f"data celeba: pictures: {root}/img_align_celeba: no such folder; {root} holds images, list_attr_celeba.txt, "
        "list_eval_partition.txt",
        "celeba",
        root=root,
    )
    (root / "list_eval_partition.txt").unlink()
    refused(
        f"data celeba: {root}/list_eval_partition.txt: no such file, nor {root}/Eval/list_eval_partition.txt or "
        f"{root}/list_eval_partition.csv; {root} holds images, list_attr_celeba.txt",
        "celeba",
        root=root,
    )


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("000001.jpg 1 -1 1", "expected a name and 1 or -1 for each of 4 attributes, got 3 columns"),
        ("000001.jpg 1 0 1 2", "expected a name and 1 or -1 for each of 4 attributes, got 2"),
    ],
)
def test_labels_out_of_range(root: Path, line: str, sentence: str) -> None:
    text(root / "list_attr_celeba.txt", "\n".join(("4", HEADER, line, *ROWS[1:])))
    refused(f"data celeba: {root}/list_attr_celeba.txt, row 3: {sentence}", "celeba", root=root)


def test_wrong_parts_names_and_options(root: Path) -> None:
    table = root / "list_attr_celeba.txt"
    refused(
        f"data celeba: {table}: has no attribute 'Yung'; it has {HEADER.replace(' ', ', ')}; did you mean 'Young'?",
        "celeba",
        root=root,
        tasks={"age": "Yung"},
    )
    refused("data celeba: tasks.age must be the name of an attribute, got 3", "celeba", root=root, tasks={"age": 3})
    refused("data celeba: tasks is empty; name at least one, e.g. {age: Young}", "celeba", root=root, tasks={})
    text(table, "\n".join(("4", HEADER, *ROWS[1:])))
    refused(
        f"data celeba: {root}/img_align_celeba/000001.jpg: has no row in the table of attributes; add it, or take the "
        "picture away",
        "celeba",
        root=root,
    )
    text(table, "\n".join(("4", HEADER, *ROWS)))
    listing = root / "list_eval_partition.txt"
    text(listing, "000001.jpg 0\n")
    refused(f"data celeba: {listing}: no picture is of part 1, which the val split takes", "celeba", root=root)
    text(listing, "000001.jpg 0\n000002.jpg 3\n")
    refused(
        f"data celeba: {listing}, row 2: expected a picture's name and 0, 1 or 2, got '000002.jpg 3'",
        "celeba",
        root=root,
    )
    text(listing, "../000001.jpg 0\n000002.jpg 1\n")
    refused(
        f"data celeba: {listing}: '../000001.jpg' leaves the data set's folder {root}; give a place inside it",
        "celeba",
        root=root,
    )
