"""What colour a surface shows: procedural textures, Lambert's law, ambient light, hard shadows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gatedeploy.data.raycast import Array, Hits, Solid, blocked, dot

Single = npt.NDArray[np.float32]
"""Colours need no more."""

Pattern = Callable[[Single, Single, Single], Single]
"""How far between its two colours a solid is at a place, in [0, 1]; x, y and z are in radians."""

LIFT = 1e-4
"""How far off its surface a point is taken to be, as a share of the way to the lamp; keeps it out of its own shadow."""


def plain(x: Single, y: Single, z: Single) -> Single:
    """One colour."""
    return np.zeros_like(x)


def checker(x: Single, y: Single, z: Single) -> Single:
    """Cubes, alternating."""
    return (np.sin(x) * np.sin(y) * np.sin(z) > 0).astype(np.float32)


def stripes(x: Single, y: Single, z: Single) -> Single:
    """Slabs, alternating."""
    return (np.sin(x) > 0).astype(np.float32)


def noise(x: Single, y: Single, z: Single) -> Single:
    """Waves that other waves bend, as in marble."""
    return np.asarray(0.5 + 0.5 * np.sin(x + 1.7 * np.sin(y + 1.3 * np.sin(z))), np.float32)


PATTERNS: tuple[Pattern, ...] = (plain, checker, stripes, noise)


@dataclass(frozen=True)
class Material:
    """A texture cut from a solid block: the colour is a function of the place in space, so no surface needs a map.

    Args:
        light, dark: (3, 1), the two colours the pattern runs between, in [0, 1].
        pattern: one of `PATTERNS`.
        waves: (3, 3), in its rows three orthogonal wave vectors, radians a metre.
        phases: (3, 1), radians.
    """

    light: Single
    dark: Single
    pattern: Pattern
    waves: Single
    phases: Single

    def colours(self, points: Single) -> Single:
        """The colours (3, n) at the points (3, n)."""
        x, y, z = self.waves @ points + self.phases
        return self.dark + self.pattern(x, y, z) * (self.light - self.dark)


@dataclass(frozen=True)
class Lamp:
    """A point of light at `place` (3,); a surface facing it gives back `colour` (3, 1) of its own colour."""

    place: Array
    colour: Single


def shade(
    hits: Hits, materials: Sequence[Material], lamps: Sequence[Lamp], ambient: float, blockers: Sequence[Solid]
) -> Single:
    """The colours (3, hits) of what was met: colour · (ambient + Σ over lamps in sight of colour · max(0, n·l)).

    Args:
        hits: what the camera's rays met.
        materials: one for each solid.
        lamps: the points of light.
        ambient: the light that comes from everywhere.
        blockers: the solids that throw shadows.
    """
    received = np.full(hits.points.shape, ambient, dtype=np.float32)
    for lamp in lamps:
        rays = hits.points - lamp.place[:, None]
        cosine = -dot(rays, hits.normals) / np.sqrt(dot(rays, rays))
        facing = np.flatnonzero(cosine > 0)
        lit = facing[~blocked(blockers, lamp.place, rays.take(facing, 1), 1 - LIFT)]
        strength = np.zeros(len(cosine), dtype=np.float32)
        strength[lit] = cosine[lit]
        received += lamp.colour * strength
    points, start = hits.points.astype(np.float32), 0
    for material, count in zip(materials, hits.counts, strict=True):
        mine = slice(start, start := start + count)
        received[:, mine] *= material.colours(points[:, mine])
    return received
