"""Distances worked out near something only are those worked out everywhere."""

from __future__ import annotations

import edt
import numpy as np
import pytest
from scipy.ndimage import maximum_filter

from sacroleak.core.geometry import Geometry
from sacroleak.models.distance import Mask, grown, near_mm, pieces_around, signed_distance, signed_near

SHAPE, SPACING = (40, 36, 32), (1.0, 0.7, 1.5)
GRID = Geometry.axis_aligned(origin_lps_mm=(5.0, -3.0, 20.0), spacing_mm=SPACING, shape=SHAPE)


def some(share: float, seed: int = 0) -> Mask:
    """About such a share of the grid's voxels."""
    mask: Mask = np.random.default_rng(seed).random(SHAPE) < share
    return mask


def balls(*of: tuple[tuple[int, int, int], float]) -> Mask:
    """Balls: the index of the middle, and the radius in voxels."""
    index, mask = np.moveaxis(np.indices(SHAPE), 0, -1), np.zeros(SHAPE, dtype=bool)
    for middle, radius in of:
        mask |= np.linalg.norm(index - np.array(middle), axis=-1) <= radius
    return mask


CUBES = Geometry.axis_aligned(origin_lps_mm=(5.0, -3.0, 20.0), spacing_mm=0.9, shape=SHAPE)


@pytest.mark.parametrize("grid", [GRID, CUBES])
@pytest.mark.parametrize("reach_mm", [0.5, 4.0, 9.8])
@pytest.mark.parametrize("mask", [some(0.0005), some(0.2), balls(((8, 9, 6), 3.0), ((30, 25, 24), 2.0)), some(0.0)])
def test_near_a_mask_distances_are_those_worked_out_everywhere(mask: Mask, reach_mm: float, grid: Geometry) -> None:
    away = near_mm(mask, grid, reach_mm)
    wanted = edt.edt(~mask, anisotropy=tuple(grid.spacing_mm)) if mask.any() else np.full(SHAPE, np.inf)
    near = wanted <= reach_mm
    np.testing.assert_allclose(away[near], wanted[near], rtol=1e-6)
    assert (away[~near] > reach_mm).all()


@pytest.mark.parametrize("grid", [GRID, CUBES])
@pytest.mark.parametrize("body", [balls(((20, 18, 16), 11.0)), some(0.01), some(0.0), ~some(0.0)])
def test_a_signed_distance_near_the_surface_is_that_worked_out_everywhere(body: Mask, grid: Geometry) -> None:
    points = grid.to_lps(np.random.default_rng(2).uniform(0, np.subtract(SHAPE, 1), (5000, 3)))
    wanted, got = (field.at(points) for field in (signed_distance(body, grid), signed_near(body, grid, 2.0)))
    near = np.abs(wanted) <= 2.0
    np.testing.assert_allclose(got[near], wanted[near], atol=1e-5)
    assert (np.sign(got) == np.sign(wanted)).all()
    assert (np.abs(got[~near]) > 2.0).all()


def test_boxes_of_pieces_hold_them_with_their_margin_or_are_one_of_all() -> None:
    boxes = pieces_around(balls(((8, 9, 6), 3.0), ((30, 25, 24), 2.0)), (2, 3, 4))
    assert sorted(tuple((s.start, s.stop) for s in box) for box in boxes) == [
        ((3, 14), (3, 16), (0, 14)), ((26, 35), (20, 31), (18, 31))]
    assert pieces_around(some(0.1), 5) == [tuple(slice(0, side) for side in SHAPE)]
    assert pieces_around(some(0.0), 5) == []


@pytest.mark.parametrize("voxels", [0, 1, 3])
def test_a_mask_grows_along_each_axis(voxels: int) -> None:
    mask = some(0.005)
    np.testing.assert_array_equal(grown(mask, voxels), maximum_filter(mask, size=2 * voxels + 1))
