"""Random rooms: what stands where, how it is painted and lit, and from where it is seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gatedeploy.data.raycast import Array, Box, Camera, Cylinder, Floor, Solid, Sphere
from gatedeploy.data.shading import PATTERNS, Lamp, Material, Single

CLASSES = ("background", "floor", "wall", "box", "sphere", "cylinder")
FLOOR, WALL, BOX, SPHERE, CYLINDER = range(1, len(CLASSES))

PATTERN_SHARES = (0.4, 0.2, 0.2, 0.2)
"""How often each of `PATTERNS` is drawn."""

Random = np.random.Generator


@dataclass(frozen=True)
class Room:
    """All that a picture is drawn from.

    Args:
        camera: from where it is seen.
        solids: what stands in it, the floor first.
        classes: of the solids, positions in `CLASSES`.
        materials: how the solids are painted.
        lamps: one or two points of light.
        ambient: the light that comes from everywhere.
        horizon, zenith: (3, 1), the background's colours level with the camera and straight above it.
    """

    camera: Camera
    solids: Sequence[Solid]
    classes: Sequence[int]
    materials: Sequence[Material]
    lamps: Sequence[Lamp]
    ambient: float
    horizon: Single
    zenith: Single


def random_room(random: Random) -> Room:
    """Draw a room: up to 7 objects, up to 3 walls, 1 or 2 lamps; all colours and patterns from one distribution."""
    camera = Camera(
        height=random.uniform(0.7, 2.4),
        pitch=np.deg2rad(random.uniform(2, 32)),
        roll=np.deg2rad(random.uniform(-6, 6)),
        field=np.deg2rad(random.uniform(45, 75)),
    )
    standing = [(FLOOR, Floor()), *_random_walls(random), *_random_objects(random, camera)]
    return Room(
        camera=camera,
        solids=tuple(solid for _, solid in standing),
        classes=tuple(kind for kind, _ in standing),
        materials=_random_materials(random, len(standing)),
        lamps=_random_lamps(random),
        ambient=random.uniform(0.28, 0.5),
        horizon=_single(random.uniform(0.1, 1, (3, 1))),
        zenith=_single(random.uniform(0.1, 1, (3, 1))),
    )


def _random_walls(random: Random) -> list[tuple[int, Solid]]:
    """Up to three long thin boxes: behind, to the left and to the right of what stands in the room."""
    there = random.random(3) < (0.75, 0.45, 0.45)
    away = _spread(random, (4.5, 1.8, 1.8), (11, 4.5, 4.5))
    yaws = np.deg2rad(_spread(random, (-28, 75, 75), (28, 105, 105)))
    heights = random.uniform(0.8, 3.6, 3)
    places = ((0.0, away[0]), (-away[1], 5.0), (away[2], 5.0))
    walls: list[tuple[int, Solid]] = []
    for (x, z), length, height, yaw in zip(places, (9, 4, 4), heights, yaws, strict=True):
        walls.append((WALL, Box(np.array([x, -height / 2, z]), np.array([length, height / 2, 0.1]), yaw)))
    return [wall for wall, stands in zip(walls, there, strict=True) if stands]


def _random_objects(random: Random, camera: Camera) -> list[tuple[int, Solid]]:
    """Boxes, balls and cylinders in front of the camera, a third of them in the air, each on ground of its own."""
    wanted, tries = int(random.integers(3, 8)), 14
    kinds = random.integers(BOX, CYLINDER + 1, tries)
    halves = random.uniform(0.25, 0.85, (tries, 3))
    ahead = random.uniform(1.7, 6.5, tries)
    aside = ahead * np.tan(camera.field / 2) * random.uniform(-1, 1, tries)
    lifted = np.where(random.random(tries) < 0.35, random.uniform(0.1, 1.4, tries), 0.0)
    yaws = random.uniform(0, np.pi, tries)
    reach = np.hypot(halves[:, 0], np.where(kinds == BOX, halves[:, 2], 0.0))
    apart = np.hypot(aside - aside[:, None], ahead - ahead[:, None]) > reach + reach[:, None]
    kept: list[int] = []
    objects: list[tuple[int, Solid]] = []
    for new, clear in enumerate(apart.tolist()):
        if len(kept) == wanted or not all(clear[old] for old in kept):
            continue
        kept.append(new)
        half = halves[new]
        up = half[0] if kinds[new] == SPHERE else half[1]
        centre = np.array([aside[new], -up - lifted[new], ahead[new]])
        solid: Solid = Cylinder(centre, half[0], half[1])
        if kinds[new] == BOX:
            solid = Box(centre, half, yaws[new])
        elif kinds[new] == SPHERE:
            solid = Sphere(centre, half[0])
        objects.append((int(kinds[new]), solid))
    return objects


def _random_materials(random: Random, count: int) -> tuple[Material, ...]:
    """Two colours, a pattern, its direction and its period for each of `count` solids."""
    light = random.uniform(0.15, 1, (count, 3, 1))
    dark = light * random.uniform(0.35, 0.9, (count, 1, 1)) + random.uniform(-0.1, 0.1, (count, 3, 1))
    turns = np.linalg.qr(random.normal(size=(count, 3, 3)))[0]
    periods = np.exp(random.uniform(np.log(0.3), np.log(1.8), (count, 1, 1)))
    patterns = random.choice(len(PATTERNS), count, p=PATTERN_SHARES)
    phases = random.uniform(0, 2 * np.pi, (count, 3, 1))
    parts = (_single(light), _single(dark.clip(0, 1)), _single(2 * np.pi / periods * turns), _single(phases))
    return tuple(
        Material(light, dark, PATTERNS[pattern], waves, phase)
        for light, dark, waves, phase, pattern in zip(*parts, patterns, strict=True)
    )


def _random_lamps(random: Random) -> tuple[Lamp, ...]:
    """One lamp over the room, and half of the time a weaker second one."""
    places = _spread(random, ((-5, -7, -3),) * 2, ((5, -3, 6),) * 2)
    tints = _single(random.uniform(0.8, 1, (2, 3, 1)) * _spread(random, (0.55, 0.15), (0.9, 0.4))[:, None, None])
    count = int(random.integers(1, 3))
    return tuple(Lamp(place, tint) for place, tint in zip(places[:count], tints[:count], strict=True))


def _spread(random: Random, low: npt.ArrayLike, high: npt.ArrayLike) -> Array:
    """A number between each pair of `low` and `high`; `uniform` does the same in five times the time."""
    low, high = np.asarray(low), np.asarray(high)
    return np.asarray(low + random.random(low.shape) * (high - low))


def _single(values: Array) -> Single:
    return values.astype(np.float32)
