from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sacroleak.core.errors import GeometryError
from sacroleak.core.geometry import GRID_TOLERANCE_MM, Geometry, Points

numbers = st.floats(-1, 1, allow_nan=False)


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    """Any rotated, sheared, mirrored grid with sides of 0.3 to 5 mm; never close to flat."""
    angles = np.array(draw(st.tuples(numbers, numbers, numbers))) * np.pi
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        step = np.eye(3)
        step[[a, b, a, b], [a, b, b, a]] = np.cos(angle), np.cos(angle), -np.sin(angle), np.sin(angle)
        turn = turn @ step
    spacing = draw(st.tuples(*[st.floats(0.3, 5)] * 3))
    signs = draw(st.tuples(*[st.sampled_from((-1, 1))] * 3))
    shear = np.eye(3)
    shear[1, 2] = draw(st.floats(-0.6, 0.6))
    affine = np.eye(4)
    affine[:3, :3] = turn @ shear @ np.diag(np.multiply(spacing, signs))
    affine[:3, 3] = np.array(draw(st.tuples(numbers, numbers, numbers))) * 1000
    return Geometry(affine=affine, shape=draw(st.tuples(*[st.integers(1, 40)] * 3)))


points: st.SearchStrategy[Points] = st.lists(
    st.tuples(*[st.floats(-500, 500)] * 3), min_size=1, max_size=5).map(np.array)


@given(geometries(), points)
def test_index_and_place_undo_each_other(grid: Geometry, where: Points) -> None:
    assert np.allclose(grid.to_lps(grid.to_index(where)), where, atol=1e-6)
    assert np.allclose(grid.to_index(grid.to_lps(where)), where, atol=1e-6)


@given(geometries(), st.sampled_from((0, 1, 2)), st.randoms(use_true_random=False))
def test_flipping_an_array_with_its_affine_moves_no_voxel(grid: Geometry, axis: int, dice: Random) -> None:
    last = grid.shape[axis] - 1
    affine = grid.affine.copy()
    affine[:3, 3] += affine[:3, axis] * last
    affine[:3, axis] *= -1
    flipped = Geometry(affine=affine, shape=grid.shape)
    index = np.array([dice.randint(0, n - 1) for n in grid.shape])
    mirrored = index.copy()
    mirrored[axis] = last - index[axis]
    assert np.allclose(flipped.to_lps(mirrored), grid.to_lps(index), atol=1e-6)
    assert flipped.voxel_ml == pytest.approx(grid.voxel_ml)
    assert np.allclose(flipped.centre_lps_mm, grid.centre_lps_mm, atol=1e-6)


@given(geometries())
def test_a_crop_keeps_every_voxel_in_its_place(grid: Geometry) -> None:
    start = np.array(grid.shape) // 3
    part = grid.crop(start, grid.shape)
    assert part.shape == tuple(np.array(grid.shape) - start)
    assert np.allclose(part.to_lps((0, 0, 0)), grid.to_lps(start), atol=1e-6)


@given(geometries())
def test_spacing_and_volume_agree_with_the_places_of_neighbours(grid: Geometry) -> None:
    origin = grid.to_lps((0, 0, 0))
    edges = np.array([grid.to_lps(step) - origin for step in np.eye(3)])
    assert np.allclose(np.linalg.norm(edges, axis=1), grid.spacing_mm, atol=1e-6)
    assert grid.voxel_ml * 1000 == pytest.approx(abs(np.dot(edges[0], np.cross(edges[1], edges[2]))), rel=1e-6)


def test_an_axis_aligned_grid_starts_at_its_origin() -> None:
    grid = Geometry.axis_aligned(origin_lps_mm=(1, 2, 3), spacing_mm=(1, 2, 4), shape=(3, 3, 3))
    assert np.array_equal(grid.to_lps((1, 1, 1)), (2, 4, 7))
    assert np.array_equal(grid.corners_lps_mm().max(axis=0), (3, 6, 11))


@pytest.mark.parametrize("affine", [
    np.eye(3), np.full((4, 4), np.nan), np.diag([1.0, 1, 0, 1]), np.diag([1.0, 1, 1, 2]),
])
def test_an_affine_that_places_nothing_is_refused(affine: Points) -> None:
    with pytest.raises(GeometryError, match="affine"):
        Geometry(affine=affine, shape=(2, 2, 2))


def test_a_grid_without_voxels_is_refused() -> None:
    with pytest.raises(GeometryError, match="shape"):
        Geometry(affine=np.eye(4), shape=(2, 0, 2))


def test_the_affine_cannot_be_changed_afterwards() -> None:
    grid = Geometry(affine=np.eye(4), shape=(2, 2, 2))
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 0] = 2


def test_grids_that_lie_apart_are_not_the_same() -> None:
    grid = Geometry.axis_aligned(origin_lps_mm=(0, 0, 0), spacing_mm=(1, 1, 1), shape=(9, 9, 9))
    near = Geometry.axis_aligned(origin_lps_mm=(GRID_TOLERANCE_MM / 2, 0, 0), spacing_mm=(1, 1, 1), shape=(9, 9, 9))
    far = Geometry.axis_aligned(origin_lps_mm=(0, 3, 0), spacing_mm=(1, 1, 1), shape=(9, 9, 9))
    grid.require_same_grid(near, "label map")
    with pytest.raises(GeometryError, match=r"label map: corners are 3\.00 mm apart"):
        grid.require_same_grid(far, "label map")
    with pytest.raises(GeometryError, match="shapes differ"):
        grid.require_same_grid(grid.crop((0, 0, 0), (8, 9, 9)), "label map")


@given(geometries())
def test_the_nearest_voxel_of_a_place_is_found_and_told_from_one_beyond_the_grid(grid: Geometry) -> None:
    last = np.array(grid.shape) - 1
    wanted = np.array([np.zeros(3), last, last + 1, -np.ones(3)])
    at, inside = grid.nearest(grid.to_lps(wanted + 0.4))
    assert np.array_equal(at, wanted)
    assert inside.tolist() == [True, True, False, False]
    assert np.array_equal(np.stack(grid.nearest_within(grid.to_lps(wanted + 0.4)), axis=-1), np.clip(wanted, 0, last))
