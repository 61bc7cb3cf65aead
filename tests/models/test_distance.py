"""Distances worked out near something only are those worked out everywhere."""

from __future__ import annotations

import edt
import numpy as np
import pytest
from scipy.ndimage import maximum_filter

from sacroleak.core.geometry import Geometry
from sacroleak.models.distance import Mask, field_near, grown, near_mm, pieces_around, signed_distance

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


@pytest.mark.parametrize("mask", [some(0.0005), some(0.2), balls(((8, 9, 6), 3.0), ((30, 25, 24), 2.0)), some(0.0)])
def test_near_a_mask_distances_are_those_worked_out_everywhere(mask: Mask) -> None:
    away = near_mm(mask, GRID, 4.0)
    wanted = edt.edt(~mask, anisotropy=SPACING) if mask.any() else np.full(SHAPE, np.inf)
    near = wanted <= 4.0
    np.testing.assert_allclose(away[near], wanted[near], rtol=1e-6)
    assert (away[~near] > 4.0).all()


@pytest.mark.parametrize("places", [some(0.0005, seed=1), balls(((20, 18, 4), 3.0), ((33, 10, 20), 2.0))])
def test_a_field_near_places_says_there_what_one_everywhere_says(places: Mask) -> None:
    body = balls(((20, 18, 16), 11.0))
    points = GRID.to_lps(np.argwhere(places) + np.random.default_rng(2).uniform(-0.5, 0.5, (places.sum(), 3)))
    wanted, got = (field.at(points) for field in (signed_distance(body, GRID), field_near(body, GRID, places, 2.0)))
    near = np.abs(wanted) <= 2.0
    assert near.any()
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
