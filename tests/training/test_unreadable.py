"""Files that cannot be read in the middle of a training: the run stops and names them, or goes on without."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from gatedeploy.data import load_data
from gatedeploy.data.file_split import FileSplit
from gatedeploy.errors import InputError, UnreadableError
from gatedeploy.gating.multi_head import MultiHead
from gatedeploy.training.batches import Batch
from gatedeploy.training.journal import Journal
from gatedeploy.training.loop import fit
from gatedeploy.training.recipe import Recipe
from gatedeploy.training.run import Run
from gatedeploy.training.unreadable import Readable, replaced
from tests.training.made_up import Head, Noise, make_backbone, recipe, weights

CLASSES = ["dark", "bright"]


class Torn(Noise):
    """Some of its pictures cannot be read."""

    def __init__(self, torn: Sequence[int]) -> None:
        super().__init__(12, 0)
        self.torn = torn

    def batch(self, indices: Sequence[int], /) -> Batch:
        for index in indices:
            if index in self.torn:
                raise UnreadableError(f"{index}.png: cannot be read")
        return super().batch(indices)


def test_the_next_readable_picture_of_the_batch_takes_the_place() -> None:
    pictures = Readable(Torn([3, 5]), skip=True, where="gated: epoch 3")
    images, labels = pictures.batch([1, 3, 5, 7])
    expected = pictures._pictures.batch([1, 7, 7, 7])
    assert torch.equal(images, expected[0])
    assert torch.equal(labels["depth"], expected[1]["depth"])
    assert pictures.told() == (
        "gated: epoch 3: 2 pictures could not be read and went without: 3.png: cannot be read; 5.png: cannot be read"
    )


@pytest.mark.parametrize(
    ("indices", "without", "expected"),
    [([1, 2, 3], {3}, [1, 2, 1]), ([1, 2, 3], {1, 2}, [3, 3, 3]), ([4, 4, 5], {4}, [5, 5, 5]), ([1], set(), [1])],
)
def test_places_are_taken_going_round(indices: list[int], without: set[int], expected: list[int]) -> None:
    assert replaced(indices, without) == expected


def test_a_long_list_is_cut_short() -> None:
    pictures = Readable(Torn([1, 2, 3, 4, 5]), skip=True, where="shared: epoch 1")
    for first in (0, 2, 4):
        pictures.batch([first, first + 1, 9])
    assert pictures.told() == (
        "shared: epoch 1: 5 pictures could not be read and went without: 1.png: cannot be read; 2.png: cannot be read; "
        "3.png: cannot be read; and 2 more"
    )


def test_nothing_is_told_where_all_is_well() -> None:
    pictures = Readable(Torn([]), skip=True, where="gated: epoch 1")
    pictures.batch([0, 1])
    assert pictures.told() is None
    assert len(pictures) == 12


def test_a_batch_of_which_nothing_is_left_stops_the_run() -> None:
    sentence = (
        "gated: epoch 2: 1.png: cannot be read. 2 of the 2 pictures of this batch cannot be read, so there is nothing "
        "to go on with"
    )
    with pytest.raises(UnreadableError, match=f"^{re.escape(sentence)}$"):
        Readable(Torn([1, 2]), skip=True, where="gated: epoch 2").batch([1, 2])


def test_what_can_be_read_the_second_time_is_taken() -> None:
    class Once(Torn):
        def batch(self, indices: Sequence[int], /) -> Batch:
            self.torn, torn = [], self.torn
            return Torn(torn).batch(indices)

    pictures = Readable(Once([1]), skip=False, where="gated: epoch 1")
    assert len(pictures.batch([0, 1])[0]) == 2


def test_wrong_labels_are_never_skipped() -> None:
    class Wrong(Noise):
        def batch(self, indices: Sequence[int], /) -> Batch:
            raise InputError("3.png: 7 is no class")

    with pytest.raises(InputError, match=r"^3\.png: 7 is no class$"):
        Readable(Wrong(4, 0), skip=True, where="gated: epoch 1").batch([0, 1])


def fill(root: Path, count: int = 10) -> None:
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        for place, pixels in (("images", noise), ("masks", noise[:, :, 0] // 128)):
            (root / place).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / place / f"{number}.png")


def made_recipe(**train: Any) -> Recipe:
    return recipe(epochs=4, train={"batch_size": 4, **train})


AUGMENT = {"flip": True, "scale": [0.5, 2.0], "crop": True}


def run(root: Path, out: Path, made: Recipe, augment: dict[str, Any] | None = AUGMENT) -> Run:
    task = {"kind": "segmentation", "classes": CLASSES, "labels": "masks"}
    options: dict[str, Any] = {"pictures": "images", "size": 8, "val_fraction": 0.2, "augment": augment}
    data = load_data("folder", root=root, tasks={"red": task}, **options)
    torch.manual_seed(0)
    return Run("shared", MultiHead(make_backbone(), {"red": Head(data.tasks[0])}), data.tasks, 4, made, data, out)


class Watch(Journal):
    """Does something once an epoch is done, and keeps what is said."""

    def __init__(self, after: int = 0, act: Any = None) -> None:
        super().__init__(Console(file=io.StringIO()), tensorboard=False)
        self.after, self.act = after, act
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)
        if self.act is not None and f": epoch {self.after} of" in line:
            self.act()


def first_picture(split: object) -> Path:
    assert isinstance(split, FileSplit)
    return split._samples[0].picture


def interrupt() -> None:
    raise KeyboardInterrupt


def test_a_resumed_run_sees_the_same_pictures(tmp_path: Path) -> None:
    fill(tmp_path / "data")
    fit(run(tmp_path / "data", tmp_path / "whole", made_recipe()), Watch())
    with pytest.raises(KeyboardInterrupt):
        fit(run(tmp_path / "data", tmp_path / "parts", made_recipe()), Watch(2, interrupt))
    fit(run(tmp_path / "data", tmp_path / "parts", made_recipe()), Watch(), resume=True)
    whole, parts = (weights(tmp_path / name / "checkpoint.pt") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    fit(run(tmp_path / "data", tmp_path / "other", made_recipe(), augment=None), Watch())
    without = weights(tmp_path / "other" / "checkpoint.pt")
    assert not all(torch.equal(whole[name], without[name]) for name in whole)


def test_a_corrupt_picture_in_epoch_3_stops_the_run_and_it_goes_on_without(tmp_path: Path) -> None:
    root, out = tmp_path / "data", tmp_path / "out"
    fill(root)
    begun = run(root, out, made_recipe())
    picture = first_picture(begun.data.train)
    with pytest.raises(UnreadableError) as caught:
        fit(begun, Watch(2, lambda: picture.write_bytes(picture.read_bytes()[:60])))
    told = str(caught.value)
    assert told.startswith(f"shared: epoch 3: {picture}: cannot be read as a picture (")
    assert told.endswith(
        "; replace it or take it away. 1 of the 4 pictures of this batch cannot be read; train.unreadable=skip goes on "
        "without them"
    )
    going_on = Watch()
    fit(run(root, out, made_recipe(unreadable="skip")), going_on, resume=True)
    for epoch in (3, 4):
        beginning = f"shared: epoch {epoch}: 1 picture could not be read and went without: {picture}: cannot be read as"
        assert [line for line in going_on.lines if line.startswith(beginning)]
    # The same as of a run that skips from the beginning, for the picture was whole until then.
    again = tmp_path / "again"
    fill(root)
    fit(
        run(root, again, made_recipe(unreadable="skip")),
        Watch(2, lambda: picture.write_bytes(picture.read_bytes()[:60])),
    )
    first, second = (weights(place / "checkpoint.pt") for place in (out, again))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_picture_to_validate_on_is_never_skipped(tmp_path: Path) -> None:
    fill(tmp_path / "data")
    begun = run(tmp_path / "data", tmp_path / "out", made_recipe(unreadable="skip"))
    picture = first_picture(begun.data.val)
    picture.write_bytes(b"")
    with pytest.raises(UnreadableError, match=f"^{re.escape(str(picture))}: cannot be read as a picture"):
        fit(begun, Watch())
