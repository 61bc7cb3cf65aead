"""Surfaces become distance fields: laws that hold for balls and boxes whose distances are known."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from sacroleak.core.geometry import Geometry, Points
from sacroleak.training import surfaces
from sacroleak.training.surfaces import Mesh, mean_sacrum, similarity

GRID = Geometry.axis_aligned(origin_lps_mm=(-40, -40, -40), spacing_mm=2.0, shape=(41, 41, 41))


def ball(radius_mm: float, centre_lps: tuple[float, float, float] = (0, 0, 0)) -> Mesh:
    sphere = trimesh.creation.icosphere(subdivisions=4, radius=radius_mm)
    return Mesh(vertices=np.asarray(sphere.vertices) + centre_lps, faces=np.asarray(sphere.faces, dtype=np.int64))


def turned(points: Points, seed: int) -> Points:
    """The same shape at another size, angle and place."""
    rng = np.random.default_rng(seed)
    rotation = trimesh.transformations.random_rotation_matrix(rng.random(3))[:3, :3]
    return np.asarray(rng.uniform(0.8, 1.2) * points @ rotation + rng.uniform(-300, 300, size=3))


def from_centre_mm() -> Points:
    index = np.stack(np.meshgrid(*(np.arange(n) for n in GRID.shape), indexing="ij"), axis=-1)
    return np.asarray(np.linalg.norm(GRID.to_lps(index), axis=-1))


@pytest.mark.parametrize("seed", range(4))
def test_similarity_is_found_again(seed: int) -> None:
    points = np.random.default_rng(99).normal(size=(50, 3)) * 30
    moved = turned(points, seed)
    assert similarity(points, moved)(points) == pytest.approx(moved, abs=1e-8)


def test_similarity_never_mirrors() -> None:
    points = np.random.default_rng(5).normal(size=(50, 3)) * 30
    found = similarity(points, points * (-1, 1, 1))
    assert np.linalg.det(found.rotation) == pytest.approx(1.0)


def test_mean_of_one_shape_in_many_poses_is_that_shape() -> None:
    shape = np.random.default_rng(3).normal(size=(80, 3)) * (50, 30, 30)
    mean = mean_sacrum(np.stack([turned(shape, seed) for seed in range(6)]))
    assert similarity(shape, mean)(shape) == pytest.approx(mean, abs=1e-6)
    assert mean.mean(axis=0) == pytest.approx(np.zeros(3), abs=1e-9)


def test_distance_to_a_ball_is_right_near_its_surface() -> None:
    got = surfaces.signed_distance(GRID, ball(20.0))
    wanted = from_centre_mm() - 20.0
    near = np.abs(wanted) < 10
    assert np.abs(got - wanted)[near].max() < 0.15
    assert (got[wanted > 15] == np.float32(surfaces.FAR_MM)).all()
    assert (got[wanted < -13] == -np.float32(surfaces.FAR_MM)).all()


def test_sign_survives_a_hole_in_the_surface() -> None:
    whole = ball(20.0)
    kept = whole.vertices[whole.faces].mean(axis=1)[:, 2] > -18.5
    got = surfaces.signed_distance(GRID, Mesh(vertices=whole.vertices, faces=whole.faces[kept]))
    wanted = from_centre_mm() - 20.0
    height = GRID.to_lps(np.stack(np.meshgrid(*(np.arange(n) for n in GRID.shape), indexing="ij"), axis=-1))[..., 2]
    clear = (np.abs(wanted) > 1) & (height > -10)
    assert ((got < 0) == (wanted < 0))[clear].all()


def test_places_are_carried_with_the_points_around_them() -> None:
    mean = np.random.default_rng(8).normal(size=(300, 3)) * 25
    patient = turned(mean, 2)
    carry = surfaces._Carrier(mean, patient)
    places = np.array([[3.0, -8.0, 12.0], [0.0, 20.0, -5.0]])
    assert carry(places) == pytest.approx(similarity(mean, patient)(places), abs=1e-6)


def test_bones_that_overlap_are_set_apart_by_a_gap() -> None:
    sacrum, hip = surfaces.signed_distance(GRID, ball(18.0)), surfaces.signed_distance(GRID, ball(18.0, (24, 0, 0)))
    far = np.full(GRID.shape, surfaces.FAR_MM, dtype=np.float32)
    before = {"sacrum": sacrum, "hip_left": hip, "hip_right": far, "l5": far, "l4": far}
    after = surfaces.set_apart(before)
    assert ((sacrum < 0) & (hip < 0)).any()
    assert not ((after["sacrum"] < 0) & (after["hip_left"] < 0)).any()
    assert (after["sacrum"][after["hip_left"] < 0] >= surfaces.JOINT_GAP_MM - 1e-5).all()
    assert (after["sacrum"] == sacrum).all()


def test_head_is_found_in_a_socket_from_a_guess_beside_it() -> None:
    cup = ball(26.0, (80, -50, -90)).vertices
    cup = cup[cup[:, 0] < 85]
    centre, radius = surfaces._socket(cup, np.array([82.0, -52.0, -88.5]), 24.0)
    assert centre == pytest.approx((80, -50, -90), abs=0.5)
    assert radius == pytest.approx(24.0, abs=0.5)
