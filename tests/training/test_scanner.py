"""What a scanner does: blur keeps the mean, thick slices are less noisy, a 12-bit scanner saturates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sacroleak.core.geometry import Geometry
from sacroleak.training.simulation.noise import smooth_noise
from sacroleak.training.simulation.scanner import (
    QUIET,
    SATURATED_HU,
    Scanner,
    acquire,
    draw_field_of_view,
    draw_scanner,
)
from sacroleak.training.simulation.scene import Field, Scene

PERFECT = Scanner(blur_mm=0.0, slice_mm=0.0, noise_hu=0.0, noise_cells_mm=1.0, streak_hu=0.0, saturates=False,
                  edge_enhance=0.0)


def room(spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Scene:
    grid = Geometry.axis_aligned(origin_lps_mm=(-16, -16, -16), spacing_mm=spacing_mm, shape=(32, 32, 32))
    return Scene(geometry=grid, distance={})


def block() -> Field:
    hu = np.zeros((32, 32, 32), dtype=np.float32)
    hu[10:20, 10:20, 10:20] = 1000
    return hu


def scanned(scanner: Scanner, hu: Field | None = None, *, scene: Scene | None = None, seed: int = 0,
            dense: np.ndarray | None = None) -> Field:
    return acquire(np.random.default_rng(seed), block() if hu is None else hu, scene or room(), scanner, dense)


def test_a_perfect_scanner_changes_nothing() -> None:
    assert np.abs(scanned(PERFECT) - block()).max() < 1e-3


def test_blur_spreads_and_keeps_the_sum() -> None:
    sharp, soft = scanned(replace(PERFECT, blur_mm=1.0)), scanned(replace(PERFECT, blur_mm=3.0, slice_mm=3.0))
    assert soft.sum() == pytest.approx(block().sum(), rel=1e-3)
    assert np.abs(np.diff(soft, axis=0)).max() < np.abs(np.diff(sharp, axis=0)).max()


def test_slice_thickness_blurs_along_the_axis_only() -> None:
    thick = scanned(replace(PERFECT, slice_mm=5.0))
    assert thick[15, 15, 9] > 100, "above the block"
    assert abs(thick[9, 15, 15]) < 1, "beside it"


def test_noise_is_as_strong_as_said_and_falls_with_thickness() -> None:
    air = np.zeros((32, 32, 32), dtype=np.float32)
    thin = scanned(replace(PERFECT, noise_hu=40.0, slice_mm=1.0), air)
    thick = scanned(replace(PERFECT, noise_hu=40.0, slice_mm=4.0), air)
    assert thin.std() == pytest.approx(40, rel=0.15)
    assert thick.std() == pytest.approx(thin.std() / 2, rel=0.1)


def test_a_12_bit_scanner_saturates() -> None:
    bright = np.full((32, 32, 32), 9000, dtype=np.float32)
    assert scanned(replace(PERFECT, saturates=True), bright).max() == SATURATED_HU
    assert scanned(PERFECT, bright).max() == pytest.approx(9000)
    assert scanned(PERFECT, np.full((32, 32, 32), -5000, dtype=np.float32)).min() == -1024


def test_streaks_come_from_dense_things_and_stay_in_their_slices() -> None:
    air = np.zeros((32, 32, 32), dtype=np.float32)
    metal = room().geometry.to_lps(np.argwhere(np.ones((6, 6, 4))) + (13, 13, 14))
    streaky = replace(PERFECT, streak_hu=200.0)
    assert np.abs(scanned(streaky, air)).max() == 0, "nothing dense, no streaks"
    assert np.abs(scanned(streaky, air, dense=metal[:10])).max() == 0, "too little of it"
    hu = np.abs(scanned(streaky, air, dense=metal))
    assert hu.max() == pytest.approx(200, rel=0.05)
    assert hu[:, :, 14:18].mean() > 20 * hu[:, :, :4].mean()


def test_edge_enhancement_overshoots() -> None:
    assert scanned(replace(PERFECT, edge_enhance=1.0)).max() > 1050


def test_the_same_seed_gives_the_same_bytes() -> None:
    assert scanned(QUIET, seed=3).tobytes() == scanned(QUIET, seed=3).tobytes() != scanned(QUIET, seed=4).tobytes()


@pytest.mark.parametrize("wild", [False, True])
def test_drawn_scanners_span_what_exists(wild: bool) -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_scanner(rng, wild=wild) for _ in range(400)]
    slices = [s.slice_mm for s in drawn]
    assert min(slices) < 0.8
    assert max(slices) > 5
    assert all(0.4 <= s.blur_mm <= (3.0 if wild else 1.8) for s in drawn)
    assert all(4 <= s.noise_hu <= 90 for s in drawn)
    assert {s.saturates for s in drawn} == {False, True}


def test_a_cut_field_of_view_keeps_at_least_a_fifth_of_the_grid() -> None:
    rng = np.random.default_rng(0)
    shape = (50, 40, 30)
    shares = []
    for _ in range(300):
        seen = np.zeros(shape, dtype=bool)
        seen[draw_field_of_view(rng, shape)] = True
        shares.append(seen.mean())
    assert min(shares) > 0.62 ** 3 - 1e-9
    assert 0.2 < np.mean(np.array(shares) == 1) < 0.5


@pytest.mark.parametrize("cells", [1.0, 4.0, 10.0])
def test_smooth_noise_has_unit_variance_and_the_grain_asked_for(cells: float) -> None:
    field = smooth_noise(np.random.default_rng(0), (40, 30, 20), cells)
    assert field.shape == (40, 30, 20)
    assert field.std() == pytest.approx(1.0, abs=1e-3)
    if cells > 2:
        assert np.abs(np.diff(field, axis=0)).mean() < 2.5 / cells
