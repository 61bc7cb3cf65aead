"""Resampling: what is linear stays exact, and how an array is stored changes nothing."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import numpy.typing as npt
import pytest

from sacroleak.core.geometry import Geometry, Points, Shape
from sacroleak.core.volume import Volume
from sacroleak.models.resample import (
    OUTSIDE_HU,
    aligned_axes,
    resize_linear,
    sample_separable,
    to_aligned_grid,
)

SLOPE = np.array([3.0, -2.0, 1.5])
SPACING = (0.8, 1.1, 2.5)
SHAPE = (50, 44, 20)
ORDERS = [(order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)]


def stored(order: tuple[int, ...], signs: tuple[int, ...]) -> Geometry:
    """A grid of 40 x 48 x 50 mm about the origin whose array axes run along LPS axes in any order and direction."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (lps, sign) in enumerate(zip(order, signs, strict=True)):
        affine[lps, axis] = sign * SPACING[lps]
    shape: Shape = (SHAPE[order[0]], SHAPE[order[1]], SHAPE[order[2]])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Geometry(affine=affine, shape=shape)


def turned(degrees: float) -> Geometry:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag(SPACING)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    return Geometry(affine=affine, shape=SHAPE)


def everywhere(geometry: Geometry) -> Points:
    return geometry.to_lps(np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), axis=-1))


def ramp(geometry: Geometry) -> Volume:
    return Volume(hu=(everywhere(geometry) @ SLOPE).astype(np.float32), geometry=geometry)


def grid(side_mm: float, spacing_mm: float) -> Geometry:
    n = round(side_mm / spacing_mm)
    return Geometry.axis_aligned(origin_lps_mm=(-(n - 1) / 2 * spacing_mm,) * 3, spacing_mm=spacing_mm, shape=(n, n, n))


@pytest.mark.parametrize(("order", "signs"), ORDERS)
def test_a_ramp_stays_a_ramp_however_it_is_stored(order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    """Exact wherever the target is no coarser than the scan."""
    target = grid(30.0, 0.75)
    got = to_aligned_grid(ramp(stored(order, signs)), target)
    assert np.abs(got - everywhere(target) @ SLOPE).max() < 2e-3


@pytest.mark.parametrize("spacing_mm", [1.0, 2.0, 5.0])
def test_a_ramp_moves_by_a_tenth_of_a_millimetre_at_most_on_coarser_grids(spacing_mm: float) -> None:
    """An average over voxels that do not lie evenly about the target's centre belongs to a place beside it."""
    target = grid(25.0, spacing_mm)
    got = to_aligned_grid(ramp(stored((0, 1, 2), (1, 1, 1))), target)
    assert np.abs(got - everywhere(target) @ SLOPE).max() < 0.1 * np.abs(SLOPE).sum()


@pytest.mark.parametrize(("order", "signs"), ORDERS[1::7])
def test_an_array_stored_otherwise_gives_the_same_result(order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    plain = stored((0, 1, 2), (1, 1, 1))
    hu = rng.normal(0, 300, SHAPE).astype(np.float32)
    other = stored(order, signs)
    moved = np.transpose(hu, order)[tuple(slice(None, None, s) for s in signs)]
    for target in (grid(60.0, 2.0), grid(30.0, 0.7)):
        a = to_aligned_grid(Volume(hu=hu, geometry=plain), target)
        b = to_aligned_grid(Volume(hu=np.ascontiguousarray(moved), geometry=other), target)
        assert np.abs(a - b).max() < 0.01


@pytest.mark.parametrize("geometry", [stored((0, 1, 2), (1, 1, 1)), stored((2, 0, 1), (-1, 1, -1)), turned(20)])
def test_outside_is_air(geometry: Geometry) -> None:
    target = grid(120.0, 4.0)
    full = Volume(hu=np.full(geometry.shape, 40, dtype=np.int16), geometry=geometry)
    got = to_aligned_grid(full, target)
    index = geometry.to_index(everywhere(target))
    margin = 4.0 / geometry.spacing_mm
    outside = ((index < -margin) | (index > np.array(geometry.shape) - 1 + margin)).any(axis=-1)
    inside = ((index > margin) & (index < np.array(geometry.shape) - 1 - margin)).all(axis=-1)
    assert outside.any()
    assert inside.any()
    assert (got[outside] == OUTSIDE_HU).all()
    assert np.abs(got[inside] - 40).max() < 1e-3


def test_a_target_beside_the_scan_is_all_air() -> None:
    far = Geometry.axis_aligned(origin_lps_mm=(900, 0, 0), spacing_mm=2.0, shape=(5, 6, 7))
    assert (to_aligned_grid(ramp(stored((0, 1, 2), (1, 1, 1))), far) == OUTSIDE_HU).all()


def smooth(geometry: Geometry) -> Volume:
    x, y, z = np.moveaxis(everywhere(geometry), -1, 0)
    hu = 300 * np.sin(x / 9) * np.cos(y / 11) + 100 * np.cos(z / 13)
    return Volume(hu=hu.astype(np.float32), geometry=geometry)


@pytest.mark.parametrize("degrees", [0.5, 7.0, 30.0])
def test_an_oblique_scan_agrees_with_an_aligned_one(degrees: float) -> None:
    target = grid(25.0, 2.0)
    oblique = to_aligned_grid(smooth(turned(degrees)), target)
    aligned = to_aligned_grid(smooth(turned(0.0)), target)
    assert aligned_axes(turned(degrees)) is None
    assert np.abs(oblique - aligned).max() < 25
    assert np.abs(oblique - aligned).mean() < 5


def test_axes_are_named_by_order_and_direction() -> None:
    assert aligned_axes(stored((0, 1, 2), (1, 1, 1))) == ((0, 1, 2), (1, 1, 1))
    assert aligned_axes(stored((2, 0, 1), (1, -1, 1))) == ((1, 2, 0), (-1, 1, 1))
    assert aligned_axes(turned(10)) is None
    assert aligned_axes(turned(45)) is None


def test_averaging_takes_noise_away() -> None:
    geometry = Geometry.axis_aligned(origin_lps_mm=(0, 0, 0), spacing_mm=1.0, shape=(60, 60, 60))
    noise = np.random.default_rng(0).normal(0, 100, geometry.shape).astype(np.float32)
    coarse = Geometry.axis_aligned(origin_lps_mm=(10, 10, 10), spacing_mm=5.0, shape=(8, 8, 8))
    assert to_aligned_grid(Volume(hu=noise, geometry=geometry), coarse).std() < 20


@pytest.mark.parametrize("spacing_mm", [1.0, 5.0])
def test_bands_add_up_to_the_whole_product(spacing_mm: float) -> None:
    """Each voxel is the mean of all the scan's voxels with the product of three triangles as weights."""
    geometry, target = stored((0, 1, 2), (1, 1, 1)), grid(30.0, spacing_mm)
    hu = np.random.default_rng(1).normal(0, 500, geometry.shape).astype(np.float32)
    weights = []
    for axis in range(3):
        apart = np.abs(target.to_lps(np.arange(target.shape[0])[:, None].repeat(3, 1))[:, axis, None]
                       - geometry.to_lps(np.arange(geometry.shape[axis])[:, None].repeat(3, 1))[None, :, axis])
        triangle = np.maximum(0.0, 1.0 - apart / max(SPACING[axis], spacing_mm))
        weights.append(triangle / triangle.sum(axis=1, keepdims=True))
    wanted = np.einsum("ai,bj,ck,ijk->abc", *weights, hu, optimize=True)
    np.testing.assert_allclose(to_aligned_grid(Volume(hu=hu, geometry=geometry), target), wanted, atol=1e-3)


def test_resizing_keeps_corners_and_ramps() -> None:
    field: npt.NDArray[np.float32] = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    large = resize_linear(field, (5, 9, 13))
    assert large.shape == (5, 9, 13)
    assert large[0, 0, 0] == 0
    assert large[-1, -1, -1] == 23
    assert np.abs(np.diff(large, n=2, axis=2)).max() < 1e-4
    assert np.array_equal(resize_linear(field, (2, 3, 4)), field)


def test_separable_samples_are_clamped_at_the_edges() -> None:
    field = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    got = sample_separable(field, (np.array([-5.0, 0.5, 9.0]), np.array([0.0]), np.array([1.0])))
    assert got[:, 0, 0].tolist() == [1.0, 3.0, 5.0]
