"""What is read where: boxes lose nothing, fields are made when asked for, and a CT moves as its bones do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sacroleak.core.errors import InputError
from sacroleak.core.geometry import Geometry, box_where
from sacroleak.core.volume import Volume
from sacroleak.models.resample import OUTSIDE_HU, sample_separable
from sacroleak.training.simulation import readout
from sacroleak.training.simulation.anatomy import STEP_MM, Anatomy
from sacroleak.training.simulation.readout import Places, axis_indices, no_finer, read_background, read_field
from sacroleak.training.simulation.scene import draw_warp, place, sacrum_centre_mm, still

FINE = Geometry.axis_aligned(origin_lps_mm=(-40, -35, -30), spacing_mm=(0.9, 1.0, 1.4), shape=(70, 60, 40))
BONE_HU = 700


def as_ct(anatomy: Anatomy) -> Anatomy:
    """The anatomy with a CT behind it: its sacrum dense, the left of the body denser than the right."""
    grid = anatomy.geometry
    x = grid.to_lps(np.argwhere(np.ones(grid.shape)))[:, 0].reshape(grid.shape)
    hu = np.where(anatomy.fields["sacrum"] < 0, BONE_HU, 40) + np.where(x > sacrum_centre_mm(anatomy)[0], 100, 0)
    return replace(anatomy, background=Volume(hu=hu.astype(np.int16), geometry=grid))


def test_a_box_holds_every_true_voxel_and_no_more() -> None:
    mask = np.zeros((9, 8, 7), dtype=bool)
    mask[2, 3, 1] = mask[5, 3, 6] = True
    assert box_where(mask) == (slice(2, 6), slice(3, 4), slice(1, 7))
    assert box_where(mask, 2) == (slice(0, 8), slice(1, 6), slice(0, 7))
    assert box_where(mask & False) is None


@pytest.mark.parametrize("seed", range(4))
def test_reading_a_box_gives_what_reading_everything_gives(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    values = np.full((20, 24, 22), 127, dtype=np.int8)
    low = rng.integers(0, 14, size=3)
    values[tuple(slice(a, a + 6) for a in low)] = rng.integers(-127, 127, size=(6, 6, 6))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0] * rng.uniform(0.3, 1.6)
    grid = np.stack(np.meshgrid(*(np.arange(21) - 10,) * 3, indexing="ij")).reshape(3, -1)
    index = (turn @ grid + 11).reshape(3, 21, 21, 21).astype(np.float32)

    def whole() -> np.ndarray:
        placed = read_field(values, Places.of(index), 1.0)
        out = np.full(index.shape[1:], placed.far_mm)
        out[placed.box] = placed.values
        return out

    boxed = whole()
    monkeypatch.setattr(readout, "_box_of", lambda source, places: tuple(slice(0, n) for n in index.shape[1:]))
    assert np.array_equal(boxed, whole())
    assert (boxed < 12).any()


def test_an_anatomy_elsewhere_is_far(pelvis: Anatomy) -> None:
    away = Geometry.axis_aligned(origin_lps_mm=(900, 900, 900), spacing_mm=2.0, shape=(5, 6, 7))
    scene = place(pelvis, away, still(pelvis), np.random.default_rng(0))
    assert all((field == np.float32(127 * STEP_MM)).all() for field in scene.distance.values())


def test_fine_grids_hold_what_the_coarser_grid_says(pelvis: Anatomy) -> None:
    def scene(grid: Geometry) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(1)
        return dict(place(pelvis, grid, draw_warp(rng, pelvis), rng).distance)

    fine, coarse = scene(FINE), scene(no_finer(FINE))
    index = axis_indices(no_finer(FINE), FINE)
    for name in ("sacrum", "canal", "l5"):
        wanted = sample_separable(coarse[name], index)
        assert np.abs(fine[name] - wanted).max() < 1e-3, name


def test_fields_are_read_only_and_the_last_ones_are_kept(pelvis: Anatomy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readout, "KEPT_BYTES", int(2.5 * 4 * np.prod(FINE.shape)))
    scene = place(pelvis, FINE, still(pelvis), np.random.default_rng(0))
    first = scene.distance["sacrum"]
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0, 0] = 0
    assert scene.distance["canal"] is scene.distance["canal"]
    assert scene.distance["sacrum"] is first
    assert scene.distance["l5"] is not None
    assert scene.distance["canal"] is not None, "made anew: two fit, and it was not asked for last"
    again = scene.distance["sacrum"]
    assert again is not first
    assert np.array_equal(again, first)
    assert len(scene.distance) == len(pelvis.fields)
    assert "sacrum" in scene.distance
    assert "skull" not in scene.distance


@pytest.mark.parametrize("spacing", [1.3, 3.0])
@pytest.mark.parametrize("mirrored", [False, True])
def test_the_ct_moves_as_its_bones_do(pelvis: Anatomy, spacing: float, mirrored: bool) -> None:
    rng = np.random.default_rng(7)
    warp = replace(draw_warp(rng, pelvis), mirrored=mirrored)
    shape = int(130 / spacing), int(110 / spacing), int(130 / spacing)
    grid = Geometry.axis_aligned(origin_lps_mm=(-65, -55, -65), spacing_mm=spacing, shape=shape)
    scene = place(as_ct(pelvis), grid, warp, rng)
    assert scene.background is not None
    inside, outside = scene.distance["sacrum"] < -2.7, scene.distance["sacrum"] > 2.7
    # At edges and corners the fields are no true distances, so a few voxels are nearer to the surface than they say.
    half = (BONE_HU + 40) / 2 + 50
    assert (scene.background[inside] > half).mean() > 0.999
    assert (scene.background[outside] < half).mean() > 0.999
    left = grid.to_lps(np.argwhere(np.ones(grid.shape)))[:, 0].reshape(grid.shape) > 25
    higher = scene.background[left & outside].mean() - scene.background[~left & outside].mean()
    assert bool(higher < 0) is mirrored


def test_beyond_the_ct_is_air_and_a_fine_ct_is_averaged() -> None:
    rng = np.random.default_rng(2)
    ct = Volume(hu=rng.normal(0, 100, size=(60, 60, 60)).astype(np.int16),
                geometry=Geometry.axis_aligned(origin_lps_mm=(0, 0, 0), spacing_mm=1.0, shape=(60, 60, 60)))
    grid = Geometry.axis_aligned(origin_lps_mm=(-20, 10, 10), spacing_mm=4.0, shape=(12, 8, 8))
    points = grid.to_lps(np.argwhere(np.ones(grid.shape))).T.reshape(3, *grid.shape).astype(np.float32)
    seen = read_background(ct, points, grid, grid)
    assert (seen[:5] == OUTSIDE_HU).all()
    assert 2 < seen[6:].std() < 30, "noise of 100 HU in every voxel goes down in the average of many"


def test_a_ct_is_saved_with_its_anatomy(pelvis: Anatomy, tmp_path: Path) -> None:
    whole = as_ct(pelvis)
    whole.save(tmp_path / "one.npz")
    again = Anatomy.load(tmp_path / "one.npz")
    assert again.background is not None
    assert whole.background is not None
    assert np.array_equal(again.background.hu, whole.background.hu)
    again.background.geometry.require_same_grid(whole.background.geometry, "background")
    pelvis.save(tmp_path / "two.npz")
    assert Anatomy.load(tmp_path / "two.npz").background is None


def test_a_ct_that_lies_otherwise_is_refused(pelvis: Anatomy) -> None:
    flipped = Geometry(affine=pelvis.geometry.affine @ np.diag([-1.0, 1, 1, 1]), shape=pelvis.geometry.shape)
    with pytest.raises(InputError, match=r"axes do not run along \+L \+P \+S"):
        replace(pelvis, background=Volume(hu=np.zeros(flipped.shape, np.int16), geometry=flipped))
