"""Views of pictures: what is drawn, what is seen, and that pictures and labels stay together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from gatedeploy.data import load_data
from gatedeploy.data.augment import WHOLE, Augment, View, boxes, draw, framed, read_augment
from gatedeploy.data.file_split import FileSplit
from gatedeploy.data.label_files import Maps, metres, unit
from gatedeploy.data.layout import MEAN, STD, input_of
from gatedeploy.data.pairing import Sample
from gatedeploy.data.picture_files import read_depth, read_mask, read_normals
from gatedeploy.errors import InputError
from gatedeploy.specs import Task

Array = npt.NDArray[Any]

ALL = {"flip": True, "scale": [0.5, 2.0], "crop": True}

CLASSES = tuple(f"class {number}" for number in range(250))

SOURCES = {
    Task("place", "segmentation", CLASSES): Maps(CLASSES, read_mask, np.asarray),
    Task("depth", "depth"): Maps((), read_depth, metres, -1),
    Task("disparity", "depth"): Maps((), read_depth, metres, 1),
    Task("normals", "normals"): Maps((), read_normals, unit),
    Task("edges", "edges"): Maps((), read_mask, lambda pixels: pixels > 100),
}


def fill(root: Path, height: int, width: int) -> Sample:
    """A picture whose colour says where a pixel is, red across and green down, and labels that say the same."""
    down, across = np.mgrid[:height, :width]
    red, green = across * 240 // width, down * 240 // height
    root.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.stack([red, green, 0 * red], -1).astype(np.uint8)).save(root / "picture.png")
    Image.fromarray(red.astype(np.uint8)).save(root / "place.png")
    np.save(root / "depth.npy", (green + 1).astype(np.float32))
    normals = np.stack([red / 240 * 0.9, 0 * red, np.sqrt(1 - (red / 240 * 0.9) ** 2)], -1)
    np.save(root / "normals.npy", normals.astype(np.float32))
    files = {"place": "place.png", "depth": "depth.npy", "disparity": "depth.npy", "normals": "normals.npy"}
    return Sample(root / "picture.png", {name: root / file for name, file in {**files, "edges": "place.png"}.items()})


def split(sample: Sample, size: tuple[int, int], augment: Augment | None) -> FileSplit:
    return FileSplit("made_up", "train", input_of(size), SOURCES, [sample], augment)


def colours(image: Tensor) -> Array:
    """(3, height, width), 0 to 255."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return ((image * std + mean) * 255).numpy()


def test_a_whole_picture_fills_the_window() -> None:
    assert boxes(WHOLE, (30, 40), (12, 16)) == ((slice(0, 30), slice(0, 40)), (slice(0, 12), slice(0, 16)))


def test_enlarged_twice_a_half_of_the_picture_fills_the_window() -> None:
    view = View(False, 2.0, 0.0, 0.99)
    assert boxes(view, (30, 40), (12, 16)) == ((slice(0, 15), slice(20, 40)), (slice(0, 12), slice(0, 16)))


def test_half_as_large_the_picture_fills_a_half_of_the_window() -> None:
    view = View(False, 0.5, 0.5, 0.5)
    assert boxes(view, (30, 40), (12, 16)) == ((slice(0, 30), slice(0, 40)), (slice(3, 9), slice(4, 12)))


def test_a_mirrored_picture_lies_on_the_other_side() -> None:
    (part, place), (same, mirrored) = (boxes(View(flip, 0.5, 0, 0), (30, 40), (12, 16)) for flip in (False, True))
    assert part == same
    assert place == (slice(0, 6), slice(0, 8))
    assert mirrored == (slice(0, 6), slice(8, 16))


@given(
    scale=st.floats(0.1, 10),
    at=st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True)),
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    window=st.tuples(st.integers(1, 60), st.integers(1, 60)),
)
def test_what_is_seen_lies_in_the_picture_and_in_the_window(
    scale: float, at: tuple[float, float], size: tuple[int, int], window: tuple[int, int]
) -> None:
    part, place = boxes(View(False, scale, *at), size, window)
    for pieces, lengths in ((part, size), (place, window)):
        for piece, length in zip(pieces, lengths, strict=True):
            assert 0 <= piece.start < piece.stop <= length
    whole = part if scale < 1 else place
    assert whole == tuple(slice(0, length) for length in (size if scale < 1 else window))


def test_around_a_picture_is_filled() -> None:
    canvas = np.zeros((2, 4))
    framed(canvas, (slice(0, 1), slice(1, 4)), 9)[...] = [1, 2, 3]
    np.testing.assert_array_equal(canvas, [[9, 1, 2, 3], [9, 9, 9, 9]])


def test_what_is_drawn_follows_from_seed_epoch_and_number_alone() -> None:
    augment = Augment(True, (0.5, 2.0), True)
    assert draw(augment, 1, 2, 3) == draw(augment, 1, 2, 3)
    views = {draw(augment, *numbers) for numbers in ((1, 2, 3), (0, 2, 3), (1, 0, 3), (1, 2, 0), (3, 2, 1))}
    assert len(views) == 5


def test_draws_cover_their_ranges() -> None:
    views = [draw(Augment(True, (0.5, 2.0), True), 0, 0, number) for number in range(400)]
    assert 160 < sum(view.flip for view in views) < 240
    assert min(view.scale for view in views) < 0.52
    assert 1.97 < max(view.scale for view in views) < 2
    assert min(view.down for view in views) < 0.02
    assert max(view.across for view in views) > 0.98


def test_what_is_not_asked_for_is_not_drawn() -> None:
    for number in range(20):
        assert draw(Augment(), 0, 0, number) == WHOLE
        flipped = draw(Augment(flip=True), 0, 0, number)
        assert (flipped.scale, flipped.down, flipped.across) == (1.0, 0.5, 0.5)
        # Asking for more leaves what was drawn as it is.
        assert draw(Augment(True, (0.5, 2.0), True), 0, 0, number).flip == flipped.flip


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"flipp": True}, "augment: no such option 'flipp'; there are flip, scale, crop; did you mean 'flip'?"),
        ({"flip": 1}, "augment: flip must be true or false, got 1"),
        ({"scale": 2}, "augment: scale must be a list, got 2"),
        ({"scale": [2.0, 0.5]}, "augment: scale must be [smallest, largest], from 0.1 to 10, got [2.0, 0.5]"),
        ({"scale": [0.5]}, "augment: scale must be [smallest, largest], from 0.1 to 10, got [0.5]"),
        ({"scale": ["a", 2]}, "augment: scale must be [smallest, largest], from 0.1 to 10, got ['a', 2]"),
        (
            {"crop": True},
            "augment: crop needs scale, for at a factor of 1 the picture fills the window; add scale: [0.5, 2.0]",
        ),
    ],
)
def test_wrong_options_are_told(entry: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        read_augment(entry)


def test_no_entry_is_no_augmentation() -> None:
    assert read_augment(None) is None
    assert read_augment(ALL) == Augment(True, (0.5, 2.0), True)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return fill(tmp_path_factory.mktemp("view"), 48, 64)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), epoch=st.integers(0, 100), flip=st.booleans(), crop=st.booleans())
def test_pictures_and_labels_stay_together(sample: Sample, seed: int, epoch: int, flip: bool, crop: bool) -> None:
    augment = Augment(flip, (0.5, 2.0), crop)
    images, labels = split(sample, (40, 56), augment).of_epoch(seed, epoch).batch([0])
    view = draw(augment, seed, epoch, 0)
    red, green, _ = colours(images[0])
    place = labels["place"][0].numpy()
    seen = place != 255
    np.testing.assert_array_equal(np.isfinite(labels["depth"][0, 0].numpy()), seen)
    np.testing.assert_array_equal((labels["normals"][0] != 0).any(0).numpy(), seen)
    np.testing.assert_array_equal(labels["edges"][0].numpy() != 255, seen)
    least = min(view.scale, 1)
    assert seen.sum() == round(40 * least) * round(56 * least)
    # Neighbouring pixels differ by 240/64 and 240/48, and where a picture is made smaller it is smoothed.
    assert np.abs(red - place)[seen].max() < 12
    depth = labels["depth"][0, 0].numpy() * view.scale
    assert np.abs(green - depth)[seen].max() < 14
    np.testing.assert_allclose(labels["disparity"][0, 0].numpy() / view.scale, depth, rtol=1e-5)
    side = labels["normals"][0, 0].numpy() * (-1 if view.flip else 1)
    np.testing.assert_allclose(side[seen], place[seen] / 240 * 0.9, atol=1e-6)
    np.testing.assert_array_equal(labels["edges"][0].numpy()[seen], place[seen] > 100)


def test_a_mirrored_picture_by_hand(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[255, 0, 0], [0, 0, 0]]], np.uint8)).save(tmp_path / "picture.png")
    Image.fromarray(np.array([[3, 7]], np.uint8)).save(tmp_path / "place.png")
    np.save(tmp_path / "depth.npy", np.array([[2.0, 0.0]], np.float32))
    np.save(tmp_path / "normals.npy", np.array([[[0.6, 0.8, 0.0], [-1.0, 0.0, 0.0]]], np.float32))
    files = {"place": "place.png", "depth": "depth.npy", "disparity": "depth.npy", "normals": "normals.npy"}
    made = Sample(tmp_path / "picture.png", {k: tmp_path / v for k, v in {**files, "edges": "place.png"}.items()})
    augment = Augment(flip=True)
    epoch = next(epoch for epoch in range(20) if draw(augment, 0, epoch, 0).flip)
    images, labels = split(made, (1, 2), augment).of_epoch(0, epoch).batch([0])
    np.testing.assert_allclose(colours(images[0])[:, 0], [[0, 255], [0, 0], [0, 0]], atol=1e-4)
    assert labels["place"].tolist() == [[[7, 3]]]
    assert labels["depth"].nan_to_num(-9).tolist() == [[[[-9, 2]]]]
    torch.testing.assert_close(
        labels["normals"][0, :, 0], torch.tensor([[1.0, -0.6], [0.0, 0.8], [0.0, 0.0]]), check_stride=False
    )


def test_an_enlarged_picture_by_hand(tmp_path: Path) -> None:
    made = fill(tmp_path, 4, 4)
    twice = Augment(False, (2.0, 2.0), False)
    _, labels = split(made, (4, 4), twice).of_epoch(0, 0).batch([0])
    # The middle two rows and columns of four, each pixel twice.
    assert labels["place"][0].tolist() == [[60, 60, 120, 120]] * 4
    assert labels["depth"][0, 0, :, 0].tolist() == [30.5, 30.5, 60.5, 60.5]
    assert labels["disparity"][0, 0, :, 0].tolist() == [122, 122, 242, 242]
    half = Augment(False, (0.5, 0.5), False)
    images, labels = split(made, (4, 4), half).of_epoch(0, 0).batch([0])
    assert labels["place"][0].tolist() == [[255] * 4, [255, 60, 180, 255], [255, 60, 180, 255], [255] * 4]
    assert (images[0, :, 0] == 0).all()
    assert labels["depth"][0, 0, 1:3, 1].tolist() == [122, 362]


def test_only_training_pictures_look_anew_and_only_in_an_epoch(tmp_path: Path) -> None:
    for number in range(6):
        place = tmp_path / "images"
        place.mkdir(exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(place / f"{number}.png")
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(noise[:, :, 0] // 128).save(tmp_path / "masks" / f"{number}.png")
    task = {"kind": "segmentation", "classes": ["dark", "bright"], "labels": "masks"}
    given_: dict[str, Any] = {"root": tmp_path, "pictures": "images", "tasks": {"red": task}, "size": [12, 16]}
    plain = load_data("folder", **given_, val_fraction=0.5)
    data = load_data("folder", **given_, val_fraction=0.5, augment=ALL)
    numbers = range(3)
    for split_, same in ((data.train, plain.train), (data.val, plain.val)):
        torch.testing.assert_close(split_.batch(numbers)[0], same.batch(numbers)[0], rtol=0, atol=0)
    assert isinstance(data.train, FileSplit)
    assert isinstance(data.val, FileSplit)
    torch.testing.assert_close(data.val.of_epoch(0, 0).batch(numbers)[0], plain.val.batch(numbers)[0], rtol=0, atol=0)
    first = data.train.of_epoch(0, 0)
    together, labels = first.batch([0, 1, 2])
    assert not torch.equal(together, plain.train.batch(numbers)[0])
    assert not torch.equal(together, data.train.of_epoch(0, 1).batch([0, 1, 2])[0])
    alone = [data.train.of_epoch(0, 0).batch([number]) for number in (2, 0, 1)]
    assert torch.equal(together[[2, 0, 1]], torch.cat([images for images, _ in alone]))
    assert torch.equal(labels["red"][[2, 0, 1]], torch.cat([each["red"] for _, each in alone]))
