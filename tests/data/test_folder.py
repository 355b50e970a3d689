"""The user's own pictures: what is paired with what, what a batch holds, and every way a folder can be wrong."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import yaml
from PIL import Image

from gatedeploy.data import folder as module
from gatedeploy.data import load_data
from gatedeploy.data.layout import MEAN, STD
from gatedeploy.errors import InputError
from tests.data.test_picture_files import noise, palette_png

Array = npt.NDArray[Any]

SIZES = {"a": (12, 16), "b": (10, 10), "c": (8, 20), "d": (12, 16)}

NERVE = {"kind": "segmentation", "classes": ["background", "nerve"], "mask": "masks", "values": {0: 0, 1: 1, 2: 0}}
VESSEL = {"kind": "segmentation", "classes": ["background", "vessel"], "mask": "masks", "values": {0: 0, 1: 0, 2: 1}}


def mask_of(name: str) -> Array:
    return noise(*SIZES[name], seed=ord(name)) % 3


def save(path: Path, array: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def fill(root: Path) -> Path:
    """Four pictures of three sizes, two of them grey, with labels of every kind."""
    rows = ["filename,class"]
    for place in ("masks", "shared_masks"):
        (root / place).mkdir(parents=True)
    for number, (name, size) in enumerate(SIZES.items()):
        save(root / "images" / f"{name}.png", noise(*size, *((3,) if number % 2 else ()), seed=number))
        palette_png(root / "masks" / f"{name}.png", mask_of(name))
        palette_png(root / "shared_masks" / f"{name}.png", mask_of(name))
        save(root / "depth" / f"{name}.png", noise(*size, seed=number).astype(np.uint16) * 100 + 1)
        save(root / "normals" / f"{name}.png", noise(*size, 3, seed=number))
        rows.append(f"{name}.png,{number % 2}")
    (root / "scene.csv").write_text("\n".join(rows))
    return root


def options(root: Path, **changes: Any) -> dict[str, Any]:
    given = {
        "root": root,
        "pictures": "images",
        "tasks": {"nerve": NERVE, "vessel": VESSEL},
        "size": 8,
        "val_fraction": 0.25,
    }
    return {key: value for key, value in (given | changes).items() if value is not None}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return fill(tmp_path / "data")


def refused(sentence: str, **given: Any) -> None:
    with pytest.raises(InputError, match=re.escape(sentence)):
        load_data("folder", **given)


def documented() -> list[dict[str, Any]]:
    """The recipes in the module's text: the whole one, and one for each `val` it shows."""
    text = module.__doc__ or ""
    whole = yaml.safe_load(text[text.index("    data:\n") : text.index("Instead of")])["data"]
    places = [yaml.safe_load(line)["val"] for line in text.splitlines() if line.lstrip().startswith("val: {")]
    assert len(places) == 2
    bare = {key: value for key, value in whole.items() if key not in ("val_fraction", "seed")}
    return [whole] + [bare | {"val": place} for place in places]


@pytest.mark.parametrize("recipe", documented(), ids=["fraction", "val.root", "val.pictures"])
def test_the_documented_recipes_run(root: Path, recipe: dict[str, Any]) -> None:
    fill(root / "test")
    for place in ("images", "masks"):
        save(root / place / "val" / "e.png", noise(9, 9) % 2)
    if "pictures" in recipe.get("val", {}):  # The labels that `val` leaves out are where those of training are.
        for name in ("depth", "normals", "shared_masks"):
            shutil.copy(root / name / "b.png", root / name / "e.png")
        save(root / "images" / "val" / "e.png", noise(10, 10))
        save(root / "masks" / "val" / "e.png", noise(10, 10) % 2)
        with (root / "scene.csv").open("a") as file:
            file.write("\ne.png,indoor")
    data = load_data(**(recipe | {"root": str(root)}))
    assert data.input.shape == (3, 256, 320)
    assert [task.name for task in data.tasks] == ["scene", "segmentation", "nerve", "depth", "normals"]
    assert len(data.train) == (3 if "val_fraction" in recipe else 4)
    for split in (data.train, data.val):
        images, labels = split.batch(range(len(split)))
        n = len(split)
        assert images.shape == (n, 3, 256, 320)
        shapes = {name: (tuple(label.shape), label.dtype) for name, label in labels.items()}
        assert shapes == {
            "scene": ((n,), torch.int64),
            "segmentation": ((n, 256, 320), torch.int64),
            "nerve": ((n, 256, 320), torch.int64),
            "depth": ((n, 1, 256, 320), torch.float32),
            "normals": ((n, 3, 256, 320), torch.float32),
        }


def test_tasks_share_one_mask_with_a_value_map_each(root: Path) -> None:
    for place in ("images", "masks"):
        shutil.copytree(root / place, root / "val" / place)
    data = load_data("folder", **options(root, size=[12, 16], val_fraction=None, val={"root": "val"}))
    images, labels = data.train.batch([3, 0])
    for row, name in enumerate(("d", "a")):
        assert (labels["nerve"][row].numpy() == (mask_of(name) == 1)).all()
        assert (labels["vessel"][row].numpy() == (mask_of(name) == 2)).all()
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    grey = torch.from_numpy(noise(*SIZES["a"], seed=0)).float() / 255
    torch.testing.assert_close(images[1], (grey - mean) / std)


def test_every_picture_is_in_one_part_and_the_seed_draws_it(root: Path) -> None:
    def parts(seed: int) -> list[set[float]]:
        data = load_data("folder", **options(root, val_fraction=0.5, seed=seed))
        return [{float(image.sum()) for image in split.batch(range(2))[0]} for split in (data.train, data.val)]

    train, val = parts(0)
    assert len(train | val) == 4
    assert parts(0) == [train, val]
    assert any(parts(seed) != [train, val] for seed in range(1, 6))


@pytest.mark.parametrize(("fraction", "count"), [(0.01, 1), (0.5, 2), (0.99, 3)])
def test_both_parts_hold_a_picture(root: Path, fraction: float, count: int) -> None:
    data = load_data("folder", **options(root, val_fraction=fraction))
    assert (len(data.train), len(data.val)) == (4 - count, count)


def test_a_label_of_class_numbers_is_checked_when_decoded(root: Path) -> None:
    task = {"kind": "segmentation", "classes": ["floor", "wall"], "labels": "masks"}
    data = load_data("folder", **options(root, tasks={"scene": task}))
    sentence = r"folder: train split, sample .*masks/[abcd].png: task scene: 2 is no class; expected 0 to 1, or 255"
    with pytest.raises(InputError, match=sentence):
        data.train.batch([0, 1, 2])


def test_a_label_of_another_size_is_told(root: Path) -> None:
    for name in SIZES:
        palette_png(root / "masks" / f"{name}.png", np.zeros((5, 7)))
    data = load_data("folder", **options(root))
    with pytest.raises(
        InputError, match=r"masks/.\.png: is 5×7 \(height × width\), its picture .*images/.\.png is \d+×\d+"
    ):
        data.val.batch([0])


def test_a_pixel_value_that_no_map_mentions_is_told(root: Path) -> None:
    tasks = {"nerve": NERVE | {"values": {0: 0, 1: 1}}}
    data = load_data("folder", **options(root, tasks=tasks, size=16))
    with pytest.raises(InputError, match=r"masks/.\.png: task nerve: holds the pixel value 2, which values does not"):
        data.train.batch([0])


def test_a_corrupt_picture_is_told_when_it_is_read(root: Path) -> None:
    for name in SIZES:
        (root / "images" / f"{name}.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing more")
    data = load_data("folder", **options(root))
    with pytest.raises(InputError, match=r"images/.\.png: cannot be read as a picture \("):
        data.train.batch([0])


def drop(*parts: str) -> Callable[[Path], None]:
    return lambda root: root.joinpath(*parts).unlink()


def copy(source: str, target: str) -> Callable[[Path], None]:
    def act(root: Path) -> None:
        shutil.copy(root / source, root / target)

    return act


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (
            drop("masks", "b.png"),
            "{root}/images/b.png: a picture without a label for task nerve; expected {root}/masks/b.png",
        ),
        (
            drop("images", "b.png"),
            "{root}/masks/b.png: a label of task nerve without a picture; expected b in {root}/images",
        ),
        (
            copy("images/a.png", "images/a.jpg"),
            "{root}/images/a.png: a.jpg differs only in its ending; keep one of the two",
        ),
        (copy("masks/a.png", "masks/a.PNG"), "{root}/masks/a.png: a.PNG differs only in its ending"),
        (
            lambda root: shutil.rmtree(root / "masks"),
            "data folder: tasks.nerve: {root}/masks: no such folder; {root} holds depth",
        ),
        (
            lambda root: shutil.rmtree(root / "images"),
            "data folder: pictures: {root}/images: no such folder; {root} holds",
        ),
        (lambda root: shutil.rmtree(root), "data folder: root: {root}: no such folder"),
        (
            lambda root: [p.unlink() for p in (root / "images").iterdir()],
            "{root}/images: holds no pictures; expected files",
        ),
    ],
)
def test_files_that_do_not_match_are_told(root: Path, damage: Callable[[Path], Any], sentence: str) -> None:
    damage(root)
    refused(sentence.format(root=root), **options(root))


def test_files_of_other_kinds_and_hidden_ones_do_not_count(root: Path) -> None:
    for name in ("notes.txt", ".hidden.png", "Thumbs.db"):
        (root / "images" / name).write_text("")
        (root / "masks" / name).write_text("")
    assert len(load_data("folder", **options(root)).train) == 3


def test_a_table_is_matched_by_file_name(root: Path) -> None:
    scene = {"kind": "classification", "classes": ["even", "odd"], "labels": "scene.csv"}
    given = options(root, tasks={"scene": scene})
    data = load_data("folder", **given)
    found = torch.cat([split.batch(range(len(split)))[1]["scene"] for split in (data.train, data.val)])
    assert sorted(found.tolist()) == [0, 0, 1, 1]
    (root / "scene.csv").write_text("a.png,even\nb.png,odd\nc.png,even\n")
    refused(
        f"d.png: a picture without a label for task scene; expected a line d.png,class in {root}/scene.csv", **given
    )
    (root / "scene.csv").write_text("a.png,0\nb.png,0\nc.png,0\nd.png,0\ne.png,0\nf.png,0\n")
    refused(
        f"{root}/scene.csv, e.png: a label of task scene without a picture; expected e.png in {root}/images "
        "(and 1 more). Add the picture or take the label away",
        **given,
    )
    (root / "scene.csv").unlink()
    refused(f"tasks.scene: {root}/scene.csv: no such file; {root} holds depth", **given)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"pictures": "../images"}, "pictures: '../images' leaves the data set's folder"),
        ({"pictures": "/images"}, "pictures: '/images' leaves the data set's folder"),
        ({"tasks": {"nerve": NERVE | {"mask": "a/../../b"}}}, "tasks.nerve: 'a/../../b' leaves the data set's folder"),
        ({"val_fraction": None, "val": {"root": "../x"}}, "val: root: '../x' leaves the data set's folder"),
        ({"val_fraction": None, "val": {"pictures": "none"}}, "val: pictures: "),
        (
            {"val_fraction": None, "val": {"labels": {"nerv": "x"}}},
            "val: labels: no such task 'nerv'; there are nerve, ves",
        ),
        ({"val_fraction": None, "val": {"labels": {"nerve": 3}}}, "val: labels.nerve must be text, got 3"),
        (
            {"val_fraction": None, "val": {"picture": "x"}},
            "val: no such option 'picture'; there are root, pictures, labels",
        ),
        ({"val_fraction": None, "val": {}}, "val: its pictures are those of training"),
        ({"val_fraction": None}, "expected either val_fraction (a share of the pictures) or val (a place of its own)"),
        ({"val": {"root": "test"}}, "expected either val_fraction"),
        ({"val_fraction": 1}, "val_fraction must lie between 0 and 1, got 1"),
        ({"size": [8]}, "size must be [height, width] or one whole number, of at least 1, got [8]"),
        ({"size": [8, 0]}, "size must be [height, width] or one whole number, of at least 1, got [8, 0]"),
        ({"size": [8, True]}, "size must be [height, width]"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"tasks": ["nerve"]}, "data folder: tasks must be a mapping, got ['nerve']"),
    ],
)
def test_wrong_options_are_told(root: Path, changes: dict[str, Any], sentence: str) -> None:
    refused(sentence, **options(root, **changes))


def test_one_picture_cannot_be_divided(root: Path) -> None:
    for name in "bcd":
        drop("images", f"{name}.png")(root)
        drop("masks", f"{name}.png")(root)
    refused("val_fraction needs at least 2 pictures, one to train and one to validate on, got 1", **options(root))
