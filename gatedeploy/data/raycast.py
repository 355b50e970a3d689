"""Where rays meet solids: exact distance, surface and normal, for many rays at once.

World and camera give their axes the same meaning: x to the right, y **down**, z forward, in metres. The floor is the
plane y = 0, so what stands on it has y < 0. A camera's rays are scaled so that their part along the optical axis is 1:
the distance at which one meets a solid *is* the depth. Every solid but the floor is convex and seen from outside: a
ray is inside it between two distances, and meets it at the first.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

GRAZE = 1e-6
"""Nothing is met nearer than this, so that rays do not meet the surface they start on."""


TINY = 1e-12
"""Stands in for a zero that would be divided by."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera over the world's origin; its pictures are square.

    Args:
        height: above the floor, in metres.
        pitch: how far it looks down, in radians.
        roll: how far it leans to the right, in radians.
        field: its field of view, in radians.
    """

    height: float
    pitch: float = 0.0
    roll: float = 0.0
    field: float = 1.0

    @property
    def origin(self) -> Array:
        """Where it stands: (3,)."""
        return np.array([0.0, -self.height, 0.0])

    @property
    def axes(self) -> Array:
        """(3, 3): its rows are the camera's right, down and forward in the world; `axes @ v` is v for the camera."""
        cos_p, sin_p = np.cos(self.pitch), np.sin(self.pitch)
        cos_r, sin_r = np.cos(self.roll), np.sin(self.roll)
        level = np.array([[1, 0, 0], [0, cos_p, -sin_p], [0, sin_p, cos_p]])
        lean = np.array([[cos_r, sin_r, 0], [-sin_r, cos_r, 0], [0, 0, 1]])
        return np.asarray(lean @ level)

    def rays(self, size: int) -> Array:
        """Directions (3, size·size) in the world through the middles of the pixels, row by row."""
        across = ((np.arange(size) + 0.5) / size * 2 - 1) * np.tan(self.field / 2)
        right, down = np.meshgrid(across, across)
        seen = np.stack([right.ravel(), down.ravel(), np.ones(size * size)])
        return np.asarray(self.axes.T @ seen)


class Solid(abc.ABC):
    """Something that rays meet, inside a ball of radius `bound` about `centre` (3,)."""

    centre: Array

    @property
    @abc.abstractmethod
    def bound(self) -> float:
        """Radius of the ball about `centre` that holds it."""

    @abc.abstractmethod
    def meet(self, origin: Array, direction: Array) -> Array:
        """Distances (rays,) at which rays from `origin` (3,) along `direction` (3, rays) meet it; infinity if never."""

    @abc.abstractmethod
    def normals(self, points: Array) -> Array:
        """Outward unit normals (3, n) at the points (3, n) of its surface."""


@dataclass(frozen=True)
class Floor(Solid):
    """The plane y = 0, seen from above."""

    centre = np.zeros(3)

    @property
    def bound(self) -> float:
        """It has no end."""
        return np.inf

    def meet(self, origin: Array, direction: Array) -> Array:
        """See `Solid.meet`."""
        down = direction[1]
        return np.asarray(np.divide(-origin[1], down, out=np.full_like(down, np.inf), where=down > 0))

    def normals(self, points: Array) -> Array:
        """See `Solid.normals`."""
        return np.repeat(np.array([[0.0], [-1.0], [0.0]]), points.shape[1], axis=1)


@dataclass(frozen=True)
class Sphere(Solid):
    """A ball about `centre` (3,)."""

    centre: Array
    radius: float

    @property
    def bound(self) -> float:
        """See `Solid.bound`."""
        return self.radius

    def meet(self, origin: Array, direction: Array) -> Array:
        """See `Solid.meet`."""
        start = origin - self.centre
        c = float(start @ start) - self.radius**2
        return _first(*_roots(dot(direction, direction), start @ direction, c))

    def normals(self, points: Array) -> Array:
        """See `Solid.normals`."""
        return (points - self.centre[:, None]) / self.radius


@dataclass(frozen=True)
class Box(Solid):
    """A cuboid about `centre` (3,), half of its sides being `half` (3,), turned by `yaw` radians about the vertical."""

    centre: Array
    half: Array
    yaw: float = 0.0

    @property
    def bound(self) -> float:
        """See `Solid.bound`."""
        return float(np.sqrt(self.half @ self.half))

    def meet(self, origin: Array, direction: Array) -> Array:
        """See `Solid.meet`: between all three pairs of sides at once."""
        (near_x, far_x), (near_y, far_y), (near_z, far_z) = (
            _between(start, along, half)
            for start, along, half in zip(
                self._inside(origin - self.centre), self._inside(direction), self.half, strict=True
            )
        )
        near = np.maximum(np.maximum(near_x, near_y), near_z)
        return _first(near, np.minimum(np.minimum(far_x, far_y), far_z))

    def normals(self, points: Array) -> Array:
        """See `Solid.normals`: of the side that the point is nearest to."""
        x, y, z = (
            part / half for part, half in zip(self._inside(points - self.centre[:, None]), self.half, strict=True)
        )
        size_x, size_y, size_z = np.abs(x), np.abs(y), np.abs(z)
        x = np.sign(x) * ((size_x > size_y) & (size_x > size_z))
        y = np.sign(y) * ((size_y >= size_x) & (size_y > size_z))
        z = np.sign(z) * ((size_z >= size_x) & (size_z >= size_y))
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        return np.stack([cos * x + sin * z, y, cos * z - sin * x])

    def _inside(self, vectors: Array) -> tuple[Array, Array, Array]:
        """Vectors of the world along the box's own axes."""
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        return cos * vectors[0] - sin * vectors[2], vectors[1], sin * vectors[0] + cos * vectors[2]


@dataclass(frozen=True)
class Cylinder(Solid):
    """An upright cylinder about `centre` (3,), `half` of its height above and below."""

    centre: Array
    radius: float
    half: float

    @property
    def bound(self) -> float:
        """See `Solid.bound`."""
        return float(np.hypot(self.radius, self.half))

    def meet(self, origin: Array, direction: Array) -> Array:
        """See `Solid.meet`: inside the endless cylinder and between its two ends."""
        x, y, z = origin - self.centre
        along_x, along_y, along_z = direction
        a = np.maximum(along_x * along_x + along_z * along_z, TINY)
        near, far = _roots(a, x * along_x + z * along_z, x * x + z * z - self.radius**2)
        above, below = _between(y, along_y, self.half)
        return _first(np.maximum(near, above), np.minimum(far, below))

    def normals(self, points: Array) -> Array:
        """See `Solid.normals`."""
        x, y, z = (points - self.centre[:, None]) / np.array([[self.radius], [self.half], [self.radius]])
        end = np.abs(y) > np.hypot(x, z)
        return np.stack([x * ~end, np.sign(y) * end, z * ~end])


@dataclass(frozen=True)
class Hits:
    """What rays met first; only those that met anything, ordered by what they met.

    Args:
        ray: (hits,), the ray's number.
        distance: (hits,), along the ray.
        points: (3, hits), where.
        normals: (3, hits), outward unit normals there, in the world.
        counts: for each solid, how many of the hits are its own.
    """

    ray: Indices
    distance: Array
    points: Array
    normals: Array
    counts: tuple[int, ...]


def cast(solids: Sequence[Solid], origin: Array, direction: Array, far: float) -> Hits:
    """Follow rays from `origin` (3,) along `direction` (3, rays), up to the distance `far`, to the first solid."""
    distance = np.full(direction.shape[1], far)
    owner = np.full(direction.shape[1], -1)
    for number, (ray, met) in enumerate(_meetings(solids, origin, direction)):
        nearer = met < distance[ray]
        distance[ray[nearer]] = met[nearer]
        owner[ray[nearer]] = number
    rays = [np.flatnonzero(owner == number) for number in range(len(solids))]
    points = [origin[:, None] + distance[ray] * direction.take(ray, 1) for ray in rays]
    normals = [solid.normals(mine) for solid, mine in zip(solids, points, strict=True)]
    every = np.concatenate(rays)
    counts = tuple(len(ray) for ray in rays)
    return Hits(every, distance[every], np.concatenate(points, 1), np.concatenate(normals, 1), counts)


def blocked(solids: Sequence[Solid], origin: Array, direction: Array, far: float) -> npt.NDArray[np.bool_]:
    """Which of the rays from `origin` (3,) along `direction` (3, rays) meet any solid before the distance `far`."""
    stopped = np.zeros(direction.shape[1], dtype=bool)
    for ray, met in _meetings(solids, origin, direction):
        stopped[ray] |= met < far
    return stopped


def dot(a: Array, b: Array) -> Array:
    """Scalar products (n,) of vectors (3, n); three products are faster than a sum over so short an axis."""
    return np.asarray(a[0] * b[0] + a[1] * b[1] + a[2] * b[2])


def _meetings(solids: Sequence[Solid], origin: Array, direction: Array) -> Iterator[tuple[Indices, Array]]:
    """For each solid, the rays that pass through the ball around it, and the distances at which they meet it."""
    if not solids:
        return
    centres = np.stack([solid.centre for solid in solids]) - origin
    bounds = np.array([solid.bound for solid in solids])
    a, b, c = dot(direction, direction), centres @ direction, (centres * centres).sum(1) - bounds * bounds
    for solid, near in zip(solids, b * b >= a * c[:, None], strict=True):
        ray = np.flatnonzero(near)
        yield ray, solid.meet(origin, direction.take(ray, 1))


@np.errstate(divide="ignore", invalid="ignore")
def _between(start: float | Array, along: Array, half: float) -> tuple[Array, Array]:
    """From where to where start + t·along lies within −half and half."""
    one, other = (-half - start) / along, (half - start) / along
    return np.minimum(one, other), np.maximum(one, other)


@np.errstate(divide="ignore", invalid="ignore")
def _roots(a: Array, b: Array, c: float) -> tuple[Array, Array]:
    """The two t with a·t² + 2·b·t + c = 0, the smaller one first; NaN where there are none."""
    root = np.sqrt(b * b - a * c)
    return (-b - root) / a, (root - b) / a


def _first(near: Array, far: Array) -> Array:
    """Where a ray enters a convex solid; infinity where it misses it or starts in or behind it.

    Overwrites `near`. A comparison with NaN is false, so NaN is a miss.
    """
    np.copyto(near, np.inf, where=~((near < far) & (near > GRAZE)))
    return near
