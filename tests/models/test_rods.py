"""Metal told from cement by its shape: screws, cages of screws, and what only looks like one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import gaussian_filter

from sacroleak.core.geometry import Geometry
from sacroleak.models.rods import METAL_HU, rods_in, with_rim
from tests.models.bodies import Inside, ball, cover, nothing, places, rod

Mask = npt.NDArray[np.bool_]
SOFT_HU, CEMENT_HU, SCREW_HU = 45.0, 1900.0, 3071.0
FINE, THICK = (1.0, 1.0, 1.0), (0.9, 0.9, 3.0)


def grid(spacing: tuple[float, float, float], side_mm: float = 64.0) -> Geometry:
    sides = np.ceil(np.array([side_mm] * 3) / spacing).astype(int)
    return Geometry.axis_aligned(origin_lps_mm=-(sides - 1) / 2 * spacing + (0.1, -0.2, 0.3), spacing_mm=spacing,
                                 shape=(int(sides[0]), int(sides[1]), int(sides[2])))


def scan(geometry: Geometry, *shapes: tuple[Inside, float]) -> npt.NDArray[np.float32]:
    """Soft tissue with shapes of given HU in it, later ones over earlier ones."""
    hu = np.full(geometry.shape, SOFT_HU, dtype=np.float32)
    for inside, value in shapes:
        hu += cover(geometry, inside) * np.float32(value - hu)
    return hu


def rimmed(hu: npt.NDArray[np.float32], geometry: Geometry) -> Mask:
    """Rods with their rim."""
    return rods_in(hu, geometry).rimmed


def found_share(shape: Inside, spacing: tuple[float, float, float], *shapes: tuple[Inside, float]) -> float:
    """How much of `shape`, voxels wholly in it, is called a rod in a scan of `shapes`."""
    geometry = grid(spacing)
    return float(rimmed(scan(geometry, *shapes), geometry)[cover(geometry, shape) > 0.99].mean())


ACROSS = rod((-24.0, -14.0, -9.0), (24.0, 14.0, 9.0), 3.5)


@pytest.mark.parametrize("spacing", [FINE, THICK])
def test_a_saturated_screw_is_metal_and_cement_beside_it_is_not(spacing: tuple[float, float, float]) -> None:
    body = ball(7.0, (14.0, -16.0, -8.0))
    assert found_share(ACROSS, spacing, (body, CEMENT_HU), (ACROSS, SCREW_HU)) > 0.95
    assert found_share(body, spacing, (body, CEMENT_HU), (ACROSS, SCREW_HU)) < 0.05


def test_crossing_screws_with_thick_heads_are_metal_though_no_body_is_straight() -> None:
    other, head = rod((-24.0, 14.0, 9.0), (24.0, -14.0, -5.0), 3.2), ball(6.0, (-24.0, -14.0, -9.0))
    shapes = ((ACROSS, SCREW_HU), (other, SCREW_HU), (head, SCREW_HU))
    assert found_share(ACROSS, FINE, *shapes) > 0.9
    assert found_share(other, FINE, *shapes) > 0.9


def test_a_screw_in_a_body_of_cement_is_metal_and_the_cement_beyond_its_rim_is_not() -> None:
    body = ball(11.0)
    geometry = grid(FINE)
    rods = rimmed(scan(geometry, (body, CEMENT_HU), (ACROSS, SCREW_HU)), geometry)
    assert rods[cover(geometry, ACROSS) > 0.99].mean() > 0.95
    beyond = body(places(geometry)) & ~rod((-24.0, -14.0, -9.0), (24.0, 14.0, 9.0), 7.5)(places(geometry))
    assert rods[beyond].mean() < 0.1


def test_a_long_even_screw_is_metal_though_it_does_not_saturate() -> None:
    assert found_share(ACROSS, FINE, (ACROSS, 2400.0)) > 0.9


def test_a_shorter_straight_column_of_that_density_may_be_cement() -> None:
    column = rod((-12.0, 0.0, 0.0), (12.0, 3.0, 4.0), 3.5)
    assert found_share(column, FINE, (column, 2400.0)) == 0.0


def test_saturated_cement_is_no_rod_even_riddled_with_noise() -> None:
    geometry = grid(FINE)
    lump = cover(geometry, lambda p: ball(7.5)(p) | ball(7.5, (0.0, -12.0, 0.0))(p) | ball(5.0, (9.0, 4.0, 6.0))(p))
    hu = (SOFT_HU + lump * np.float32(SCREW_HU - SOFT_HU)).astype(np.float32)
    assert not rimmed(hu, geometry).any()
    grain = np.random.default_rng(0).normal(0, 250, size=hu.shape).astype(np.float32)
    assert not rimmed(np.minimum(hu + grain, np.float32(SCREW_HU)), geometry).any()


def test_what_is_denser_than_any_cement_is_metal_of_any_shape_with_its_rim() -> None:
    geometry, clip = grid(FINE), ball(2.5, (5.0, 0.0, 0.0))
    rods = rimmed(scan(geometry, (clip, METAL_HU + 4000)), geometry)
    assert rods[ball(3.5, (5.0, 0.0, 0.0))(places(geometry))].all()
    assert not rods[~ball(7.0, (5.0, 0.0, 0.0))(places(geometry))].any()


@pytest.mark.parametrize(("spacing", "count"), [((3.0, 3.0, 3.0), 27), ((1.0, 1.0, 5.0), 63), ((2.0, 2.0, 2.0), 7)])
def test_the_rim_reaches_the_next_voxel_however_thick_it_is(spacing: tuple[float, float, float], count: int) -> None:
    """2.5 mm: of a voxel 1 mm wide 21 in its slice are as near, and as many in each slice beside it."""
    rods = np.zeros((11, 11, 11), dtype=bool)
    rods[5, 5, 5] = True
    geometry = Geometry.axis_aligned(origin_lps_mm=(0, 0, 0), spacing_mm=spacing, shape=rods.shape)
    assert with_rim(rods, geometry).sum() == count


def test_a_patient_seen_in_a_mirror_has_the_same_rods() -> None:
    geometry = grid(FINE)
    hu = scan(geometry, (ball(8.0, (-9.0, 10.0, 3.0)), CEMENT_HU), (ACROSS, SCREW_HU))
    plain, mirrored = rimmed(hu, geometry), rimmed(hu[::-1].copy(), geometry)[::-1]
    assert (plain & mirrored).sum() / (plain | mirrored).sum() > 0.9
    assert not rimmed(scan(geometry, (nothing, 0.0)), geometry).any()


@pytest.mark.parametrize("seed", range(6))
def test_no_shape_is_too_odd_to_be_judged(seed: int) -> None:
    """Scattered and branching bodies of all densities, and single voxels."""
    rng = np.random.default_rng(seed)
    hu = gaussian_filter(rng.normal(size=(40, 40, 24)), 1.0 + seed % 3).astype(np.float32)
    hu *= np.float32(rng.uniform(1500, 9000) / hu.max())
    geometry = Geometry.axis_aligned(origin_lps_mm=(0, 0, 0), spacing_mm=(1.0, 1.0, 1.0 + seed), shape=(40, 40, 24))
    rods = rimmed(hu, geometry)
    assert rods.shape == hu.shape
    assert rods[hu > METAL_HU].all()
