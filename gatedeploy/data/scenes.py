"""Data set `scenes`: ray-cast rooms, built in, with exact segmentation, depth and normals for every pixel.

A floor, up to three walls, and boxes, balls and cylinders that stand or float, hide and shade one another, seen by a
camera of random height, pitch, roll and field of view. All colours and patterns come from one distribution, so colour
tells nothing of class; where nothing stands within 20 m there is background.

Picture i of a split follows from (seed, split, i) alone: it is the same in any batch, any order, any process and any
size of split. Pictures are drawn when first asked for and kept, 57 kB each at 64×64 (573 MB for 10,000): a command
that needs only the tasks and the input waits for nothing, and the first epoch pays for the drawing.
`python -m gatedeploy.data` measures how many are drawn in a second.

In a recipe:

    data:
      name: scenes
      train: 2000
      val: 500
      size: 64
      seed: 0
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import normalize

from gatedeploy.data.base import DataSet, Split, check_indices, data_set, normalised
from gatedeploy.data.raycast import cast, dot
from gatedeploy.data.room import CLASSES, Room, random_room
from gatedeploy.data.shading import shade
from gatedeploy.options import at_least
from gatedeploy.specs import InputSpec, Task

FAR = 20.0
"""Depth in metres at which the world ends; beyond is background."""

GRAIN = 5
"""A pixel is off by up to so many 255ths, as from a small camera at night."""

MEAN = (0.36, 0.36, 0.36)
STD = (0.23, 0.23, 0.23)
"""Measured once over 2,000 pictures, rounded, one value for all colours because the colours are drawn alike."""

TASKS = (Task("segmentation", "segmentation", CLASSES), Task("depth", "depth"), Task("normals", "normals"))

_NORMAL_SCALE = 32767
"""Normals are kept as 16-bit numbers: half the memory, and off by less than a five-hundredth of a degree."""


@dataclass(frozen=True)
class Picture:
    """A drawn room.

    Args:
        image: (3, size, size) uint8, red, green, blue.
        segmentation: (size, size) uint8, positions in `CLASSES`.
        depth: (size, size), metres along the optical axis; NaN where there is background.
        normals: (3, size, size), unit vectors in the camera's axes (x right, y down, z forward), towards the camera;
            zero where there is background.
    """

    image: npt.NDArray[np.uint8]
    segmentation: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.float64]
    normals: npt.NDArray[np.float64]


def draw(room: Room, size: int) -> Picture:
    """Draw `room` as a picture of size × size pixels, one ray each."""
    origin, rays = room.camera.origin, room.camera.rays(size)
    hits = cast(room.solids, origin, rays, FAR)

    height = np.clip(-rays[1] / np.sqrt(dot(rays, rays)), 0, 1).astype(np.float32)
    colours = room.horizon + height * (room.zenith - room.horizon)
    colours[:, hits.ray] = shade(hits, room.materials, room.lamps, room.ambient, room.solids[1:])
    classes = np.zeros(size * size, np.uint8)
    classes[hits.ray] = np.repeat(room.classes, hits.counts)
    depth = np.full(size * size, np.nan)
    depth[hits.ray] = hits.distance
    normals = np.zeros_like(rays)
    normals[:, hits.ray] = room.camera.axes @ hits.normals
    return Picture(
        image=np.rint(np.clip(colours, 0, 1) * 255).astype(np.uint8).reshape(3, size, size),
        segmentation=classes.reshape(size, size),
        depth=depth.reshape(size, size),
        normals=normals.reshape(3, size, size),
    )


def scene(seed: int, stream: int, index: int, size: int) -> Picture:
    """Picture `index` of a split: a random room, and a camera's grain on its colours."""
    random = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, stream, index])))
    picture = draw(random_room(random), size)
    grain = random.integers(-GRAIN, GRAIN, picture.image.shape, dtype=np.int16, endpoint=True)
    return replace(picture, image=np.clip(picture.image + grain, 0, 255).astype(np.uint8))


class SceneSplit(Split):
    """Rooms drawn when first asked for, and kept.

    Args:
        seed: of the data set.
        stream: which of the data set's splits this is; 0 trains, 1 validates.
        count: how many pictures there are.
        input: the picture a network is fed.
    """

    def __init__(self, seed: int, stream: int, count: int, input: InputSpec) -> None:
        self._seed, self._stream, self._input = seed, stream, input
        size = input.height
        # Zeros take no memory until they are written over.
        self._drawn = torch.zeros(count, dtype=torch.bool)
        self._images = torch.zeros(count, 3, size, size, dtype=torch.uint8)
        self._segmentation = torch.zeros(count, size, size, dtype=torch.uint8)
        self._depth = torch.zeros(count, 1, size, size)
        self._normals = torch.zeros(count, 3, size, size, dtype=torch.int16)

    def __len__(self) -> int:
        return len(self._drawn)

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Split.batch`."""
        chosen = check_indices(indices, len(self))
        for index in sorted(set(chosen[~self._drawn[chosen]].tolist())):
            self._draw(index)
        return normalised(self._images[chosen], self._input), {
            "segmentation": self._segmentation[chosen].long(),
            "depth": self._depth[chosen],
            "normals": normalize(self._normals[chosen].float(), dim=1),
        }

    def _draw(self, index: int) -> None:
        picture = scene(self._seed, self._stream, index, self._input.height)
        self._images[index] = torch.from_numpy(picture.image)
        self._segmentation[index] = torch.from_numpy(picture.segmentation)
        self._depth[index, 0] = torch.from_numpy(picture.depth)
        self._normals[index] = torch.from_numpy(np.rint(picture.normals * _NORMAL_SCALE))
        self._drawn[index] = True


@data_set("scenes")
def scenes(train: int = 2000, val: int = 500, size: int = 64, seed: int = 0) -> DataSet:
    """Ray-cast rooms with the tasks segmentation, depth and normals.

    Args:
        train: pictures to train on.
        val: pictures to validate on; never those of `train`, whatever the counts.
        size: height and width in pixels.
        seed: another seed, other rooms.

    Raises:
        InputError: a count or the size is too small, or the seed negative.
    """
    at_least(1, train=train, val=val)
    at_least(8, size=size)
    at_least(0, seed=seed)
    input = InputSpec(3, size, size, MEAN, STD)
    return DataSet("scenes", input, TASKS, SceneSplit(seed, 0, train, input), SceneSplit(seed, 1, val, input))
