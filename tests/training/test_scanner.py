"""What a scanner does: blur keeps the mean, slices average, noise has the kernel's grain, values end somewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sacroleak.core.geometry import Geometry
from sacroleak.training.simulation.noise import Field, smooth_noise
from sacroleak.training.simulation.scanner import (
    EXTENDED_HU,
    QUIET,
    SATURATED_HU,
    Scanner,
    acquire,
    draw_field_of_view,
    draw_scanner,
    round_view,
    tilted,
    tilted_grid,
)
from sacroleak.training.simulation.scene import Scene

PERFECT = Scanner(blur_mm=0.0, slice_mm=0.0, noise_hu=0.0, hardening=0.0, starvation=False, saturates=False)


def room(spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Scene:
    grid = Geometry.axis_aligned(origin_lps_mm=(-16, -16, -16), spacing_mm=spacing_mm, shape=(32, 32, 32))
    return Scene(geometry=grid, distance={})


def block() -> Field:
    hu = np.zeros((32, 32, 32), dtype=np.float32)
    hu[10:20, 10:20, 10:20] = 1000
    return hu


def scanned(scanner: Scanner, hu: Field | None = None, *, seed: int = 0, over: Field | None = None) -> Field:
    return acquire(np.random.default_rng(seed), block() if hu is None else hu, room().geometry, scanner, over=over)


def test_a_perfect_scanner_changes_nothing() -> None:
    assert np.abs(scanned(PERFECT) - block()).max() < 1e-2


def test_blur_spreads_and_keeps_the_sum() -> None:
    sharp, soft = scanned(replace(PERFECT, blur_mm=1.0)), scanned(replace(PERFECT, blur_mm=3.0, slice_mm=3.0))
    assert soft.sum() == pytest.approx(block().sum(), rel=1e-3)
    assert np.abs(np.diff(soft, axis=0)).max() < np.abs(np.diff(sharp, axis=0)).max()


def test_blur_is_as_wide_as_said() -> None:
    line = np.zeros((32, 32, 32), dtype=np.float32)
    line[16] = 1000
    profile = scanned(replace(PERFECT, blur_mm=4.0), line)[:, 16, 16]
    moment = float(profile @ (np.arange(32) - 16.0) ** 2 / profile.sum())
    # The voxel itself counts for 0.5 mm of the width.
    assert 2.3548 * np.sqrt(moment) == pytest.approx(np.sqrt(4.0 ** 2 - 0.5 ** 2), rel=0.03)


def test_slice_thickness_blurs_along_the_axis_only() -> None:
    thick = scanned(replace(PERFECT, slice_mm=5.0))
    assert thick[15, 15, 9] > 100, "above the block"
    assert abs(thick[9, 15, 15]) < 1, "beside it"


def test_slices_farther_apart_than_the_grid_are_interpolated_back() -> None:
    hu = np.zeros((32, 32, 32), dtype=np.float32)
    hu[:, :, ::2] = 500
    hu[:, :, 7] = 900
    coarse = scanned(replace(PERFECT, slice_mm=4.0, increment_mm=4.0), hu)[16, 16]
    bends = np.abs(np.diff(coarse[2:-2], n=2)) > 1e-3
    assert coarse.shape == (32,)
    assert bends.sum() <= 8, "straight lines between slices"
    flat = scanned(replace(PERFECT, slice_mm=2.0, increment_mm=5.0), np.full((32, 32, 32), 77, dtype=np.float32))
    assert flat == pytest.approx(77, abs=0.01)


@pytest.mark.parametrize("axis", [0, 1])
def test_coarse_pixels_are_interpolated_back_to_the_grid(axis: int) -> None:
    hu = np.zeros((32, 32, 32), dtype=np.float32)
    hu[::2, ::2] = hu[1::2, 1::2] = 500
    fine, coarse = (np.moveaxis(scanned(replace(PERFECT, pixel_mm=mm), hu), axis, 0)[:, 15, 16] for mm in (0.0, 4.0))
    assert (np.abs(np.diff(fine[2:-2], n=2)) > 1).sum() > 20
    assert (np.abs(np.diff(coarse[2:-2], n=2)) > 1e-2).sum() <= 8, "straight lines between pixels"
    flat = scanned(replace(PERFECT, pixel_mm=2.5, averaged=False), np.full((32, 32, 32), 77, dtype=np.float32))
    assert flat == pytest.approx(77, abs=0.01)


def test_pixels_that_average_lose_noise_and_those_read_off_at_points_keep_more() -> None:
    air = np.zeros((32, 32, 32), dtype=np.float32)
    noisy = replace(PERFECT, blur_mm=0.8, noise_hu=30.0)
    grid, averaged, points = (scanned(replace(noisy, pixel_mm=mm, averaged=over), air).std()
                              for mm, over in ((0.0, True), (3.0, True), (3.0, False)))
    assert 1.3 * averaged < points < grid


def test_overlapping_slices_share_their_noise() -> None:
    air = np.zeros((32, 32, 32), dtype=np.float32)
    for slice_mm, low, high in ((1.0, -0.1, 0.1), (4.0, 0.6, 0.9)):
        hu = scanned(replace(PERFECT, noise_hu=20.0, slice_mm=slice_mm), air)
        assert low < np.corrcoef(hu[:, :, 10].ravel(), hu[:, :, 11].ravel())[0, 1] < high


def test_noise_is_about_as_strong_as_said_and_falls_with_thickness() -> None:
    air = np.zeros((32, 32, 32), dtype=np.float32)
    thin = scanned(replace(PERFECT, blur_mm=1.2, noise_hu=40.0, slice_mm=1.0), air)
    thick = scanned(replace(PERFECT, blur_mm=1.2, noise_hu=40.0, slice_mm=4.0), air)
    assert thin.std() == pytest.approx(40, rel=0.3)
    assert thick.std() == pytest.approx(thin.std() / 2, rel=0.15)


def test_a_sharper_kernel_brings_more_and_finer_noise() -> None:
    air = np.zeros((32, 32, 32), dtype=np.float32)
    soft = scanned(replace(PERFECT, blur_mm=2.0, noise_hu=20.0), air)
    bone = scanned(replace(PERFECT, blur_mm=0.6, edge_enhance=1.2, noise_hu=20.0), air)
    assert bone.std() > 2 * soft.std()

    def beside(hu: Field) -> float:
        return float(np.corrcoef(hu[:-1].ravel(), hu[1:].ravel())[0, 1])

    assert beside(soft) > 0.5 > beside(bone)


def test_larger_patients_are_noisier() -> None:
    air = np.zeros((32, 32, 32), dtype=np.float32)
    noisy = replace(PERFECT, noise_hu=20.0)
    small, large = (acquire(np.random.default_rng(0), air, room().geometry, noisy, size).std()
                    for size in ((300.0, 190.0), (480.0, 320.0)))
    assert large > 1.3 * small


def test_dense_things_left_and_right_give_horizontal_noise() -> None:
    hu = np.zeros((32, 32, 32), dtype=np.float32)
    hu[:, 12:20, 16:] = 9000
    noise = scanned(replace(PERFECT, noise_hu=20.0), hu)[:, 24:]
    assert noise[:, :, 16:].std() > 1.2 * noise[:, :, :16].std()
    along, across = (np.abs(np.diff(noise[:, :, 16:], axis=a)).mean() for a in (0, 1))
    assert along < across, "it runs from left to right"


def test_values_end_where_the_scale_ends() -> None:
    bright = np.full((32, 32, 32), 40000, dtype=np.float32)
    assert scanned(replace(PERFECT, saturates=True), bright).max() == SATURATED_HU
    assert scanned(PERFECT, bright).max() == EXTENDED_HU
    assert scanned(PERFECT, bright / np.float32(8)).max() == pytest.approx(5000, rel=1e-4)
    assert scanned(PERFECT, np.full((32, 32, 32), -5000, dtype=np.float32)).min() == -1024


def test_edge_enhancement_overshoots_and_keeps_the_mean() -> None:
    sharp = scanned(replace(PERFECT, edge_enhance=1.0))
    assert sharp.max() > 1050
    assert sharp.min() < -20
    assert sharp.mean() == pytest.approx(block().mean(), rel=1e-3)


def test_a_real_scan_keeps_its_values_where_nothing_was_painted() -> None:
    real = 50 * np.random.default_rng(1).standard_normal((32, 32, 32)).astype(np.float32)
    real[0] = -2000
    painted = real.copy()
    painted[14:18, 14:18, 14:18] = 2500
    hu = scanned(replace(QUIET, hardening=0.0, starvation=False), painted, over=real)
    assert hu[0] == pytest.approx(real[0], abs=0.1)
    assert hu[25:] == pytest.approx(real[25:], abs=1.0)
    assert hu[15, 15, 15] > 1500


def test_a_real_scan_with_metal_and_nothing_dense_added_comes_back_unchanged() -> None:
    real = np.random.default_rng(3).normal(0, 20, (32, 32, 32)).astype(np.float32)
    real[4:8, 4:8] = 8000
    assert (scanned(replace(QUIET, saturates=False), real.copy(), over=real) == real).all()


def test_far_from_what_was_added_a_real_scan_with_metal_stays() -> None:
    real = np.zeros((32, 32, 32), dtype=np.float32)
    real[3:7, 3:7] = 8000
    painted = real.copy()
    painted[20:24, 20:24, 10:20] = 1800
    change = np.abs(scanned(replace(QUIET, saturates=False), painted, over=real) - real)
    assert change[20:24, 20:24, 10:20].min() > 500
    assert change[:, :, :8].max() < 1e-3
    assert change[:12, :12].max() < 60, "the metal's own shadow is in the scan already"


def test_the_same_seed_gives_the_same_bytes() -> None:
    assert scanned(QUIET, seed=3).tobytes() == scanned(QUIET, seed=3).tobytes() != scanned(QUIET, seed=4).tobytes()


@pytest.mark.parametrize("wild", [False, True])
def test_drawn_scanners_span_what_exists(wild: bool) -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_scanner(rng, wild=wild, rebinned=True) for _ in range(400)]
    slices = [s.slice_mm for s in drawn]
    assert min(slices) < 0.8
    assert max(slices) > 5
    assert all(0.3 <= s.blur_mm <= 3.0 for s in drawn)
    assert all(4 <= s.noise_hu <= 60 for s in drawn)
    assert {s.saturates for s in drawn} == {s.prone for s in drawn} == {False, True}
    assert {-2000.0, -3024.0, 0.0} < {s.padding_hu for s in drawn}
    assert any(s.increment_mm > s.slice_mm for s in drawn), "gaps"
    assert any(0 < s.increment_mm < s.slice_mm for s in drawn), "overlap"
    assert not any(draw_scanner(rng, wild=wild).increment_mm for _ in range(50)), "the grid's own slices, unless asked"
    assert 0.3 < np.mean([s.pixel_mm > 0 for s in drawn]) < 0.5
    assert all(1.2 <= s.pixel_mm <= min(3.0, s.increment_mm) for s in drawn if s.pixel_mm)
    assert not any(draw_scanner(rng, wild=wild).pixel_mm for _ in range(50)), "likewise its pixels"


def test_a_round_field_of_view_shows_what_lies_in_it() -> None:
    scene = room()
    view = round_view(scene, replace(QUIET, fov_mm=24.0, fov_centre_mm=(0.0, 0.0)))
    assert view is not None
    assert view[16, 16, 0]
    assert not view[0, 0, 0]
    assert view.mean() == pytest.approx(np.pi * 144 / 1024, rel=0.1)
    assert round_view(scene, QUIET) is None
    assert round_view(scene, replace(QUIET, fov_mm=500.0)) is None, "all of the grid"


@pytest.mark.parametrize("tilt_deg", [-18.0, 12.0])
def test_a_tilted_gantry_moves_no_structure(tilt_deg: float) -> None:
    scene = room((1.0, 1.5, 2.0))
    grid = tilted_grid(scene.geometry, tilt_deg)
    place = scene.geometry.to_lps(np.indices((32, 32, 32)).transpose(1, 2, 3, 0))
    height = place[..., 2].astype(np.float32)
    seen = tilted(height, scene.geometry, tilt_deg, beyond=np.nan)
    truly = grid.to_lps(np.indices((32, 32, 32)).transpose(1, 2, 3, 0))[..., 2]
    known = np.isfinite(seen)
    inner = known & (truly > height.min()) & (truly < height.max())
    assert inner.mean() > 0.5
    assert seen[inner] == pytest.approx(truly[inner], abs=1e-3)
    assert (~known).any(), "the corners are not seen"
    assert grid.voxel_ml == pytest.approx(scene.geometry.voxel_ml)


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
