"""What a recipe may say of labels, and what becomes of the numbers in label files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gatedeploy.data.label_files import Maps, read_table, read_tasks
from gatedeploy.errors import InputError
from gatedeploy.specs import Task

Array = npt.NDArray[Any]

CLASSES = ["background", "nerve", "vessel"]


def convert(numbers: Array, **entry: Any) -> Array:
    """What the label file's numbers become under a task's entry in the recipe."""
    (source,) = read_tasks({"it": entry}).values()
    assert isinstance(source, Maps)
    return source.convert(numbers)


def test_tasks_keep_order_kind_and_classes() -> None:
    tasks = read_tasks(
        {
            "depth": {"kind": "depth", "labels": "d"},
            "age": {"kind": "classification", "classes": ["young", "old"], "labels": "age.csv"},
        }
    )
    assert list(tasks) == [Task("depth", "depth"), Task("age", "classification", ("young", "old"))]


@given(
    pixels=hnp.arrays(np.int64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.integers(0, 5)),
    targets=st.lists(st.sampled_from([0, 1, 2, "ignore"]), min_size=6, max_size=6),
)
def test_a_value_map_says_what_each_pixel_is(pixels: Array, targets: list[int | str]) -> None:
    values = dict(enumerate(targets))
    mapped = convert(pixels, kind="segmentation", classes=CLASSES, mask="m", values=values)
    expected = [[255 if values[int(p)] == "ignore" else values[int(p)] for p in row] for row in pixels]
    assert mapped.dtype == np.int16
    assert mapped.tolist() == expected


def test_a_pixel_value_that_no_map_mentions_is_told() -> None:
    sentence = (
        "holds the pixel value 7, which values does not mention; expected 0, 1. Add it, with a class number or ig"
    )
    with pytest.raises(InputError, match=re.escape(sentence)):
        convert(np.array([[0, 7, 9]]), kind="segmentation", classes=CLASSES, mask="m", values={0: 0, 1: "ignore"})


@given(
    numbers=hnp.arrays(np.uint16, (3, 4), elements=st.sampled_from([0, 1, 500, 65535])),
    scale=st.sampled_from([0.001, 1, 0.25]),
)
def test_depth_is_in_metres_and_nan_where_there_is_none(numbers: Array, scale: float) -> None:
    depth = convert(numbers, kind="depth", labels="d", scale=scale)
    assert depth.dtype == np.float32
    assert (np.isnan(depth) == (numbers == 0)).all()
    np.testing.assert_allclose(depth[numbers != 0], numbers[numbers != 0] * np.float64(scale), rtol=1e-6)


def test_the_invalid_number_is_the_one_stated_and_nan_is_always() -> None:
    depth = convert(np.array([[65535.0, 2, np.nan, np.inf]]), kind="depth", labels="d", invalid=65535)
    np.testing.assert_array_equal(depth, np.array([[np.nan, 2, np.nan, np.nan]], np.float32))


@pytest.mark.parametrize("wrong", [-1.0, 0.0])
def test_depth_that_is_none_is_told(wrong: float) -> None:
    sentence = (
        f"holds {wrong:g}, which is no depth; expected numbers above 0. If it marks pixels without depth, say so "
    )
    with pytest.raises(InputError, match=re.escape(sentence + f"with invalid: {wrong:g}")):
        convert(np.array([[2.0, wrong]]), kind="depth", labels="d", invalid=9)


def test_coded_normals_become_unit_vectors() -> None:
    coded = np.array([[[255, 128, 128], [128, 128, 0], [128, 128, 128], [0, 0, 0], [218, 218, 128]]], np.uint8)
    normals = convert(coded, kind="normals", labels="n")
    assert normals.shape == (3, 1, 5)
    assert normals.dtype == np.float32
    expected = np.array([[1, 0, 0], [0, 0, -1], [0, 0, 0], [0, 0, 0], [0.5**0.5, 0.5**0.5, 0]])
    np.testing.assert_allclose(normals[:, 0].T, expected, atol=0.006)
    length = np.sqrt((normals**2).sum(0))
    np.testing.assert_allclose(length[0, [0, 1, 4]], 1, rtol=1e-6)
    assert (normals[:, 0, 2:4] == 0).all()


def test_normals_in_arrays_are_the_vectors_themselves() -> None:
    vectors = np.array([[[0, 0, -1.2], [0, 0, 0], [np.nan, 0, 1], [0.6, 0, -0.8]]])
    normals = convert(vectors, kind="normals", labels="n")
    np.testing.assert_allclose(normals[:, 0].T, np.array([[0, 0, -1], [0, 0, 0], [0, 0, 0], [0.6, 0, -0.8]]), rtol=1e-6)


def test_vectors_of_another_length_are_refused_unless_some_are_unit_vectors() -> None:
    with pytest.raises(InputError, match=r"holds no unit vector, but vectors as long as 13; divide them by their len"):
        convert(np.array([[[3.0, 4, 12], [0, 0, 0]]]), kind="normals", labels="n")
    one = convert(np.array([[[3.0, 4, 12], [0, 0, 1]]]), kind="normals", labels="n")
    np.testing.assert_array_equal(one[:, 0].T, [[0, 0, 0], [0, 0, 1]])
    black, none = np.zeros((1, 2, 3), np.uint8), np.array([[[np.nan] * 3, [0, 0, 0]]])
    assert all((convert(each, kind="normals", labels="n") == 0).all() for each in (black, none))


@pytest.mark.parametrize("kind", ["saliency", "edges"])
def test_what_is_not_zero_is_yes(kind: str) -> None:
    pixels = np.array([[0, 1, 255, 128]])
    np.testing.assert_array_equal(convert(pixels, kind=kind, labels="m"), [[0, 1, 1, 1]])
    np.testing.assert_array_equal(convert(pixels, kind=kind, labels="m", ignore=128), [[0, 1, 1, 255]])


SEGMENTATION = {"kind": "segmentation", "classes": CLASSES}


@pytest.mark.parametrize(
    ("tasks", "sentence"),
    [
        ({}, "tasks is empty; name at least one"),
        ({"it": "depth"}, "tasks.it must be a mapping with the key kind, got 'depth'"),
        ({"it": {}}, "tasks.it: no such kind None; there are classification, segmentation, depth, normals, saliency"),
        (
            {"it": {"kind": "deph"}},
            "no such kind 'deph'; there are classification, segmentation, depth, normals, saliency, edges; did you",
        ),
        ({"it": {"kind": "depth"}}, "tasks.it: the option labels is missing; expected text"),
        (
            {"it": {"kind": "depth", "labels": "d", "unit": 1}},
            "no such option 'unit'; there are labels, scale, invalid",
        ),
        ({"it": {"kind": "depth", "labels": "d", "scale": 0}}, "tasks.it: scale must be a positive number, the metres"),
        (
            {"it": SEGMENTATION},
            "tasks.it: expected either labels (a folder of masks of class numbers) or mask and values",
        ),
        ({"it": SEGMENTATION | {"mask": "m", "labels": "l"}}, "tasks.it: expected either labels"),
        ({"it": SEGMENTATION | {"mask": "m"}}, "mask needs values: which class each pixel value is, e.g. {0: 0, 1: 1"),
        ({"it": SEGMENTATION | {"labels": "l", "values": {0: 0}}}, "values goes with mask, not with labels"),
        (
            {"it": SEGMENTATION | {"mask": "m", "values": {0: 3}}},
            "values: 0: 3: expected a pixel value and a class numbe",
        ),
        (
            {"it": SEGMENTATION | {"mask": "m", "values": {0: True}}},
            "values: 0: True: expected a pixel value and a class",
        ),
        (
            {"it": SEGMENTATION | {"mask": "m", "values": {"none": 0}}},
            "values: 'none': 0: expected a pixel value and a class",
        ),
        ({"it": SEGMENTATION | {"mask": "m", "values": {0: 255}}}, "class number 0 to 2 or ignore"),
        (
            {"it": SEGMENTATION | {"classes": ["a", False]}},
            "classes must be a list of names, got False; put it in quotes",
        ),
        ({"it": SEGMENTATION | {"classes": ["a", "a"], "labels": "l"}}, "classes holds 'a' twice; names must differ"),
        (
            {"it": SEGMENTATION | {"classes": ["a"], "labels": "l"}},
            "task it: segmentation needs the names of at least 2",
        ),
        ({"it": SEGMENTATION | {"classes": [f"{i}" for i in range(256)], "labels": "l"}}, "256 classes are too many"),
        ({"not good": {"kind": "depth", "labels": "d"}}, "task name 'not good': expected an identifier"),
    ],
)
def test_wrong_entries_are_told(tasks: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=re.escape(sentence)):
        read_tasks(tasks)


def table(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_gives_classes_by_name_or_number(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", '\ufefffilename,class\na.png,nerve\n\n"b, c.png", 2 \nd.png,0\n')
    assert read_table(path, CLASSES) == {"a.png": 1, "b, c.png": 2, "d.png": 0}


def test_a_name_goes_before_a_number(tmp_path: Path) -> None:
    assert read_table(table(tmp_path / "t.csv", "a.png,1\n"), ["1", "0"]) == {"a.png": 0}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "a.png,nerv\n",
            "row 1: no such class 'nerv'; expected background, nerve, vessel, or 0 to 2; did you mean 'nerve'?",
        ),
        ("filename,class\na.png,3\n", "row 2: no such class '3'; expected background, nerve, vessel, or 0 to 2"),
        ("a.png,-1\n", "row 1: no such class '-1'"),
        ("a.png\n", "row 1: expected filename,class, got 'a.png'"),
        ("a.png,1,2\n", "row 1: expected filename,class, got 'a.png,1,2'"),
        ("a.png,1\na.png,2\n", "row 2: a.png stands in an earlier row too; keep one"),
        ('"a.png,1\n', "cannot be read as a table of filename,class ("),
    ],
)
def test_wrong_tables_are_told(tmp_path: Path, text: str, sentence: str) -> None:
    path = table(tmp_path / "t.csv", text)
    with pytest.raises(InputError, match=re.escape(sentence)) as caught:
        read_table(path, CLASSES)
    assert str(caught.value).startswith(str(path))


def test_a_table_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(InputError, match=re.escape("t.csv: cannot be read as a table of filename,class (")):
        read_table(tmp_path / "t.csv", CLASSES)
