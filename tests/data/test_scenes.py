"""Rooms: exact labels, light, and pictures that depend on nothing but their number."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gatedeploy.data import load_data
from gatedeploy.data.__main__ import pictures_a_second
from gatedeploy.data.raycast import Box, Camera, Cylinder, Floor, Solid, Sphere
from gatedeploy.data.room import BOX, CLASSES, FLOOR, SPHERE, Room, random_room
from gatedeploy.data.scenes import FAR, MEAN, STD, draw, scene
from gatedeploy.data.shading import PATTERNS, Lamp, Material, Single, plain
from gatedeploy.errors import InputError


def single(*values: float) -> Single:
    return np.array(values, dtype=np.float32)[:, None]


def paint(*colour: float) -> Material:
    return Material(single(*colour), single(*colour), plain, np.eye(3, dtype=np.float32), single(0, 0, 0))


def room(camera: Camera, solids: Sequence[Solid], classes: Sequence[int], **light: Any) -> Room:
    black = single(0, 0, 0)
    shown: dict[str, Any] = {"lamps": (), "ambient": 1.0, "horizon": black, "zenith": black} | light
    return Room(camera, solids, classes, [paint(0.5, 0.5, 0.5) for _ in solids], **shown)


def digest(seed: int, stream: int, index: int) -> str:
    picture = scene(seed, stream, index, 64)
    parts = (picture.image, picture.segmentation, picture.depth, picture.normals)
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def test_a_sphere_on_the_optical_axis() -> None:
    size = 65  # Odd, so that a pixel's middle lies on the axis.
    picture = draw(room(Camera(height=1), [Sphere(np.array([0, -1.0, 5]), 1.0)], [SPHERE]), size)
    assert picture.segmentation[32, 32] == SPHERE
    assert picture.depth[32, 32] == pytest.approx(4)
    assert picture.normals[:, 32, 32] == pytest.approx([0, 0, -1])
    assert picture.normals[0, 32, 35] > 0  # x to the right
    assert picture.normals[1, 35, 32] > 0  # y down
    assert picture.segmentation[0, 0] == 0
    assert np.isnan(picture.depth[0, 0])
    assert (picture.normals[:, 0, 0] == 0).all()


def test_depth_is_measured_along_the_optical_axis() -> None:
    wall = Box(np.array([0, 0, 6.0]), np.array([50, 50, 1.0]))
    picture = draw(room(Camera(height=1, field=1.2), [wall], [BOX]), 16)
    assert picture.depth == pytest.approx(np.full((16, 16), 5.0))
    assert picture.normals == pytest.approx(np.broadcast_to(np.array([0, 0, -1.0])[:, None, None], (3, 16, 16)))


def test_depth_and_normals_of_a_plane_agree() -> None:
    size = 48
    camera = Camera(height=1.3, pitch=0.6, roll=0.1, field=0.9)
    picture = draw(room(camera, [Floor()], [FLOOR]), size)
    assert np.isfinite(picture.depth).all()
    across = ((np.arange(size) + 0.5) / size * 2 - 1) * np.tan(camera.field / 2)
    right, down = np.meshgrid(across, across)
    points = np.stack([right, down, np.ones_like(right)]) * picture.depth
    along_row, along_column = np.diff(points, axis=2)[:, :-1], np.diff(points, axis=1)[:, :, :-1]
    found = np.cross(along_column, along_row, axis=0)
    found /= np.sqrt((found**2).sum(0))
    assert found == pytest.approx(picture.normals[:, :-1, :-1], abs=1e-9)


def test_light_falls_off_with_the_cosine_and_shadows_are_hard() -> None:
    camera = Camera(height=3, pitch=np.pi / 2)  # Straight down on the floor.
    lamp = Lamp(np.array([0, -4.0, 0]), single(0.8, 0.8, 0.8))
    light = {"lamps": [lamp], "ambient": 0.2}
    bare = draw(room(camera, [Floor()], [FLOOR], **light), 33)
    assert bare.image[:, 16, 16].tolist() == [128] * 3  # 0.5 · (0.2 + 0.8)
    sideways = 3 * np.tan(0.5) * (16 / 16.5)
    cosine = 4 / np.hypot(4, sideways)
    assert bare.image[0, 16, 0] == pytest.approx(255 * 0.5 * (0.2 + 0.8 * cosine), abs=1)
    shade = Sphere(np.array([0, -3.5, 0]), 0.1)  # Behind the camera, before the lamp.
    dark = draw(room(camera, [Floor(), shade], [FLOOR, SPHERE], **light), 33)
    assert dark.image[:, 16, 16].tolist() == [26] * 3  # 0.5 · 0.2
    assert dark.image[0, 16, 0] == bare.image[0, 16, 0]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_blend_between_two_colours(pattern: Any) -> None:
    material = Material(single(1, 1, 1), single(0.5, 0, 0), pattern, 9 * np.eye(3, dtype=np.float32), single(0, 0, 0))
    colours = material.colours(np.random.default_rng(0).normal(size=(3, 500)).astype(np.float32))
    assert colours.shape == (3, 500)
    assert colours[0].min() >= 0.5
    assert colours.max() <= 1
    assert (np.ptp(colours[0]) > 0.4) == (pattern is not plain)


def test_every_pixel_is_of_the_class_of_the_nearest_solid() -> None:
    seen: set[int] = set()
    for seed in range(12):
        whole = random_room(np.random.default_rng(seed))
        alone = [draw(room(whole.camera, [solid], [1]), 24).depth for solid in whole.solids]
        nearest = np.nanargmin(np.stack([*alone, np.full((24, 24), FAR)]), axis=0)
        picture = draw(whole, 24)
        assert np.array_equal(np.append(whole.classes, 0)[nearest], picture.segmentation)
        for solid, label in zip(whole.solids, whole.classes, strict=True):
            shape = {"floor": Floor, "wall": Box, "box": Box, "sphere": Sphere, "cylinder": Cylinder}[CLASSES[label]]
            assert type(solid) is shape
        seen |= set(np.unique(picture.segmentation).tolist())
    assert seen == set(range(len(CLASSES)))


def test_labels_of_random_rooms_hold_together() -> None:
    seen: set[int] = set()
    for index in range(40):
        picture = scene(3, 0, index, 32)
        background = picture.segmentation == 0
        seen |= set(np.unique(picture.segmentation).tolist())
        assert (np.isnan(picture.depth) == background).all()
        assert ((picture.normals == 0).all(0) == background).all()
        assert (picture.depth[~background] > 0.1).all()
        assert (picture.depth[~background] < FAR).all()
        length = np.sqrt((picture.normals**2).sum(0))
        assert length[~background] == pytest.approx(1)
        random = np.random.Generator(np.random.PCG64(np.random.SeedSequence([3, 0, index])))
        camera = random_room(random).camera
        seen_from = (camera.axes @ camera.rays(32)).reshape(3, 32, 32)
        assert ((picture.normals * seen_from).sum(0)[~background] < 1e-9).all()
    assert seen == set(range(len(CLASSES)))


def test_a_batch_follows_the_conventions() -> None:
    data = load_data("scenes", train=4, val=2, size=24, seed=1)
    images, labels = data.train.batch([2, 0, 2])
    assert [(task.name, task.kind) for task in data.tasks] == [
        ("segmentation", "segmentation"),
        ("depth", "depth"),
        ("normals", "normals"),
    ]
    assert (len(data.train), len(data.val), data.input.shape) == (4, 2, (3, 24, 24))
    picture = scene(1, 0, 2, 24)
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(images[0], (torch.from_numpy(picture.image).float() / 255 - mean) / std)
    assert labels["segmentation"].dtype == torch.int64
    assert (labels["segmentation"][0].numpy() == picture.segmentation).all()
    assert labels["depth"].shape == (3, 1, 24, 24)
    np.testing.assert_array_equal(labels["depth"][0, 0].numpy(), picture.depth.astype(np.float32))
    assert labels["normals"][0].numpy() == pytest.approx(picture.normals, abs=3e-5)
    assert (images[0] == images[2]).all()
    assert not (images[0] == images[1]).all()


def test_a_picture_depends_on_its_number_alone() -> None:
    one, other = (load_data("scenes", train=count, val=2, size=16, seed=4) for count in (6, 3))
    together = one.train.batch([0, 1, 2])
    alone = [other.train.batch([index]) for index in (2, 0, 1)]
    for index, (images, labels) in zip((2, 0, 1), alone, strict=True):
        assert torch.equal(images[0], together[0][index])
        for task, label in labels.items():
            assert torch.equal(label[0].nan_to_num(-1), together[1][task][index].nan_to_num(-1))
    assert not torch.equal(one.val.batch([0])[0], one.train.batch([0])[0])


def test_another_process_draws_the_same_pictures() -> None:
    code = "from tests.data.test_scenes import digest; print(digest(7, 1, 123), digest(7, 0, 5))"
    root = Path(__file__).parents[2]
    answer = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert answer.stdout.split() == [digest(7, 1, 123), digest(7, 0, 5)]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"train": 0}, "data scenes: train must be at least 1, got 0"),
        ({"val": -1}, "data scenes: val must be at least 1, got -1"),
        ({"size": 7}, "data scenes: size must be at least 8, got 7"),
        ({"seed": -1}, "data scenes: seed must be at least 0, got -1"),
        ({"size": "64"}, "data scenes: size must be a whole number, got '64'"),
    ],
)
def test_wrong_options_are_told(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        load_data("scenes", **options)


def test_the_rate_is_measured() -> None:
    assert pictures_a_second(2, size=8) > 0
