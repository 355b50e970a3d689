"""Two pieces of clothing in one picture, and the files they come from."""

from __future__ import annotations

import contextlib
import gzip
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatedeploy.data import load_data
from gatedeploy.data.fashion_files import Pictures, read_fashion
from gatedeploy.data.multi_fashion import CLASSES, INPUT, overlay
from gatedeploy.errors import InputError

Pixels = npt.NDArray[np.uint8]

PARTS = {"train": 30, "t10k": 12}


def clothes(part: str) -> Pictures:
    """A tiny stand-in: picture i is filled with noise of its own, its class is i mod 10."""
    count, random = PARTS[part], np.random.default_rng(len(part))
    return Pictures(random.integers(0, 256, (count, 28, 28), np.uint8), (np.arange(count) % 10).astype(np.uint8))


def idx(array: Pixels) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(root: Path, zipped: bool = False) -> Path:
    for part in PARTS:
        for name, array in (("images-idx3", clothes(part).images), ("labels-idx1", clothes(part).labels)):
            path = root / f"{part}-{name}-ubyte{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(idx(array)) if zipped else idx(array))
    return root


def write_npz(root: Path, **changes: Any) -> Path:
    train, test = clothes("train"), clothes("t10k")
    arrays = {"x_train": train.images, "y_train": train.labels, "x_test": test.images, "y_test": test.labels} | changes
    np.savez(root / "fashion_mnist.npz", **{name: array for name, array in arrays.items() if array is not None})
    return root


def refused(root: Path, sentence: str) -> None:
    with pytest.raises(InputError, match=re.escape(sentence)):
        read_fashion(root)


@pytest.mark.parametrize("form", ["npz", "idx", "gz"])
def test_all_forms_hold_the_same(tmp_path: Path, form: str) -> None:
    root = write_npz(tmp_path) if form == "npz" else write_idx(tmp_path, zipped=form == "gz")
    for read, part in zip(read_fashion(root), PARTS, strict=True):
        np.testing.assert_array_equal(read.images, clothes(part).images)
        np.testing.assert_array_equal(read.labels, clothes(part).labels)


def test_the_archive_itself_may_be_named(tmp_path: Path) -> None:
    root = write_npz(tmp_path) / "fashion_mnist.npz"
    data = load_data("multi_fashion", root=str(root), train=3, val=2)
    assert (len(data.train), len(data.val)) == (3, 2)


def test_overlay_keeps_the_brighter_pixel() -> None:
    first, second = torch.full((1, 28, 28), 100, dtype=torch.uint8), torch.full((1, 28, 28), 7, dtype=torch.uint8)
    second[0, 0, 0] = 200
    canvas = overlay(first, second)[0]
    assert canvas.shape == (36, 36)
    assert canvas[0, 0] == 100
    assert canvas[27, 27] == 100
    assert canvas[8, 8] == 200
    assert canvas[35, 35] == 7
    assert canvas[0, 35] == 0
    assert canvas[35, 0] == 0


def test_pairs_carry_their_labels(tmp_path: Path) -> None:
    data = load_data("multi_fashion", root=write_npz(tmp_path), train=50, val=40, seed=3)
    assert data.input == INPUT
    assert [task.name for task in data.tasks] == ["left", "right"]
    assert all(task.classes == CLASSES for task in data.tasks)
    for split, part in ((data.train, "train"), (data.val, "t10k")):
        images, labels = split.batch(range(40))
        pixels = (images * INPUT.std[0] + INPUT.mean[0]) * 255
        for picture, left, right in zip(pixels, labels["left"], labels["right"], strict=True):
            source = clothes(part)
            ours = [torch.from_numpy(source.images[source.labels == int(label)]).float() for label in (left, right)]
            # The margins, which the other picture does not reach, tell which pictures were overlaid.
            assert (ours[0][:, :8] - picture[0, :8, :28]).abs().amax((1, 2)).min() < 0.01
            assert (ours[1][:, -8:] - picture[0, -8:, 8:]).abs().amax((1, 2)).min() < 0.01
    assert images.dtype == torch.float32
    assert labels["left"].dtype == torch.int64


def test_the_seed_fixes_the_pairs(tmp_path: Path) -> None:
    root = write_npz(tmp_path)
    one, same, other = (load_data("multi_fashion", root=root, train=20, val=5, seed=seed) for seed in (1, 1, 2))
    every = range(20)
    assert torch.equal(one.train.batch(every)[0], same.train.batch(every)[0])
    assert not torch.equal(one.train.batch(every)[0], other.train.batch(every)[0])
    longer = load_data("multi_fashion", root=root, train=25, val=5, seed=1)
    assert torch.equal(one.train.batch(every)[0], longer.train.batch(every)[0])


def test_a_label_that_is_no_class_is_told(tmp_path: Path) -> None:
    root = write_npz(tmp_path, y_test=np.full(12, 10, np.uint8))
    sentence = "multi_fashion: val split, sample 0: task left: 10 is no class; expected 0 to 9"
    with pytest.raises(InputError, match=re.escape(sentence)):
        load_data("multi_fashion", root=root, train=3, val=3)


def test_missing_files_are_told(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", f"root {tmp_path / 'nowhere'}: no such file or folder; expected fashion_mnist.npz")
    name = "train-images-idx3-ubyte"
    refused(tmp_path, f"{tmp_path}: has neither fashion_mnist.npz nor {name} or {name}.gz")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(kept=st.integers(0, 16 + 12 * 784 - 1))
def test_a_file_cut_anywhere_is_told(tmp_path: Path, kept: int) -> None:
    path = write_idx(tmp_path) / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:kept])
    expected = 16 if kept < 16 else 16 + 12 * 784
    with pytest.raises(InputError) as caught:
        read_fashion(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    if kept >= 4:
        assert re.search(rf"expected (a head of )?{expected} bytes.*, got {kept};", message)


def test_a_cut_archive_is_told(tmp_path: Path) -> None:
    path = write_idx(tmp_path, zipped=True) / "train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-12])
    refused(tmp_path, f"{path}: cannot be read (")
    path = write_npz(tmp_path) / "fashion_mnist.npz"
    path.write_bytes(path.read_bytes()[:1000])
    refused(tmp_path, f"{path}: not a readable npz archive (")


def test_a_single_array_is_no_archive(tmp_path: Path) -> None:
    with (tmp_path / "fashion_mnist.npz").open("wb") as file:
        np.save(file, np.zeros((2, 28, 28), np.uint8))
    refused(
        tmp_path, "fashion_mnist.npz: holds a single array; expected the arrays x_train, y_train, x_test and y_test"
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(place=st.floats(0, 1), value=st.integers(0, 255))
def test_a_damaged_archive_is_read_or_told(tmp_path: Path, place: float, value: int) -> None:
    path = write_npz(tmp_path) / "fashion_mnist.npz"
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] = value
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        read_fashion(tmp_path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\0\0\x0b\x03" + b"\0" * 40, "not an idx file of 3 axes: expected it to begin with 00000803, got 00000b03"),
        (idx(np.zeros((2, 27, 28), np.uint8)), "holds an array [2, 27, 28]; expected up to 1000000 of [28, 28]"),
        (idx(np.zeros((2, 28, 28), np.uint8)) + b"!", "expected 1584 bytes for an array [2, 28, 28], got more"),
        (b"\0\0\x08\x03" + struct.pack(">3I", 2**32 - 1, 28, 28), "expected up to 1000000 of [28, 28]"),
        (idx(np.zeros((3, 28, 28), np.uint8)), "expected 3 labels of uint8, one per picture, got (30,) of uint8"),
        (idx(np.zeros((0, 28, 28), np.uint8)), "expected pictures (n, 28, 28) of uint8, at least one, got (0, 28, 28)"),
    ],
)
def test_idx_files_are_read_strictly(tmp_path: Path, content: bytes, sentence: str) -> None:
    (write_idx(tmp_path) / "train-images-idx3-ubyte").write_bytes(content)
    refused(tmp_path, sentence)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"y_test": None}, "has no array y_test; it holds x_train, y_train, x_test"),
        (
            {"x_train": np.zeros((30, 28, 28))},
            "expected pictures (n, 28, 28) of uint8, at least one, got (30, 28, 28) of",
        ),
        ({"y_train": np.zeros(29, np.uint8)}, "expected 30 labels of uint8, one per picture, got (29,) of uint8"),
        ({"x_train": np.array([print], dtype=object)}, "not a readable npz archive (Object arrays cannot be loaded"),
    ],
)
def test_archives_are_read_strictly(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    root = write_npz(tmp_path, **changes)
    refused(root, f"{root / 'fashion_mnist.npz'}: {sentence}")
