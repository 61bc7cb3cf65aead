"""Beam hardening in projection space: dark between two rods, streaks beyond, nothing without dense material."""

from __future__ import annotations

import numpy as np
import pytest

from sacroleak.training.simulation.projection import DENSE_HU, Rays, hardening

SPACING = np.array([2.0, 2.0, 2.0])
QUIET_RAYS = Rays(photons=np.inf)


def rods(hu: float = 8000.0, background: float = 0.0) -> np.ndarray:
    """Two rods 12 mm thick, 60 mm apart from left to right, in slices 4 to 11 of 16."""
    x, y = (np.arange(96) - 47.5) * 2, (np.arange(80) - 39.5) * 2
    field = np.full((96, 80, 16), background, dtype=np.float32)
    for centre in (-30.0, 30.0):
        field[np.hypot(x[:, None] - centre, y[None, :]) < 6, 4:12] = hu
    return field


def test_two_rods_have_a_dark_band_between_them_and_streaks_beyond() -> None:
    found = hardening(np.random.default_rng(0), rods(), SPACING, QUIET_RAYS)
    assert found is not None
    change, slices = found
    assert (slices.start, slices.stop) == (4, 12)
    between, beside = change[48, 40, 4], change[48, 70, 4]
    assert between < -80
    assert abs(beside) < 0.25 * abs(between)
    beyond = change[[5, 90], 40, 4].mean()
    assert beyond < -20, "the shadow goes on along the line of the rods"
    assert change[33, 40, 4] < -500, "metal itself is shown darker than it is"
    assert change[33, 46:52, 4].max() > 20, "and brighter beside it"


def test_denser_rods_and_stronger_hardening_cast_darker_shadows() -> None:
    def shadow(hu: float, strength: float) -> float:
        found = hardening(np.random.default_rng(0), rods(hu), SPACING, Rays(photons=np.inf, strength=strength))
        assert found is not None
        return float(found[0][48, 40, 4])

    assert shadow(12000, 1) < shadow(6000, 1) < shadow(3000, 1) < 0
    assert shadow(6000, 0.5) == pytest.approx(0.5 * shadow(6000, 1), rel=1e-3)


@pytest.mark.parametrize("value", [0.0, 1000.0, DENSE_HU])
def test_without_dense_material_nothing_is_added(value: float) -> None:
    assert hardening(np.random.default_rng(0), rods(value), SPACING, Rays()) is None


def test_it_can_be_turned_off() -> None:
    assert hardening(np.random.default_rng(0), rods(), SPACING, Rays(strength=0, photons=np.inf)) is None


def test_few_photons_make_streaks_along_the_line_of_the_rods() -> None:
    many, few = (hardening(np.random.default_rng(0), rods(), SPACING, Rays(strength=0, photons=n)) for n in (1e8, 1e5))
    assert many is not None
    assert few is not None
    assert few[0].std() > 5 * many[0].std()
    along, across = few[0][40:56, 34:46].std(), few[0][40:56, 64:76].std()
    assert along > across


def test_finer_grids_show_the_same_shadow() -> None:
    coarse = hardening(np.random.default_rng(0), rods(), SPACING, QUIET_RAYS)
    fine_hu = rods().repeat(2, axis=0).repeat(2, axis=1)
    fine = hardening(np.random.default_rng(0), fine_hu, np.array([1.0, 1.0, 2.0]), QUIET_RAYS)
    assert coarse is not None
    assert fine is not None
    assert fine[0].shape[:2] == (192, 160)
    blocks = fine[0].reshape(96, 2, 80, 2, -1).mean(axis=(1, 3))
    assert np.corrcoef(blocks.ravel(), coarse[0].ravel())[0, 1] > 0.98
    assert blocks[48, 40, 4] == pytest.approx(coarse[0][48, 40, 4], rel=0.1)


def test_sizes_that_do_not_divide_are_covered() -> None:
    hu = np.zeros((61, 47, 5), dtype=np.float32)
    hu[30:34, 20:24, 2] = 9000
    found = hardening(np.random.default_rng(0), hu, np.array([0.7, 0.7, 3.0]), Rays())
    assert found is not None
    assert found[0].shape == (61, 47, 1)
    assert np.isfinite(found[0]).all()


def test_a_scan_that_shows_its_own_shadows_gets_none_twice() -> None:
    real = rods()
    assert hardening(np.random.default_rng(0), real, SPACING, Rays(), over=real) is None
    lesion = real.copy()
    lesion[48, 60, 6] = 300
    assert hardening(np.random.default_rng(0), lesion, SPACING, Rays(), over=real) is None


def test_what_is_added_to_a_scan_casts_its_own_shadow_alone() -> None:
    real, x, y = rods(), (np.arange(96) - 47.5) * 2, (np.arange(80) - 39.5) * 2
    added = real.copy()
    added[np.hypot(x[:, None], y[None, :] + 50) < 6, 6:10] = 2500
    twice, once = (hardening(np.random.default_rng(0), added, SPACING, QUIET_RAYS, over=over) for over in (None, real))
    assert twice is not None
    assert once is not None
    assert (once[1].start, once[1].stop) == (6, 10), "slices without anything new stay"
    assert np.abs(twice[0][33, 40, 2:6]).max() > 500, "at a rod that the scan shows already"
    assert np.abs(once[0][33, 40]).max() < 60
    assert once[0][48, 15].max() < -300, "what was added is shown darker than it is"


def test_starved_rays_of_a_scan_are_not_starved_again() -> None:
    real, x, y = rods(), (np.arange(96) - 47.5) * 2, (np.arange(80) - 39.5) * 2
    added = real.copy()
    added[np.hypot(x[:, None], y[None, :] + 50) < 3, 6:10] = 2500
    few = Rays(strength=0, photons=1e5)
    twice, once = (hardening(np.random.default_rng(0), added, SPACING, few, over=over) for over in (None, real))
    assert twice is not None
    assert once is not None
    assert once[0].std() < 0.4 * twice[0][:, :, 2:6].std()
