"""Labels and predictions as pictures."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

import gatedeploy as gd
from gatedeploy.benchmarks.predictions import Colours, class_colours, examples, picture_of, shown_of
from gatedeploy.data import load_data
from gatedeploy.runners.base import Array
from gatedeploy.training.recipe_file import load_recipe


def read(file: bytes | str) -> Colours:
    assert isinstance(file, bytes)
    return np.asarray(imread(io.BytesIO(file)), np.float64)[..., :3]


def test_what_is_right_looks_alike_and_what_has_no_label_is_white() -> None:
    parts = gd.Task("parts", "segmentation", ("a", "b", "c"))
    label = torch.tensor([[0, 1], [2, 255]])
    scores = torch.nn.functional.one_hot(torch.tensor([[0, 1], [2, 1]]), 3).permute(2, 0, 1).float()
    shown = shown_of(parts, label, scores)
    right, found = read(shown.label), read(shown.predicted)
    assert (right[1, 1] == 1).all()
    known = (label != 255).numpy()
    np.testing.assert_array_equal(right[known], found[known])
    assert len(np.unique(found.reshape(-1, 3), axis=0)) == 3
    key = [list(bytes.fromhex(colour[1:])) for colour in class_colours(parts).values()]
    np.testing.assert_allclose(right.reshape(-1, 3)[:3] * 255, key, atol=1)  # how a file and a key round a colour


def test_sixty_classes_differ() -> None:
    parts = gd.Task("parts", "segmentation", tuple(map(str, range(60))))
    assert len(set(class_colours(parts).values())) == 60
    assert not class_colours(gd.Task("kind", "classification", ("cat", "dog")))


def test_depths_share_a_scale() -> None:
    label = torch.tensor([[[1.0, 2.0], [3.0, torch.nan]]])
    shown = shown_of(gd.Task("depth", "depth"), label, torch.tensor([[[1.0, 2.0], [9.0, 0.0]]]))
    right, found = read(shown.label), read(shown.predicted)
    np.testing.assert_array_equal(right[0], found[0])
    np.testing.assert_array_equal(found[1, 0], right[1, 0])  # beyond the scale is its end
    np.testing.assert_array_equal(found[1, 1], right[0, 0])
    assert (right[1, 1] == 1).all()


def test_normals_are_directions() -> None:
    label = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]])[..., None].transpose(0, 0)
    label = torch.stack([torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]])])
    shown = shown_of(
        gd.Task("normals", "normals"), label, 5 * torch.ones_like(label) * torch.tensor([0.0, 0, 1])[:, None, None]
    )
    right, found = read(shown.label), read(shown.predicted)
    np.testing.assert_allclose(right[0, 0], [0.5, 0.5, 1], atol=0.01)
    assert (right[0, 1] == 1).all()  # the zero vector is no label
    np.testing.assert_allclose(found[0, 0], [0.5, 0.5, 1], atol=0.01)


def test_yes_and_no_and_words() -> None:
    label = torch.tensor([[0, 1], [255, 1]])
    shown = shown_of(gd.Task("edges", "edges"), label, torch.tensor([[[-50.0, 50.0], [0.0, 50.0]]]))
    right, found = read(shown.label), read(shown.predicted)
    np.testing.assert_array_equal(right[0], found[0])
    assert (right[1, 0] == 1).all()
    kind = gd.Task("kind", "classification", ("cat", "dog"))
    said = shown_of(kind, torch.tensor(1), torch.tensor([3.0, 1.0]))
    assert (said.label, said.predicted) == ("dog", "cat")


def test_a_picture_is_as_it_was() -> None:
    pixels = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0))
    spec = gd.InputSpec(3, 4, 5, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    mean, std = (torch.tensor(values)[:, None, None] for values in spec.moments)
    np.testing.assert_allclose(picture_of((pixels - mean) / std, spec), pixels.permute(1, 2, 0), atol=1e-6)
    grey = picture_of(pixels[:1], gd.InputSpec(1, 4, 5))
    np.testing.assert_allclose(grey[..., 2], pixels[0], atol=1e-6)


def test_examples_of_a_recipe() -> None:
    recipe = load_recipe("scenes", ["data.size=16", "data.train=1", "data.val=5"])
    data = load_data("scenes", size=16, train=1, val=5)
    images, _ = data.val.batch([0, 2, 4])
    seen: list[Array] = []

    def predict(image: Array) -> Mapping[str, Array]:
        seen.append(image)
        return {task.name: np.zeros((1, task.channels, 16, 16), np.float32) for task in data.tasks}

    found, reason = examples(recipe.plain(), "a.pt", None, data.tasks, data.input, predict)
    assert reason == ""
    assert [[shown.task for shown in each.shown] for each in found] == [[task.name for task in data.tasks]] * 3
    np.testing.assert_array_equal(np.concatenate(seen), images.numpy())


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (
            {},
            "a.pt: names no recipe, so there are no pictures of its own; name a recipe whose data to take",
        ),
        ({"data": {"name": "nowhere"}, "model": {}, "train": {"epochs": 1}}, "a.pt"),
    ],
)
def test_without_pictures_it_says_why(recipe: dict[str, object], message: str) -> None:
    task = gd.Task("depth", "depth")
    found, reason = examples(recipe, "a.pt", None, [task], gd.InputSpec(3, 8, 8), lambda _: {})
    assert found == []
    assert message in reason


def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    recipe = load_recipe("multi_fashion", [f"data.root={tmp_path / 'gone'}"])
    tasks = [gd.Task("left", "classification", tuple("0123456789"))]
    found, reason = examples(recipe.plain(), "a.pt", None, tasks, gd.InputSpec(1, 36, 36), lambda _: {})
    assert found == []
    assert "gone" in reason
