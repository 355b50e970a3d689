"""Solids placed by hand, whose distances and normals are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatedeploy.data.raycast import Array, Box, Camera, Cylinder, Floor, Solid, Sphere, blocked, cast, dot

FAR = 1e6


def column(*values: float) -> Array:
    return np.array(values, dtype=np.float64)[:, None]


def at(*values: float) -> Array:
    return np.array(values, dtype=np.float64)


def place() -> st.SearchStrategy[Array]:
    return st.tuples(*[st.floats(-4, 4)] * 3).map(np.array)


def size() -> st.SearchStrategy[float]:
    return st.floats(0.1, 2)


def solids() -> st.SearchStrategy[Solid]:
    return st.one_of(
        st.builds(Sphere, place(), size()),
        st.builds(Box, place(), st.tuples(size(), size(), size()).map(np.array), st.floats(-4, 4)),
        st.builds(Cylinder, place(), size(), size()),
    )


def outside(solid: Solid, points: Array) -> Array:
    """How far each point (3, n) is out of a solid, measured from its definition: 0 on the surface, below 0 inside."""
    x, y, z = points - solid.centre[:, None]
    if isinstance(solid, Sphere):
        return np.asarray(np.sqrt(x**2 + y**2 + z**2) - solid.radius)
    if isinstance(solid, Cylinder):
        return np.asarray(np.maximum(np.hypot(x, z) - solid.radius, np.abs(y) - solid.half))
    assert isinstance(solid, Box)
    # A yaw turns the box's x axis (1, 0, 0) to (cos, 0, −sin) and its z axis to (sin, 0, cos).
    cos, sin = np.cos(solid.yaw), np.sin(solid.yaw)
    own = np.stack([x * cos - z * sin, y, x * sin + z * cos])
    return np.asarray((np.abs(own) - solid.half[:, None]).max(0))


def fan(seed: int, count: int = 400) -> Array:
    """Directions (3, count) all around."""
    return np.random.default_rng(seed).normal(size=(3, count))


def test_a_sphere_straight_ahead() -> None:
    hits = cast([Sphere(at(0, 0, 5), 1.5)], at(0, 0, 0), column(0, 0, 1), FAR)
    assert hits.distance == pytest.approx([3.5])
    assert hits.normals[:, 0] == pytest.approx([0, 0, -1])
    assert hits.points[:, 0] == pytest.approx([0, 0, 3.5])


def test_the_front_of_a_box_and_the_top_of_a_cylinder() -> None:
    box = cast([Box(at(0, 0, 5), at(1, 1, 2))], at(0, 0, 0), column(0, 0, 1), FAR)
    assert (box.distance[0], *box.normals[:, 0]) == pytest.approx((3, 0, 0, -1))
    above = at(0.2, -5, 0)
    cylinder = cast([Cylinder(at(0, 0, 0), 0.5, 1)], above, column(0, 1, 0), FAR)
    assert (cylinder.distance[0], *cylinder.normals[:, 0]) == pytest.approx((4, 0, -1, 0))


def test_a_turned_box_shows_its_edge() -> None:
    hits = cast([Box(at(0, 0, 5), at(1, 1, 1), np.pi / 4)], at(0, 0, 0), column(0.001, 0, 1), FAR)
    assert hits.distance == pytest.approx([5 - np.sqrt(2)], abs=0.01)
    assert hits.normals[:, 0] == pytest.approx([np.sqrt(0.5), 0, -np.sqrt(0.5)])


def test_the_floor_under_a_tilted_camera() -> None:
    camera = Camera(height=1.5, pitch=np.deg2rad(30))
    hits = cast([Floor()], camera.origin, camera.rays(1), FAR)
    assert hits.distance == pytest.approx([3.0])  # 1.5 / sin 30°
    assert camera.axes @ hits.normals[:, 0] == pytest.approx([0, -np.cos(np.deg2rad(30)), -0.5])


def test_the_sky_over_the_floor() -> None:
    camera = Camera(height=1)
    hits = cast([Floor()], camera.origin, camera.rays(8), FAR)
    assert set(hits.ray.tolist()) == set(range(32, 64))


def test_a_camera_that_leans_right_sees_the_floor_rise_on_the_right() -> None:
    camera = Camera(height=1, roll=np.deg2rad(20))
    size = 16
    seen = np.zeros(size * size, dtype=bool)
    seen[cast([Floor()], camera.origin, camera.rays(size), FAR).ray] = True
    below = seen.reshape(size, size).sum(0)
    assert below[-1] > below[0]
    level = Camera(height=1).axes
    assert camera.axes[0] @ level[1] > 0  # Its right points down.


@pytest.mark.parametrize("far_first", [False, True])
def test_the_nearer_solid_hides_the_farther_in_any_order(far_first: bool) -> None:
    near, far = Sphere(at(0, 0, 3), 1), Box(at(0, 0, 6), at(2, 2, 1))
    rays = np.stack([at(0, 0, 1), at(0.38, 0, 1), at(0.5, 0, 1)], 1)  # At the ball, past it at the box, past both.
    hits = cast([far, near] if far_first else [near, far], at(0, 0, 0), rays, FAR)
    assert dict(zip(hits.ray.tolist(), hits.distance.tolist(), strict=True)) == pytest.approx({0: 2.0, 1: 5.0})
    assert hits.counts == (1, 1)


def test_what_lies_beyond_is_not_met() -> None:
    sphere = [Sphere(at(0, 0, 5), 1)]
    assert cast(sphere, at(0, 0, 0), column(0, 0, 1), 4.0).counts == (0,)
    assert cast(sphere, at(0, 0, 0), column(0, 0, 1), 4.1).counts == (1,)
    assert not blocked(sphere, at(0, 0, 0), column(0, 0, 1), 4.0)[0]
    assert blocked(sphere, at(0, 0, 0), column(0, 0, 1), 4.1)[0]
    assert not blocked([], at(0, 0, 0), column(0, 0, 1), FAR)[0]


@given(solid=solids(), seed=st.integers(0, 1000))
def test_rays_meet_solids_on_their_surface_and_only_those_that_pass(solid: Solid, seed: int) -> None:
    origin, rays = at(0, 0, -9), fan(seed)
    distance = solid.meet(origin, rays)
    met = np.isfinite(distance)
    points = origin[:, None] + distance[met] * rays[:, met]
    assert np.abs(outside(solid, points)).max(initial=0) < 1e-9
    for share in np.linspace(0, 0.999, 20):
        before = origin[:, None] + share * distance[met] * rays[:, met]
        assert outside(solid, before).min(initial=0) > -1e-9
    for along in np.linspace(0, 10, 60):
        assert outside(solid, origin[:, None] + along * rays[:, ~met]).min(initial=0) > -1e-9


@given(solid=solids(), seed=st.integers(0, 1000))
def test_normals_are_of_unit_length_point_out_and_face_the_ray(solid: Solid, seed: int) -> None:
    origin, rays = at(0, 0, -9), fan(seed)
    hits = cast([solid], origin, rays, FAR)
    if hits.ray.size:
        assert np.abs(dot(hits.normals, hits.normals) - 1).max() < 1e-9
        assert dot(hits.normals, rays[:, hits.ray]).max() < 1e-9
        assert outside(solid, hits.points + 1e-4 * hits.normals).min() > 0


@given(standing=st.lists(solids(), min_size=1, max_size=5), seed=st.integers(0, 1000))
def test_cast_finds_what_asking_every_solid_finds(standing: Sequence[Solid], seed: int) -> None:
    everything = [Floor(), *standing]
    origin, rays = at(0, -1, -9), fan(seed)
    every = np.stack([solid.meet(origin, rays) for solid in everything])
    hits = cast(everything, origin, rays, FAR)
    assert sorted(hits.ray) == np.flatnonzero(every.min(0) < FAR).tolist()
    assert hits.distance == pytest.approx(every.min(0)[hits.ray], rel=1e-12)
    owner = np.repeat(np.arange(len(everything)), hits.counts)
    assert every[owner, hits.ray] == pytest.approx(hits.distance, rel=1e-12)
    assert (blocked(everything, origin, rays, 10) == (every.min(0) < 10)).all()
